"""Listeners, a long queue, clients that vanish, a slow one, and kill -9, all at once."""

import re
import signal
import socket
import threading
from pathlib import Path

import psutil
import pytest

pytest.importorskip("fastapi")

from served_studio import Client, wait_for
from test_serve_guard import start_server

pytestmark = pytest.mark.slow
JOBS, LISTENERS, VANISHING = 200, 8, 50
PIECE = {"prompt": "a slow piano", "duration_s": 2.0}
STREAM = PIECE | {"duration_s": 20.0, "preview": True, "stream": True, "format": "pcm"}


def listen_to_the_end(client: Client, lengths: list[int]) -> None:
    lengths.append(len(client.send("POST", "/v1/audio/music", STREAM)[1]))


def leave_early(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=60) as leaving:
        leaving.sendall(client.post_bytes(STREAM))
        leaving.recv(1000)


def test_everything_at_once(pipeline_folder: Path, tmp_path: Path):
    takes = tmp_path / "takes"
    process, port = start_server(pipeline_folder, takes)
    client = Client(port, None)  # type: ignore[arg-type]
    try:
        wait_for(lambda: client.send("GET", "/healthz")[0] == 200)
        for number in range(JOBS):
            job = PIECE | {"id": f"job-{number}", "seed": number}
            assert client.json("POST", "/v1/jobs", job)[0] == 202
        before = psutil.Process(process.pid).memory_info().rss
        lengths: list[int] = []
        threads = [
            threading.Thread(target=listen_to_the_end, args=(client, lengths))
            for _ in range(LISTENERS)
        ]
        threads += [threading.Thread(target=leave_early, args=(client,)) for _ in range(VANISHING)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = psutil.Process(process.pid).memory_info().rss
        whole = (20 * 44_100) * 4
        assert len(lengths) == LISTENERS
        assert all(length == whole or length < 1000 for length in lengths)  # or refused
        text = client.send("GET", "/metrics")[1].decode()
        print("whole:", lengths.count(whole), "grown by", (after - before) >> 20, "MB")
        print(*re.findall(r"partita_(?:stream_late|streams_refused)\w* .*", text))
        assert after - before < 300 << 20
        process.send_signal(signal.SIGKILL)
        process.wait()
        process, port = start_server(pipeline_folder, takes)
        client = Client(port, None)  # type: ignore[arg-type]
        wait_for(lambda: len(list(takes.glob("job-*.safetensors"))) == JOBS, seconds=900)
        states = {job["state"] for job in client.json("GET", "/v1/jobs?limit=500")[1]["data"]}
        assert states <= {"done", "running"}
    finally:
        process.terminate()
        process.wait(timeout=60)
