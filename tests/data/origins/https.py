"""Serves what a handler of http.server answers over HTTPS, for whoever is started as NAME.py CERTIFICATE KEY …, or over HTTP for NAME.py … plain."""
import http.server, ssl, sys


def serve(handler):
    plain = sys.argv[3:] == ["plain"]
    server = http.server.ThreadingHTTPServer(("203.0.113.14", 80 if plain else 443), handler)
    if not plain:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*sys.argv[1:3])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("ready", flush=True)
    server.serve_forever()
