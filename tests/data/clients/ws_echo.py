"""ws_echo.py URL: text, octets, a large message in pieces, ping and close with a reason."""
import asyncio, os, sys
import websockets


async def main():
    headers = {"x-api-key": os.environ["ACME_KEY"]}
    async with websockets.connect(sys.argv[1], extra_headers=headers, max_size=None) as socket:
        await socket.send("grüße")
        print(await socket.recv())
        large = os.urandom(4 << 20)
        await socket.send([large[n : n + 65536] for n in range(0, len(large), 65536)])
        print(await socket.recv() == large)
        await (await socket.ping(b"alive"))
        await socket.close(4001, "enough")
        print(socket.close_code, socket.close_reason)


asyncio.run(main())
