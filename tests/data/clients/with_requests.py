import os, sys
import requests

answer = requests.get(sys.argv[1], headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
answer.raise_for_status()
print(answer.text)
