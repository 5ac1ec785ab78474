"""many.py HOST PORT IDLE BUSY: holds IDLE silent connections to an echo server, then keeps BUSY more talking; a line from stdin ends it."""
import resource, selectors, socket, sys

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
    s.sendall(bytes(1024))
    selector.register(s, selectors.EVENT_READ, [0, 0])
while selector.get_map():
    ready = selector.select(30)
    assert ready, "no answer"
    for key, _ in ready:
        received = len(key.fileobj.recv(65536))
        assert received, "closed"
        key.data[0] += received
        if key.data[0] == 1024:
            key.data[0], key.data[1] = 0, key.data[1] + 1
            if key.data[1] == ROUNDS:
                selector.unregister(key.fileobj)
                key.fileobj.close()
            else:
                key.fileobj.sendall(bytes(1024))
print("busy", flush=True)
for s in held:
    s.sendall(b"still")
    assert s.recv(5, socket.MSG_WAITALL) == b"still"
print("served", flush=True)
