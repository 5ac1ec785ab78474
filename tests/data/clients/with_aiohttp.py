import asyncio, sys
import aiohttp


async def main():
    # Without trust_env aiohttp does not look at proxy variables.
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as answer:
        answer.raise_for_status()
        print(await answer.text())


asyncio.run(main())
