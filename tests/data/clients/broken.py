"""broken.py HOST: what is not TLS, on the port of TLS; each line says how it ended, which is for the peer to choose, as long as it ends."""
import os, socket, sys

hello = b"\x16\x03\x01" + (0xFFFF).to_bytes(2, "big") + b"\x01\x00\xff\xfb"
cases = {
    "garbage": os.urandom(4096),
    "half a hello": hello + b"\x03\x03" + bytes(40),
    "64 KiB hello": hello + b"\x03\x03" + bytes(65536),
    "hello without end": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(0x3FFC) + (b"\x16\x03\x01\x40\x00" + bytes(0x4000)) * 64,
    "plain text": b"EHLO there\r\n" * 100,
    "plain HTTP": b"GET / HTTP/1.1\r\nhost: " + sys.argv[1].encode() + b"\r\n\r\n",
    "nothing": b"",
}
for name, data in cases.items():
    with socket.create_connection((sys.argv[1], 443), timeout=30) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        except TimeoutError:
            sys.exit(f"{name}: hangs")
        except OSError:
            pass
        print(name)
