"""odd.py WHAT …: one odd use of the network, printed as what came back or as the name of the errno."""
import errno, hashlib, os, socket, ssl, sys


def udp(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(20)
        s.connect((host, int(port)))
        s.send(b"ping")
        return s.recv(100).decode()


def tcp(host, port):
    with socket.create_connection((host, int(port)), timeout=20) as s:
        s.sendall(bytes(range(256)) * 4096)
        try:
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # Reset already, which the read tells.
        return hashlib.sha256(b"".join(iter(lambda: s.recv(65536), b""))).hexdigest()


def banner(host, port):
    with socket.create_connection((host, int(port)), timeout=20) as s:
        return s.makefile().readline().strip()


def fingerprint(host):
    context = ssl._create_unverified_context()
    with socket.create_connection((host, 443), timeout=20) as s, context.wrap_socket(s, server_hostname=host) as tls:
        return hashlib.sha256(tls.getpeercert(True)).hexdigest()


def ping(host):
    """One echo request over the socket that needs no right (icmp(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
        s.settimeout(5)
        s.sendto(b"\x08\0\0\0\0\0\0\x01ping", (host, 0))
        return s.recv(100)[8:].decode()


def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return "open"


def packet():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    return "open"


def tls(host, name):
    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
    return context.wrap_socket(socket.create_connection((host, 443), timeout=20), server_hostname=name)


def gone(host):
    """Closes behind its hello, before there is an answer."""
    out = ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=host)
    try:
        hello.do_handshake()
    except ssl.SSLWantReadError:
        pass
    with socket.create_connection((host, 443), timeout=20) as s:
        s.sendall(out.read())
    return "gone"


def host_header(host, name):
    """A TLS name and a Host that disagree."""
    with tls(host, host) as s:
        s.sendall(f"GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
        return s.makefile().readline().strip()


def upgrade(host):
    with tls(host, host) as s:
        stream = s.makefile("rwb")
        s.sendall(f"GET /socket HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        status = stream.readline().decode().strip()
        while stream.readline().strip():
            pass
        s.sendall(b"\x81\x05hello")
        return f"{status} {stream.read(7)[2:].decode()}"


try:
    print(globals()[sys.argv[1]](*sys.argv[2:]))
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
