"""Says twice what it expects to answer, echoing a key, and answers once somebody else has asked for /go."""
import http.server, threading

import https

go = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/go":
            go.set()
        else:
            for name in ("a.css", "b.js"):
                self.send_response_only(103)
                self.send_header("Link", f"</{name}>; rel=preload")
                self.send_header("X-Echo", self.headers.get("x-api-key", "none"))
                self.end_headers()
            go.wait()
            go.clear()
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")


https.serve(Handler)
