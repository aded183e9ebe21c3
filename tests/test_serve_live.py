"""Test live streams: equal to the pipeline's, steered, stopped, refused where they would lag."""

import io
import json
import socket
import threading
import time
from functools import partial
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("sse_starlette")

from served_studio import PIECE, Client, wait_for
from websockets.sync.client import connect

from codec.audio_file import read_audio
from pipelines import Pipeline
from pipelines.serving.compute_loop import ComputeLoop
from pipelines.serving.live_piece import LivePiece
from pipelines.serving.refusals import BusyError


def hear(socket: Any) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Receive to the end: the JSON messages and the (C, S) samples."""
    said, samples = [], io.BytesIO()
    for message in socket:
        if isinstance(message, str):
            said.append(json.loads(message))
            if said[-1]["type"] == "end":
                break
        else:
            samples.write(message)
    audio = torch.frombuffer(bytearray(samples.getvalue()), dtype=torch.float32)
    return said, audio.view(-1, 2).T


def test_a_live_piece_is_the_pipelines_and_stays_on_the_shelf(client, pipeline_folder):
    wanted = Pipeline.from_pretrained(pipeline_folder)(
        PIECE["prompt"], PIECE["duration_s"], PIECE["seed"], ending="cut"
    ).audio[0]
    with connect(f"ws://{client.address}/v1/live") as socket:
        socket.send(json.dumps(PIECE | {"type": "start", "keep": True}))
        said, audio = hear(socket)
    assert [message["type"] for message in said] == ["started", "end"]
    assert torch.equal(audio, wanted)
    kept = read_audio(client.send("GET", f"/v1/takes/{said[0]['id']}/play")[1])
    assert torch.equal(kept.audio, wanted)


def test_a_live_piece_is_steered_and_made_again_alike(client: Client):
    start = PIECE | {"type": "start", "duration_s": 15, "keep": True}
    with connect(f"ws://{client.address}/v1/live") as socket:
        socket.send(json.dumps(start))
        started = json.loads(socket.recv())
        socket.send(json.dumps({"type": "played", "seconds": 0}))
        socket.send(json.dumps({"type": "steer", "prompt": "fast drums"}))
        socket.send(json.dumps({"type": "steer", "prompt": ""}))
        wait_for(lambda: len(client.studio.works[started["id"]].stream.prompts) == 2)
    finished = client.finished(started["id"])  # nobody listens any more, and it goes on
    assert finished["state"] == "done"
    assert finished["fields"]["steers"][0][1]["prompt"] == "fast drums"
    first = client.send("GET", f"/v1/takes/{started['id']}/play")[1]
    client.send("DELETE", f"/v1/takes/{started['id']}")
    studio = client.studio
    studio._take_up(studio.store.get(started["id"]))
    wait_for(lambda: (studio.shelf.path / f"{started['id']}.safetensors").exists())
    again = client.send("GET", f"/v1/takes/{started['id']}/play")[1]
    assert torch.equal(read_audio(again).audio, read_audio(first).audio)


def test_a_piece_is_steered_before_it_has_begun(client: Client):
    hold = threading.Event()
    client.studio.loop.call(lambda: hold.wait(60))  # nothing is made meanwhile
    with connect(f"ws://{client.address}/v1/live") as socket:
        socket.send(json.dumps(PIECE | {"type": "start", "keep": True}))
        socket.send(json.dumps({"type": "steer", "prompt": "fast drums"}))
        assert json.loads(socket.recv())["at_s"] == 0
        hold.set()
        said, _ = hear(socket)
    assert client.finished(said[0]["id"])["fields"]["steers"][0][0] == 0
    prompts = client.json("GET", f"/v1/takes/{said[0]['id']}")[1]["settings"]["prompts"]
    assert [text for _, text in prompts][-1] == "fast drums"


def test_a_stopped_piece_keeps_what_was_heard(client: Client):
    with connect(f"ws://{client.address}/v1/live") as socket:
        start = PIECE | {"type": "start", "duration_s": 20, "keep": True}
        socket.send(json.dumps(start))
        id = json.loads(socket.recv())["id"]
        socket.send(json.dumps({"type": "played", "seconds": 0}))
        socket.send(json.dumps({"type": "stop"}))
        hear(socket)
    assert client.finished(id)["state"] == "done"
    assert 0 < client.json("GET", f"/v1/takes/{id}")[1]["duration_s"] < 20


def test_live_mistakes_are_named(client: Client):
    with connect(f"ws://{client.address}/v1/live") as socket:
        socket.send(json.dumps(PIECE | {"type": "start", "colour": "blue"}))
        assert json.loads(socket.recv())["param"] == "colour"
    with connect(f"ws://{client.address}/v1/live") as socket:
        socket.send(json.dumps(PIECE | {"type": "start"}))
        socket.send("nonsense")
        said, _ = hear(socket)
    assert "error" in [message["type"] for message in said]


def test_who_leaves_before_the_refusal_is_no_fault(client: Client, caplog):
    for prompt in ("", "piano " * 70, " ") * 3:
        with connect(f"ws://{client.address}/v1/live") as leaving:
            leaving.send(json.dumps({"type": "start", "prompt": prompt}))
            leaving.socket.close()
    time.sleep(0.5)
    assert client.json("GET", "/healthz")[0] == 200
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record for record in errors if record.name != "websockets.client"] == []


def test_who_leaves_costs_nothing(client: Client):
    client.studio.loop.cost.update({False: 0.0, True: 0.0})  # a busy machine would refuse them
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", client.port)) as leaving:
            leaving.sendall(client.post_bytes(PIECE | {"duration_s": 20, "stream": True}))
            assert leaving.recv(100).startswith(b"HTTP/1.1 200")
    wait_for(lambda: not client.studio.loop.live)


def test_a_stream_that_could_not_keep_up_is_refused(client: Client):
    start = PIECE | {"duration_s": 20}
    with connect(f"ws://{client.address}/v1/live") as socket:
        client.studio.loop.cost.update({False: 0.6})
        socket.send(json.dumps(start | {"type": "start"}))
        socket.recv()
        socket.send(json.dumps({"type": "played", "seconds": 0}))
        status, _, headers = client.send("POST", "/v1/audio/music", start | {"stream": True})
        assert (status, int(headers["retry-after"]) > 0) == (503, True)
    wait_for(lambda: not client.studio.loop.live)


def test_streams_are_admitted_by_what_they_cost_and_what_the_machine_gives(client: Client):
    loop = ComputeLoop(client.studio.pipeline)  # not started
    loop.cost.update({False: 0.4, True: 0.1})
    full, preview = (partial(LivePiece, lambda: None, preview) for preview in (False, True))
    loop.open_live(full())
    loop.open_live(full())
    with pytest.raises(BusyError):
        loop.open_live(full())
    loop.open_live(preview())
    loop.share = 0.5
    with pytest.raises(BusyError):
        loop.open_live(preview())
    loop.live.clear()
    loop.open_live(full())  # alone it may play, with gaps
    loop.share = 1.0
    loop.open_live(preview())  # it is young
    loop.live[0].opened -= 10
    with pytest.raises(BusyError):  # it should be ahead by now
        loop.open_live(preview())
    loop.live[0].made_s = 3.0
    loop.open_live(preview())


def test_short_bursts_do_not_say_how_much_of_a_core_there_is(client: Client):
    loop = ComputeLoop(client.studio.pipeline)  # not started
    for _ in range(100):
        loop._note_share(0.01, 0.01)
        loop.burst_s = 0.0, 0.0  # a pause
    loop.share = 0.5
    loop._note_share(0.01, 0.02)
    assert loop.share == 0.5
    for _ in range(1000):
        loop._note_share(0.01, 0.04)
    assert abs(loop.share - 0.25) < 0.01
