"""A server of a tiny pipeline in a thread, and clients for it."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from pipelines import Pipeline
from pipelines.commands.serve import listen
from pipelines.serving.application import build_application
from pipelines.serving.studio import Studio

PIECE = {"prompt": "a slow piano", "duration_s": 1.27, "seed": 3}


class Client:
    """Sends requests to one server."""

    def __init__(self, port: int, studio: Studio) -> None:
        self.port = port
        self.studio = studio
        self.address = f"127.0.0.1:{port}"

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers; ``body`` may be bytes, or else becomes JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes | None) else json.dumps(body)
        given = {"content-type": "application/json"} if body is not None else {}
        connection.request(method, path, data, given | (headers or {}))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, {k.lower(): v for k, v in answer.getheaders()}

    def json(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and decoded body."""
        status, content, _ = self.send(method, path, body)
        return status, json.loads(content)

    def post_bytes(self, fields: dict[str, Any]) -> bytes:
        """Write a whole request for music, for a socket of the test's own."""
        body = json.dumps(fields).encode()
        head = f"POST /v1/audio/music HTTP/1.1\r\nhost: {self.address}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def finished(self, id: str) -> dict[str, Any]:
        """Wait for a job's end."""
        wait_for(lambda: self.json("GET", f"/v1/jobs/{id}")[1]["finished"] is not None)
        return self.json("GET", f"/v1/jobs/{id}")[1]


@contextmanager
def served(pipeline_folder: Path, takes: Path, **options: Any) -> Iterator[Client]:
    """Serve until the block ends; options of ``Guard`` and of ``Studio``."""
    guard = {key: options.pop(key) for key in ("token", "hosts", "patience_s") if key in options}
    pipeline = Pipeline.from_pretrained(pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    studio = Studio(pipeline, takes, **options)
    config = uvicorn.Config(
        build_application(studio, **guard), log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: studio.loop.ready.is_set() and server.started)
            yield Client(listener.getsockname()[1], studio)
        finally:
            server.should_exit = True
            thread.join()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Return once the condition holds; it is an error if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
