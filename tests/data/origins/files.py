"""files.py CERTIFICATE KEY DIRECTORY: the directory's files over HTTPS, as any static server lists and sends them."""
import functools, http.server, sys

import https

Handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[3])
http.server.SimpleHTTPRequestHandler.protocol_version = "HTTP/1.1"
https.serve(Handler)
