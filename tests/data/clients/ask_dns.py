"""ask_dns.py SERVER udp|tcp NAME TYPE: one raw question, printed as `rcode=… tc=… answers=…` and the answer section in hex."""
import socket, struct, sys

server, transport, name, kind = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
question = struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">2H", int(kind), 1)


def exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            sys.exit("closed")
        data += more
    return data


family = socket.AF_INET6 if ":" in server else socket.AF_INET
if transport == "udp":
    with socket.socket(family, socket.SOCK_DGRAM) as stream:
        stream.settimeout(20)
        stream.connect((server, 53))  # an answer from another address is not seen
        stream.send(question)
        reply = stream.recv(65535)
else:
    with socket.create_connection((server, 53), timeout=20) as stream:
        stream.sendall(struct.pack(">H", len(question)) + question)
        reply = exactly(stream, struct.unpack(">H", exactly(stream, 2))[0])
ident, flags, _, answers = struct.unpack(">4H", reply[:8])
assert ident == 0x1234
print(f"rcode={flags & 15} tc={flags >> 9 & 1} answers={answers}")
print(reply[12 + len(labels) + 4:].hex())
