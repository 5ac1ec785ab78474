"""ws_aiohttp.py URL: the same as ws_echo.py, through the proxy of HTTPS_PROXY."""
import asyncio, os, sys
import aiohttp


async def main():
    headers = {"x-api-key": os.environ["ACME_KEY"]}
    async with aiohttp.ClientSession() as session:
        # What trust_env takes from the environment is for http:// and https:// alone.
        proxy = os.environ["HTTPS_PROXY"]
        async with session.ws_connect(sys.argv[1], headers=headers, proxy=proxy, compress=15, max_msg_size=0) as socket:
            await socket.send_str("grüße")
            print(await socket.receive_str())
            large = os.urandom(4 << 20)
            await socket.send_bytes(large)
            print(await socket.receive_bytes() == large)
            await socket.close(code=4001, message=b"enough")
            print(socket.close_code)


asyncio.run(main())
