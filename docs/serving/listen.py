"""Listen over ``WS /v1/live`` as the page does: ``listen.py HOST:PORT SECONDS RUNS``."""

import json
import statistics
import sys
import time
from typing import Any

from websockets.sync.client import connect

PROMPT = "calm piano and strings, 80 bpm"


def listen(address: str, seconds: float, seed: int) -> tuple[float, int]:
    """Return how long the first samples took (s), and how often the sound ran dry."""
    asked = time.monotonic()
    first_s = heard_from = received_s = reported = 0.0
    gaps, facts = 0, {}
    start = {"type": "start", "prompt": PROMPT, "duration_s": seconds, "seed": seed}
    with connect(f"ws://{address}/v1/live", max_size=None) as socket:
        socket.send(json.dumps(start))
        while True:
            message = next_message(socket)
            now = time.monotonic()
            if isinstance(message, bytes):
                if not first_s:
                    first_s = now - asked
                    heard_from = now + max(0.04, (first_s - 0.3) / 2)
                elif heard_from + received_s < now:
                    heard_from = now - received_s + min(1.6, 0.2 * 2**gaps)
                    gaps += 1
                received_s += len(message) / 4 / facts["channels"] / facts["sample_rate"]
            elif message:
                facts = json.loads(message)
                if facts["type"] in ("end", "error"):
                    return first_s, gaps
            if first_s and now > reported + 0.25:  # so that little is made ahead
                heard_s = max(0.0, min(received_s, now - heard_from))
                socket.send(json.dumps({"type": "played", "seconds": heard_s}))
                reported = now


def next_message(socket: Any) -> str | bytes | None:
    """Return what comes within a tenth of a second."""
    try:
        return socket.recv(timeout=0.1)
    except TimeoutError:
        return None


if __name__ == "__main__":
    runs = [listen(sys.argv[1], float(sys.argv[2]), seed) for seed in range(int(sys.argv[3]))]
    firsts = [first for first, _ in runs]
    print(f"first samples {statistics.median(firsts):.3f} s ({min(firsts):.3f}-{max(firsts):.3f})")
    print(f"gaps {sum(gaps for _, gaps in runs)}")
