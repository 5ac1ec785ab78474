"""load.py slow|slow_http2|hold N|crowd N|idle IDLE BUSY|ports N|silence|silent_tunnels N|soak: load of a kind that holds its own connections and no other."""
import functools, os, random, resource, socket, ssl, struct, subprocess, sys, time, urllib.parse

HOST, RAW = "api.openai.com", ("203.0.113.12", 8443)
LARGE = 8 * 1024 * 1024 // 11 * 11


context = functools.cache(ssl.create_default_context)


def tls():
    s = socket.create_connection((HOST, 443), timeout=60)
    return context().wrap_socket(s, server_hostname=HOST)


def head(path, method="GET", more=""):
    return f"{method} {path} HTTP/1.1\r\nhost: {HOST}\r\n{more}\r\n".encode()


def answer(s):
    """The body of one answer with a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = s.recv(65536)
        assert part, data
        data += part
    top, body = data.split(b"\r\n\r\n", 1)
    assert top.startswith(b"HTTP/1.1 200 "), top
    length = next(int(line.split(b":")[1]) for line in top.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        part = s.recv(65536)
        assert part, (len(body), length)
        body += part
    return body


def good(count=1):
    with tls() as s:
        for _ in range(count):
            s.sendall(head("/good"))
            assert answer(s).startswith(b"0 bytes for ")


def slow():
    """30 that have sent half a head, 10 that do not read 8 MiB, 30 whose server waits: 30 others are served, and then each of these is."""
    writers = [tls() for _ in range(30)]
    for s in writers:
        s.sendall(head("/slow")[:20])
    readers = [tls() for _ in range(10)]
    for s in readers:
        s.sendall(head("/large"))
    waiting = [tls() for _ in range(30)]
    for s in waiting:
        s.sendall(head("/events"))
        assert b"200" in s.recv(12)
    for _ in range(30):
        good()
    for s in writers:
        for octet in head("/slow")[20:]:
            s.sendall(bytes([octet]))
        assert answer(s).startswith(b"0 bytes for ")
    for s in readers:
        body = answer(s)
        assert len(body) == LARGE and body == b"large body\n" * (LARGE // 11)
    print("served")


def curl(path):
    return subprocess.Popen(["curl", "-fsS", "--http2", f"https://{HOST}{path}"], stdout=subprocess.PIPE)


def slow_http2():
    """As many that do not read as would fill the window of a connection they share."""
    readers = [curl("/large") for _ in range(10)]
    for reader in readers:
        assert os.read(reader.stdout.fileno(), 5) == b"large"
    for _ in range(5):
        assert curl("/good").communicate(timeout=60)[0].startswith(b"0 bytes for ")
    for reader in readers:
        assert len(reader.communicate()[0]) == LARGE - 5 and reader.returncode == 0
    print("served")


def hold(count):
    """How many of so many connections are served while all are held."""
    held, served = [], 0
    for _ in range(count):
        try:
            # Relayed: a descriptor for either side.
            s = socket.create_connection(("203.0.113.11", 443), timeout=0.5)
            context = ssl._create_unverified_context()
            held.append(context.wrap_socket(s, server_hostname="other.test", do_handshake_on_connect=False))
            held[-1].do_handshake()
            served += 1
        except OSError:
            pass
    print(served, flush=True)


def idle(idle, busy):
    """As many opened connections that wait after a request, then as many that do not; a line of stdin between. None is in another's way."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def ask(connections):
        for s in connections:
            s.sendall(head("/good"))
        for s in connections:
            assert answer(s).startswith(b"0 bytes for ")

    def opened():
        s = tls()
        ask([s])
        return s

    # The first are those for which tables are made that all use.
    first = [opened() for _ in range(20)]
    print("one", flush=True)
    sys.stdin.readline()
    held = [opened() for _ in range(idle)]
    print("idle", flush=True)
    sys.stdin.readline()
    talking = [tls() for _ in range(busy)]
    for _ in range(5):
        ask(talking)
    print("busy", flush=True)
    for s in first + held:
        ask([s])
    print("served", flush=True)


