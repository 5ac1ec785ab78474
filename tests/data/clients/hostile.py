"""hostile.py HOST KIND: bytes that no honest client sends, each on a connection of its own; while it is open, an honest request is served.

A line for each shape. How it ends is for the peer to choose: an answer, a close, a reset or nothing more."""
import os, socket, ssl, struct, sys, urllib.parse

HOST, KIND = sys.argv[1], sys.argv[2]
# Of a client whose peer does not read, or has nothing to say.
socket.setdefaulttimeout(1)
CONNECT = b"CONNECT " + HOST.encode() + b":443 HTTP/1.1\r\nhost: " + HOST.encode() + b":443\r\n\r\n"


def proxy():
    named = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
    return socket.create_connection((named.hostname, named.port))


def tunnel():
    s = proxy()
    s.settimeout(30)
    s.sendall(CONNECT)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += s.recv(1) or sys.exit("no answer to CONNECT")
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return s


def connect():
    return tunnel() if KIND in ("explicit", "tunnel") else socket.create_connection((HOST, 443), timeout=30)


def tls(alpn):
    context = ssl.create_default_context()
    context.set_alpn_protocols([alpn])
    s = context.wrap_socket(connect(), server_hostname=HOST)
    assert s.selected_alpn_protocol() == alpn
    s.settimeout(1)
    return s


def good():
    with tls("http/1.1") as s:
        s.settimeout(60)
        s.sendall(b"GET /good HTTP/1.1\r\nhost: " + HOST.encode() + b"\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: s.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 "), answer


def get(headers=b"", path=b"/hostile", method=b"GET"):
    return method + b" " + path + b" HTTP/1.1\r\nhost: " + HOST.encode() + b"\r\n" + headers + b"\r\n"


def chunked(body):
    return [get(b"transfer-encoding: chunked\r\n", method=b"POST"), body]


HTTP1 = {
    "random bytes": [os.urandom(1 << 20)],
    "half a request": [get()[:-3]],
    "header of 100 KB": [get(b"x: " + b"a" * 100_000 + b"\r\n")],
    "header of 16 MB": [get(b"x: " + b"a" * (16 << 20) + b"\r\n")],
    "10,000 headers": [get(b"".join(b"x-%d: y\r\n" % n for n in range(10_000)))],
    "header without end": [get()[:-2]] + [b"x: y\r\n" * 1000] * 1000,
    "request line of 1 MB": [get(path=b"/" + b"a" * (1 << 20))],
    "method of 1 MB": [get(method=b"A" * (1 << 20))],
    "empty lines without end": [b"\r\n" * 65536] * 16,
    "NUL and folded headers": [get(b"x: a\0b\r\n y\r\n")],
    "length and chunks": [get(b"content-length: 5\r\ntransfer-encoding: chunked\r\n", method=b"POST"), b"0\r\n\r\n"],
    "two lengths": [get(b"content-length: 5\r\ncontent-length: 6\r\n", method=b"POST"), b"abcdef"],
    "length past 64 bits": [get(b"content-length: 99999999999999999999999\r\n", method=b"POST")],
    "body that never comes": [get(b"content-length: 9223372036854775807\r\n", method=b"POST")],
    "chunk size past 64 bits": chunked(b"f" * 40 + b"\r\n"),
    "chunk extension without end": chunked(b"1;" + b"x" * (1 << 20)),
    "trailers without end": chunked(b"0\r\n" + b"x: y\r\n" * 200_000),
    "1,000 pipelined, none read": [get() * 1000],
    "preface of HTTP/2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)],
    "upgrade to nothing": [get(b"connection: upgrade\r\nupgrade: \r\n")],
}


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
# :method GET, :scheme https (both in the static table), :path and :authority as literals without indexing (RFC 7541).
HEAD = b"\x82\x87\x04\x08/hostile\x01" + bytes([len(HOST)]) + HOST.encode()


def headers(stream, block=HEAD, flags=5):
    return frame(HEADERS, flags, stream, block)


def streams(count):
    return range(1, 2 * count, 2)


