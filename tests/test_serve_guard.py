"""Who may reach the server, and with how much."""

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi")

from served_studio import PIECE, Client, served, wait_for
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipelines.cli import main
from pipelines.serving.job_store import JobStore
from pipelines.serving.refusals import StorageError
from pipelines.serving.shelf import Shelf, TakeRecorder

TOKEN = "a-token-of-sixteen-letters-or-more"


@pytest.fixture(scope="module")
def client(pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    takes = tmp_path_factory.mktemp("guard") / "takes"
    with served(pipeline_folder, takes, token=TOKEN, hosts=["studio.lan"]) as client:
        yield client


def test_a_token_opens_the_door(client: Client):
    assert client.send("GET", "/v1/models")[0] == 401
    assert client.send("GET", "/")[0] == 401
    assert client.send("GET", "/healthz")[0] == 200
    for given in ("Bearer wrong", "Bearer", "Basic " + TOKEN, "Bearer \xe9"):
        assert client.send("GET", "/v1/models", headers={"authorization": given})[0] == 401
    good = {"authorization": f"Bearer {TOKEN}"}
    assert client.send("GET", "/v1/models", headers=good)[0] == 200
    status, _, headers = client.send("GET", f"/?token={TOKEN}")
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    cookie = {"cookie": headers["set-cookie"].split(";")[0]}
    assert client.send("GET", "/", headers=cookie)[0] == 200
    assert client.send("GET", "/?token=wrong")[0] == 401
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://{client.address}/v1/live")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:1234"}, 200),
        ({"host": "192.168.1.7:8000"}, 200),
        ({"host": "studio.lan"}, 200),
        ({"host": "rebound.example"}, 421),
        ({"host": "localhost.example:80"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://other.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"host": "localhost:99", "origin": "http://localhost:99"}, 200),
        ({"host": "localhost:99", "origin": "http://localhost:98"}, 403),
    ],
)
def test_other_sites_do_not_get_in(client: Client, headers: dict[str, str], status: int):
    given = {"authorization": f"Bearer {TOKEN}", **headers}
    assert client.send("GET", "/v1/models", headers=given)[0] == status


def test_the_page_is_fenced_in(client: Client):
    _, _, headers = client.send("GET", "/", headers={"authorization": f"Bearer {TOKEN}"})
    policy = headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("announced", [True, False])
def test_a_huge_body_is_refused(client: Client, announced: bool):
    length = "content-length: 99999999" if announced else "transfer-encoding: chunked"
    head = f"POST /v1/jobs HTTP/1.1\r\nhost: {client.address}\r\nauthorization: Bearer {TOKEN}"
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as raw:
        raw.sendall(f"{head}\r\n{length}\r\n\r\n".encode())
        with contextlib.suppress(OSError):  # it hangs up in the middle
            for _ in range(0 if announced else 17):
                raw.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_a_slow_reader_is_let_go(pipeline_folder: Path, tmp_path: Path, caplog):
    with served(pipeline_folder, tmp_path / "takes", patience_s=0.5) as client:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", client.port))
            slow.sendall(client.post_bytes(PIECE | {"duration_s": 20, "stream": True}))
            wait_for(lambda: bool(client.studio.loop.live))
            gc.disable()  # it must not be garbage collection that closes the stream
            try:
                wait_for(lambda: not client.studio.loop.live, seconds=20)
            finally:
                gc.enable()
            while slow.recv(1 << 20):  # the server has hung up
                pass
        assert b"partita_streamed_audio_seconds_total 0.0" not in client.send("GET", "/metrics")[1]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_full_queue_says_so(pipeline_folder: Path, tmp_path: Path):
    with served(pipeline_folder, tmp_path / "takes", max_queue=2, batch_size=1) as client:
        long = PIECE | {"duration_s": 20}
        answers = [client.json("POST", "/v1/jobs", long)[0] for _ in range(5)]
        assert answers[:2] == [202, 202]
        assert 429 in answers


def test_a_deleted_folder_is_an_error_and_the_server_goes_on(pipeline_folder: Path, tmp_path: Path):
    takes = tmp_path / "takes"
    with served(pipeline_folder, takes) as client:
        for path in takes.iterdir():
            path.unlink()
        takes.rmdir()
        status, answer = client.json("POST", "/v1/jobs", PIECE)
        assert status == 507, answer
        assert client.send("POST", "/v1/takes", b"RIFF")[0] == 507
        assert client.send("POST", "/v1/audio/music", PIECE)[0] == 200


def test_jobs_outlive_a_deleted_folder(tmp_path: Path):
    takes = tmp_path / "takes"
    takes.mkdir()
    store = JobStore(takes / "jobs.sqlite")
    store.add("first", {"seed": 1}, "running")
    shutil.rmtree(takes)
    takes.mkdir()
    store.add("second", {})
    store.end("first", "done")
    with pytest.raises(OSError, match="in use by another"):
        JobStore(takes / "jobs.sqlite")
    store.close()
    kept = JobStore(takes / "jobs.sqlite")
    assert {job.id: job.state for job in kept.newest(5)} == {"first": "done", "second": "queued"}
    kept.close()


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root may change")
def test_a_read_only_folder_is_said_before_a_job_is_taken():
    """Somebody else than root asks, in a process of its own, since root may write everywhere."""
    with tempfile.TemporaryDirectory() as place:
        shelf = Shelf(Path(place))
        os.chmod(place, 0o555)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                shelf.check_disk()
            except StorageError as error:
                os._exit(7 if "cannot be written to" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        os.chmod(place, 0o755)
        shelf.check_disk()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_take_on_a_full_disk_fails_with_the_reason(tmp_path: Path):
    recorder = TakeRecorder(Shelf(tmp_path), "full", 44_100)
    recorder.partial.symlink_to("/dev/full")
    with pytest.raises(OSError, match="disk of the takes is full"):
        recorder.write(torch.zeros(2, 441_000))


def test_a_job_that_ends_while_the_disk_is_full_is_not_shown_as_running(tmp_path: Path):
    store = JobStore(tmp_path / "jobs.sqlite")
    for id in ("first", "second"):
        store.add(id, {}, "running")
    store.database.execute("PRAGMA query_only = ON")  # as a full disk: nothing can be written
    with pytest.raises(sqlite3.Error):
        store.end("first", "failed", "no space")
    assert [(job.id, job.state) for job in store.newest(5)] == [
        ("first", "failed"),
        ("second", "running"),
    ]
    store.database.execute("PRAGMA query_only = OFF")
    store.end("second", "done")
    store.close()
    kept = JobStore(tmp_path / "jobs.sqlite")
    assert {job.id: job.state for job in kept.newest(5)} == {"first": "failed", "second": "done"}
    kept.close()


@pytest.mark.parametrize("duration_s", [1e-9, 601])
def test_a_duration_out_of_range_is_refused(client: Client, duration_s: float):
    headers = {"authorization": f"Bearer {TOKEN}"}
    body = PIECE | {"duration_s": duration_s}
    status, content, _ = client.send("POST", "/v1/jobs", body, headers)
    assert (status, json.loads(content)["error"]["param"]) == (422, "duration_s")


# -- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--port", "-1"], "--port"),
        (["--batch", "0"], "--batch"),
        (["--longest", "0"], "--longest"),
        (["--host", "no.such.host.invalid", "--insecure"], "cannot listen"),
        (["--port", "0", "--takes", __file__], "is a file"),
        (["--port", "0", "--takes", f"{__file__}/takes"], "Not a directory"),
    ],
)
def test_a_wrong_option_is_one_line(options, message, capsys):
    assert main(["serve", *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["serve", "--port", str(other.getsockname()[1])]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def start_server(pipeline: Path, takes: Path) -> tuple[subprocess.Popen, int]:
    """A server in a process of its own, and its port."""
    command = [sys.executable, "-m", "pipelines", "serve", "--port", "0", "--quiet", "--batch", "2"]
    process = subprocess.Popen(
        [*command, "--pipeline", str(pipeline), "--takes", str(takes)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline().split("/ (")[0].rsplit(":", 1)[1])


@pytest.mark.slow
def test_nothing_is_lost_or_made_twice_when_the_server_is_killed(pipeline_folder, tmp_path):
    takes, ids = tmp_path / "takes", [f"job-{number}" for number in range(12)]
    process, port = start_server(pipeline_folder, takes)
    client = Client(port, None)  # type: ignore[arg-type]
    for number, id in enumerate(ids):
        assert client.json("POST", "/v1/jobs", PIECE | {"id": id, "seed": number})[0] == 202
    for count, stop in ((2, signal.SIGKILL), (4, signal.SIGTERM)):
        wait_for(lambda count=count: len(list(takes.glob("job-*.wav"))) > count)
        process.send_signal(stop)
        process.wait(timeout=30)
        made = {path.name: path.stat().st_mtime_ns for path in takes.glob("job-*.safetensors")}
        process, port = start_server(pipeline_folder, takes)
    client = Client(port, None)  # type: ignore[arg-type]
    try:
        assert all(client.finished(id)["state"] == "done" for id in ids)
        assert len(list(takes.glob("*.wav"))) == len(ids)
        assert not list(takes.glob(".*.partial*"))
        again = {name: (takes / name).stat().st_mtime_ns for name in made}
        assert again == made
    finally:
        process.terminate()
        process.wait(timeout=30)
