"""files.py CERTIFICATE KEY DIRECTORY: the directory's files over HTTPS, as any static server lists and sends them."""
import functools, http.server, ssl, sys

Handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[3])
http.server.SimpleHTTPRequestHandler.protocol_version = "HTTP/1.1"
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(*sys.argv[1:3])
server = http.server.ThreadingHTTPServer(("203.0.113.14", 443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("ready", flush=True)
server.serve_forever()
