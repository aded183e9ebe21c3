"""Queue a piece on a partita server, follow it, and save it: client.py URL PROMPT FILE."""

import json
import os
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def ask(method: str, url: str, body: dict | None = None) -> bytes:
    """Send JSON and return what comes; the server's own words where it refuses."""
    headers = {"content-type": "application/json"}
    if token := os.environ.get("PARTITA_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(url, data, headers, method=method)) as answer:
            return answer.read()
    except HTTPError as error:
        sys.exit(json.load(error)["error"]["message"])


server, prompt, file = sys.argv[1:]
jobs = server.rstrip("/") + "/v1/jobs"
job = json.loads(ask("POST", jobs, {"prompt": prompt, "duration_s": 10}))
while job["state"] in ("queued", "running"):
    print(f"{job['state']}: {job['progress']:.0%}, about {job['left_s']} s", file=sys.stderr)
    time.sleep(0.5)
    job = json.loads(ask("GET", f"{jobs}/{job['id']}"))
format = Path(file).suffix.removeprefix(".")
Path(file).write_bytes(ask("GET", f"{jobs}/{job['id']}/result?format={format}"))
