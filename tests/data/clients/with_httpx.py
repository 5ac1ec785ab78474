import os, sys
import httpx, ssl

# With a context of its own each release of the library looks at the same places as Python's ssl.
context = ssl.create_default_context()
with httpx.Client(verify=context, http2=len(sys.argv) > 2) as client:
    answer = client.get(sys.argv[1], headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
    answer.raise_for_status()
    print(answer.http_version, answer.text)
