"""bulk.py CERTIFICATE KEY PORT: plain HTTP/1.1 on loopback. GET /N answers N MiB of which no two alike, PUT says the SHA-256 of what came."""
import hashlib, http.server, sys

MIB = 1 << 20

def block(number):
    return hashlib.sha256(b"%d" % number).digest() * (MIB // 32)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        count = int(self.path[1:])
        self.send_response(200)
        self.send_header("content-length", str(count * MIB))
        self.end_headers()
        for number in range(count):
            self.wfile.write(block(number))

    def do_PUT(self):
        digest, chunked = hashlib.sha256(), "chunked" in self.headers.get("transfer-encoding", "")
        left = None if chunked else int(self.headers["content-length"])
        while left is None or left > 0:
            size = int(self.rfile.readline(), 16) if chunked else min(left, MIB)
            for taken in range(0, size, MIB):
                digest.update(self.rfile.read(min(MIB, size - taken)))
            if chunked:
                self.rfile.readline()
                if size == 0:
                    break
            else:
                left -= size
        answer = (digest.hexdigest() + "\n").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3])), Handler)
print("ready", flush=True)
server.serve_forever()