# A value of 4,000 octets enters the dynamic table, and is then named by one octet each (index 62).
ENTRY = b"\x40\x01x\x7f" + bytes([(4000 - 127) & 0x7F | 0x80, (4000 - 127) >> 7]) + b"a" * 4000
BLOCK = b"\xbe" * 16_000

HTTP2 = {
    "rapid reset": [PREFACE] + [headers(n) + frame(RST, 0, n, bytes(4)) for n in streams(5000)],
    "continuation flood": [PREFACE, headers(1, flags=1)] + [frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y" * 200)] * 10_000,
    "empty continuations": [PREFACE, headers(1, flags=1)] + [frame(CONTINUATION, 0, 1) * 1000] * 100,
    "settings flood": [PREFACE] + [frame(SETTINGS, 0, 0, struct.pack(">HI", 3, n)) * 100 for n in range(500)],
    "ping flood": [PREFACE] + [frame(PING, 0, 0, bytes(8)) * 100] * 1000,
    "priority flood": [PREFACE] + [frame(PRIORITY, 0, n, struct.pack(">IB", 0, 1)) for n in streams(20_000)],
    "empty data flood": [PREFACE, headers(1, flags=4)] + [frame(DATA, 0, 1) * 1000] * 50,
    "HPACK bomb": [PREFACE, headers(1, HEAD + ENTRY)] + [headers(n, HEAD + BLOCK) for n in range(3, 203, 2)],
    "window of nothing": [PREFACE, frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))] + [headers(n) for n in streams(2000)],
    "window past its end": [PREFACE, headers(1)] + [frame(WINDOW, 0, 0, struct.pack(">I", 0x7FFFFFFF))] * 3,
    "body past the window": [PREFACE, headers(1, flags=4)] + [frame(DATA, 0, 1, bytes(16384))] * 1000,
    "frame of 16 MB": [PREFACE, b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"] + [bytes(1 << 20)] * 16,
    "data of no stream": [PREFACE, frame(DATA, 0, 0, b"x")],
    "headers of an even stream": [PREFACE, headers(2)],
    "unknown frames": [PREFACE] + [frame(200, 255, 7, bytes(16384))] * 500,
    "random frames": [PREFACE] + [frame(os.urandom(1)[0] % 10, os.urandom(1)[0], n, os.urandom(50)) for n in range(2000)],
    "random bytes": [PREFACE, os.urandom(1 << 20)],
    "no preface": [b"GET / HTTP/1.1\r\n\r\n"],
}

HELLO = bytes.fromhex("0303") + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0"


def hello(extensions):
    body = HELLO + struct.pack(">H", len(extensions)) + extensions
    return b"\1" + struct.pack(">I", len(body))[1:] + body


def record(kind, payload):
    return struct.pack(">BHH", kind, 0x0303, len(payload)) + payload


NAME = HOST.encode()
SNI = struct.pack(">HHHBH", 0, len(NAME) + 5, len(NAME) + 3, 0, len(NAME)) + NAME
WHOLE = hello(SNI)
TLS = {
    "application data first": [record(23, os.urandom(1000))] * 100,
    "empty records": [record(22, b"")] * 20_000,
    "one octet a record": [record(22, WHOLE[n:n + 1]) for n in range(len(WHOLE))],
    "alerts before the hello": [record(21, b"\1\0")] * 20_000,
    "cipher changes": [record(20, b"\1")] * 20_000,
    "cipher changes after the hello": [record(22, WHOLE)] + [record(20, b"\1")] * 20_000,
    "hello twice": [record(22, WHOLE) * 2],
    "record of 64 KB": [b"\x16\x03\x03\xff\xff" + bytes(65535)],
    "names without end": [record(22, hello(SNI * 500)[:16000])],
    "name of a kilobyte": [record(22, hello(struct.pack(">HHHBH", 0, 1005, 1003, 0, 1000) + b"a" * 1000))],
    "length that lies": [record(22, WHOLE[:3] + b"\xff" + WHOLE[4:])],
    "SSL 2": [b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(48)],
    "random after the hello": [record(22, WHOLE), os.urandom(1 << 20)],
}

