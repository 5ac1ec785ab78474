"""many.py HOST PORT IDLE BUSY: holds IDLE silent connections to an echo server, then keeps BUSY more talking; a line from stdin ends it.

Each busy connection sends bytes of its own, and nothing else may come back."""
import os, resource, selectors, socket, sys

ROUNDS = 20
host, port, idle, busy = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connect():
    s = socket.create_connection((host, port), timeout=30)
    s.sendall(b"first")
    assert s.recv(5, socket.MSG_WAITALL) == b"first"
    return s


one = connect()
print("one", flush=True)
sys.stdin.readline()
held = [connect() for _ in range(idle)]
print("idle", flush=True)
sys.stdin.readline()

selector = selectors.EpollSelector()
for _ in range(busy):
    s = connect()
    said = os.urandom(1024)
    s.sendall(said)
    selector.register(s, selectors.EVENT_READ, [said, b"", 0])
while selector.get_map():
    ready = selector.select(30)
    assert ready, "no answer"
    for key, _ in ready:
        said, heard, rounds = key.data
        heard += key.fileobj.recv(65536)
        assert heard and said.startswith(heard), "another's bytes, or closed"
        if len(heard) < len(said):
            key.data[1] = heard
        elif rounds + 1 < ROUNDS:
            key.data[:] = [os.urandom(1024), b"", rounds + 1]
            key.fileobj.sendall(key.data[0])
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
print("busy", flush=True)
for s in held:
    s.sendall(b"still")
    assert s.recv(5, socket.MSG_WAITALL) == b"still"
print("served", flush=True)
