"""ws_echo.py CERTIFICATE KEY: WebSocket on 443 and without TLS on 80, and what came with each on stdout."""
import asyncio, ssl, sys
import websockets


async def serve(socket):
    print(f"key {socket.request_headers.get('x-api-key')} {socket.extensions}", flush=True)
    try:
        async for message in socket:
            await socket.send(message)
    except websockets.ConnectionClosedError as closed:
        print(f"closed {closed.rcvd}", flush=True)


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*sys.argv[1:])
    addresses = ["203.0.113.14", "2001:db8:113::14"]
    async with websockets.serve(serve, addresses, 443, ssl=context, max_size=None), websockets.serve(serve, addresses, 80, max_size=None):
        print("ready", flush=True)
        await asyncio.Future()


asyncio.run(main())