# What a proxy is asked. Whatever an origin is asked is nothing for a proxy.
EXPLICIT = HTTP1 | {
    "SOCKS 4": [b"\4\1\1\xbb\xcb\0\x71\x0a\0"],
    "SOCKS 5": [b"\5\1\0", b"\5\1\0\1\xcb\0\x71\x0a\1\xbb"],
    "TLS": [record(22, WHOLE)] * 1000,
    "tunnel to nothing": [b"CONNECT  HTTP/1.1\r\n\r\n"],
    "tunnel to a path": [b"CONNECT /a HTTP/1.1\r\nhost: " + NAME + b"\r\n\r\n"],
    "tunnel to no port": [b"CONNECT " + NAME + b" HTTP/1.1\r\n\r\n"],
    "tunnel to a port past the last": [b"CONNECT " + NAME + b":65536 HTTP/1.1\r\n\r\n"],
    "tunnel to a name of 60 KB": [b"CONNECT " + b"a" * 60_000 + b":443 HTTP/1.1\r\n\r\n"],
    "tunnel with a body": [CONNECT[:-2] + b"content-length: 1000000\r\n\r\n" + bytes(1_000_000)],
    "bytes before the tunnel is granted": [CONNECT + os.urandom(1 << 20)],
    "absolute URL of 1 MB": [b"GET http://" + NAME + b"/" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n"],
    "absolute URL of another scheme": [b"GET gopher://" + NAME + b"/ HTTP/1.1\r\nhost: " + NAME + b"\r\n\r\n"] * 1000,
    "absolute URL and another host": [b"GET http://" + NAME + b"/hostile HTTP/1.1\r\nhost: other.test\r\n\r\n"] * 1000,
    "1,000 of plain HTTP, none read": [b"GET http://" + NAME + b"/hostile HTTP/1.1\r\nhost: " + NAME + b"\r\n\r\n"] * 1000,
}


def question(name):
    return b"\0\7\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"


DNS = {
    "nothing": b"",
    "half a header": bytes(5),
    "random": os.urandom(500),
    "name that names itself": question(b"\xc0\x0c"),
    "two names in a circle": question(b"\1a\xc0\x10\1b\xc0\x0c"),
    "name past the end": question(b"\xc0\xff"),
    "label past the end": question(b"\x3fabc"),
    "name of 10 KB": question((b"\x3f" + b"a" * 63) * 160 + b"\0"),
    "65,535 questions": b"\0\7\1\0\xff\xff\0\0\0\0\0\0" + b"\1a\0\0\1\0\1" * 500,
    "an answer": b"\0\7\x81\x80\0\1\0\1\0\0\0\0\1a\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\1\0\4\1\2\3\4",
}


def send(s, parts):
    try:
        for part in parts:
            s.sendall(part)
        while s.recv(65536):
            pass
    except OSError:
        pass


def on_connections(cases, connect):
    for name, parts in cases.items():
        s = connect()
        send(s, parts)
        good()
        s.close()
        print(name, flush=True)


def dns():
    server = ("203.0.113.53", 53)
    for name, packet in DNS.items():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_connection(server) as tcp:
            udp.sendto(packet, server)
            # Alone, and as less than the length in front of it says.
            send(tcp, [struct.pack(">H", len(packet)) + packet, struct.pack(">H", 65535) + packet])
            good()
        print(name, flush=True)


good()
print("ready", flush=True)
sys.stdin.readline()
{
    "http1": lambda: on_connections(HTTP1, lambda: tls("http/1.1")),
    "http2": lambda: on_connections(HTTP2, lambda: tls("h2")),
    "tls": lambda: on_connections(TLS, lambda: socket.create_connection((HOST, 443))),
    "dns": dns,
    "explicit": lambda: on_connections(EXPLICIT, proxy),
    "tunnel": lambda: on_connections(TLS | {"a tunnel in a tunnel": [CONNECT * 1000]}, tunnel),
}[KIND]()
print("all", flush=True)
sys.stdin.readline()