def ports(count):
    """So many answers at once that are not read: how many are served, and what the others are told. Once they have gone the next is served."""
    held, refused = [], b""
    for _ in range(count):
        s = tls()
        s.sendall(head("/large"))
        said = s.recv(65536)
        if said.startswith(b"HTTP/1.1 200 "):
            held.append(s)
        else:
            assert said.startswith(b"HTTP/1.1 502 "), said
            refused = said
    print(len(held))
    print(refused.decode())
    for s in held:
        s.close()
    until = time.monotonic() + 30
    while True:
        try:
            good()
            break
        except AssertionError:
            assert time.monotonic() < until
    print("served")


def question(name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


def silence():
    """More questions than are under way at once, over UDP and TCP, that no server answers: names are found, connections go on."""
    server = ("203.0.113.53", 53)
    opened, relayed = tls(), socket.create_connection(RAW, timeout=60)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for n in range(600):
        udp.sendto(question(f"n{n}.silent.test"), server)
    waiting = [socket.create_connection(server) for _ in range(80)]
    for s in waiting:
        s.sendall(b"".join(struct.pack(">H", len(asked)) + asked for asked in [question("tcp.silent.test")] * 20))
    for _ in range(10):
        good()
        opened.sendall(head("/good"))
        assert answer(opened).startswith(b"0 bytes for ")
        relayed.sendall(b"still")
        assert relayed.recv(5, socket.MSG_WAITALL) == b"still"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as alone:
        alone.settimeout(60)
        alone.sendto(question("alone.silent.test"), server)
        print("code", alone.recv(512)[3] & 15)


def silent_tunnels(count):
    """So many tunnels to hosts that no resolver knows or denies; a line from stdin ends them."""
    named = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
    held = []
    for n in range(count):
        s = socket.create_connection((named.hostname, named.port), timeout=60)
        s.sendall(f"CONNECT n{n}.silent.test:443 HTTP/1.1\r\nhost: n{n}.silent.test:443\r\n\r\n".encode())
        assert s.recv(4096).startswith(b"HTTP/1.1 200 ")
        s.sendall(b"neither TLS nor HTTP")
        held.append(s)
    print("held", flush=True)
    sys.stdin.readline()


def crowd(count):
    """So many connections to one host, all open and all with a request under way before the first answer is read."""
    held = [tls() for _ in range(count)]
    for number, s in enumerate(held):
        s.sendall(head(f"/crowd/{number}", "POST", "content-length: 10\r\n") + b"half ")
    for s in held:
        s.sendall(b"whole")
    for s in held:
        assert answer(s).startswith(b"10 bytes for ")
    print("served", flush=True)


def echo():
    data = os.urandom(256 * 1024)
    with socket.create_connection(RAW, timeout=60) as s:
        for at in range(0, len(data), 32768):
            s.sendall(data[at:at + 32768])
            heard = b""
            while len(heard) < 32768:
                heard += s.recv(32768 - len(heard)) or sys.exit("closed")
            assert heard == data[at:at + 32768]


def garbage():
    with socket.create_connection((HOST, 443), timeout=60) as s:
        s.sendall(os.urandom(1000))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def upload():
    with tls() as s:
        s.sendall(head("/up", "POST", "content-length: 1000000\r\n") + bytes(1_000_000))
        assert answer(s).startswith(b"1000000 bytes for ")


def left():
    s = tls()
    s.sendall(head("/large"))
    s.recv(1000)
    s.close()


def cut():
    with tls() as s:
        s.sendall(head("/cut"))
        data = b""
        try:
            while part := s.recv(65536):
                data += part
        except OSError:
            pass
        assert b"only th" in data and not data.endswith(b"}"), data


def soak():
    """A round for each line of stdin."""
    for _ in sys.stdin:
        kinds = [good] * 10 + [lambda: good(20)] * 3 + [echo] * 4 + [garbage, upload, left, cut]
        random.shuffle(kinds)
        for kind in kinds:
            kind()
        print("round", flush=True)


{"slow": slow, "slow_http2": slow_http2, "hold": hold, "crowd": crowd, "idle": idle, "ports": ports, "silence": silence, "silent_tunnels": silent_tunnels, "soak": soak}[sys.argv[1]](
    *map(int, sys.argv[2:])
)
