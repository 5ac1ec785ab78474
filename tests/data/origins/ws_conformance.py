"""ws_conformance.py CERTIFICATE KEY MODULES: a TLS server that puts each client through Autobahn's WebSocket cases and says the verdicts.

The cases' server speaks no TLS, so this ends the TLS before it."""
import asyncio, re, ssl, sys

sys.path.insert(0, sys.argv[3])
from kosoku import FailureError, run_fuzzingserver

# 9 measures speed; 12 and 13 need compression, which is end to end and the same octets as any.
EXCLUDED = ["9.*", "12.*", "13.*"]
keys = set()


async def copy(reader, writer):
    try:
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    writer.close()


async def serve(port, reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    keys.update(re.findall(rb"(?im)^x-api-key: (.*)\r$", head))
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    inner_writer.write(head)
    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*sys.argv[1:3])
    context.set_alpn_protocols(["http/1.1"])
    port, served = None, asyncio.Event()

    async def accept(reader, writer):
        await served.wait()
        await serve(port, reader, writer)

    await asyncio.start_server(accept, "203.0.113.14", 443, ssl=context)
    await asyncio.start_server(accept, "2001:db8:113::14", 443, ssl=context)
    print("ready", flush=True)
    while True:
        async with run_fuzzingserver(exclude_cases=EXCLUDED, port=0) as server:
            port = server.port
            served.set()
            try:
                results = await server.get_result()
            except FailureError as failure:
                results = failure.results
        served.clear()
        for result in results:
            if not result.passed:
                print(f"failed {result.case_id}: {result.result} {result.result_close}", flush=True)
        print(f"verdict {sum(result.passed for result in results)} of {len(results)}, key {b' '.join(sorted(keys)).decode()}", flush=True)
        keys.clear()


asyncio.run(main())
