"""silent.py CERTIFICATE KEY: reads requests on 443, never answers, and says when a client has left."""
import asyncio, ssl, sys


async def serve(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    print("asked", flush=True)
    try:
        await reader.read()
    except OSError:
        pass
    print("left", flush=True)
    writer.close()


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*sys.argv[1:])
    await asyncio.start_server(serve, "203.0.113.14", 443, ssl=context)
    print("ready", flush=True)
    await asyncio.Future()


asyncio.run(main())
