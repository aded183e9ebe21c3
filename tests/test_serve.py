"""``partita serve``: music, streams, jobs and takes over HTTP, on a tiny pipeline."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("sse_starlette")

from served_studio import PIECE, Client, wait_for

from codec.audio_file import read_audio
from pipelines import Pipeline
from pipelines.cli import main
from pipelines.inference.crossfade import CROSSFADE_S
from pipelines.inference.token_file import load_tokens
from pipelines.serving.chunk_encoder import PieceResampler
from pipelines.serving.edited_take import with_breaks


def generated(pipeline_folder: Path, output: Path) -> bytes:
    """What ``partita generate`` writes of ``PIECE``."""
    options = ["--duration", "1.27", "--seed", "3", "--quiet", "--output", str(output)]
    assert main(["generate", "a slow piano", *options, "--pipeline", str(pipeline_folder)]) == 0
    return output.read_bytes()


# -- at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "opus"])
def test_a_file_has_the_bytes_of_generate(client, pipeline_folder, tmp_path, format):
    status, body, headers = client.send("POST", "/v1/audio/music", PIECE | {"format": format})
    assert status == 200
    assert headers["content-type"].startswith("audio/")
    assert headers["x-partita-seed"] == "3"
    assert body == generated(pipeline_folder, tmp_path / f"song.{format}")


@pytest.mark.parametrize("preview", [False, True])
def test_streamed_samples_are_those_of_the_pipeline(client, pipeline_folder, preview):
    wanted = Pipeline.from_pretrained(pipeline_folder)(
        PIECE["prompt"], PIECE["duration_s"], PIECE["seed"], preview=preview, ending="cut"
    ).audio[0]
    request = PIECE | {"stream": True, "preview": preview}
    status, body, _ = client.send("POST", "/v1/audio/music", request)
    clip = read_audio(body)
    assert status == 200
    torch.testing.assert_close(clip.audio, wanted.clamp(-1, 1), atol=2**-15, rtol=0)
    _, bare, headers = client.send("POST", "/v1/audio/music", request | {"format": "pcm"})
    assert bare == body[44:]
    assert headers["content-type"] == "audio/pcm; rate=44100; channels=2; bits=16"


@pytest.mark.parametrize(("format", "rate"), [("ogg", 44_100), ("opus", 48_000)])
def test_compressed_streams_are_whole_files(client: Client, format: str, rate: int):
    request = PIECE | {"stream": True, "format": format}
    status, body, _ = client.send("POST", "/v1/audio/music", request)
    clip = read_audio(body)
    assert status == 200
    assert (clip.sample_rate, clip.audio.shape) == (rate, (2, round(1.27 * rate)))


@pytest.mark.parametrize("rates", [(44_100, 48_000), (24_000, 48_000), (32_000, 48_000)])
def test_pieces_are_resampled_as_the_whole(rates: tuple[int, int]):
    from codec.resampling import resample

    audio = torch.randn(2, 30_011, generator=torch.Generator().manual_seed(0))
    resampler = PieceResampler(*rates, audio.shape[1])
    pieces = [resampler.push(piece) for piece in audio.split(997, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), resample(audio, *rates))


def test_openais_clients_are_understood(client: Client):
    speech = {"model": client.studio.origin.name, "input": "a slow piano", "voice": "alloy"}
    extra = {"duration_s": 1.27, "seed": 3, "response_format": "flac"}
    spoken = client.send("POST", "/v1/audio/speech", speech | extra)
    assert spoken[0] == 200
    assert spoken[1] == client.send("POST", "/v1/audio/music", PIECE | {"format": "flac"})[1]
    status, listed = client.json("GET", "/v1/models")
    assert (status, listed["data"][0]["id"]) == (200, speech["model"])


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"promt": "x"}, "promt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "x" * 100_000}, "prompt"),
        ({"prompt": "abcdefghij " * 10}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"duration_s": -1}, "duration_s"),
        ({"duration_s": 1e9}, "duration_s"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"duration_s": "long"}, "duration_s"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**70}, "seed"),
        ({"format": "mp2"}, "format"),
        ({"format": "flac", "stream": True}, "format"),
        ({"ending": "ring", "stream": True}, "ending"),
        ({"ending": "slow"}, "ending"),
        ({"plan": {"bpm": 9000}}, "bpm"),
        ({"plan": {"bpm": 90, "swing": 1}}, "swing"),
        ({"plan": "/etc/passwd"}, "plan"),
        ({"plan": {"chords": 3}}, "chords"),
        ({"plan": {"melody": [{"x": 1}]}}, "melody"),
        ({"chords": "Hm"}, "chord"),
        ({"model": "other"}, "model"),
        ({"num_inference_steps": 17}, "num_inference_steps"),
    ],
)
def test_a_mistake_is_named(client: Client, change: dict[str, Any], field: str):
    status, answer = client.json("POST", "/v1/audio/music", PIECE | change)
    assert status == 422
    assert answer["error"]["param"] == field or field in answer["error"]["message"]
    assert "x" * 50 not in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000])
def test_what_is_not_json_is_refused(client: Client, body: bytes):
    status, content, _ = client.send("POST", "/v1/jobs", body)
    assert status in (400, 422)
    assert json.loads(content)["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/v1/takes/..%2f..%2fetc%2fpasswd/play", "/v1/takes/.lock/play", "/%2e%2e/guard.py"]
)
def test_no_path_leaves_its_folder(client: Client, path: str):
    assert client.send("GET", path)[0] in (404, 422)


def test_what_is_not_there(client: Client):
    for path in ("/v1/jobs/none", "/v1/jobs/none/result", "/v1/takes/none", "/v1/nothing"):
        status, answer = client.json("GET", path)
        assert (status, bool(answer["error"]["message"])) == (404, True)


# -- jobs and takes --------------------------------------------------------------------------


def test_a_job_becomes_a_take(client: Client, pipeline_folder: Path, tmp_path: Path):
    status, job = client.json("POST", "/v1/jobs", PIECE | {"id": "first"})
    assert (status, job["id"], job["state"]) == (202, "first", "queued")
    assert client.finished("first")["state"] == "done"
    for format in ("wav", "opus"):
        body = client.send("GET", f"/v1/jobs/first/result?format={format}")[1]
        assert body == generated(pipeline_folder, tmp_path / f"song.{format}")
    _, take = client.json("GET", "/v1/takes/first")
    assert (take["prompt"], take["seed"], take["duration_s"]) == ("a slow piano", 3, 1.27)
    assert take["settings"]["plan"]["bpm"] > 0
    assert "first" in [one["id"] for one in client.json("GET", "/v1/takes")[1]["data"]]
    status, part, _ = client.send("GET", "/v1/takes/first/play", headers={"range": "bytes=0-3"})
    assert (status, part) == (206, b"RIFF")
    (tmp_path / "a.safetensors").write_bytes(client.send("GET", "/v1/takes/first/tokens")[1])
    assert load_tokens(tmp_path / "a.safetensors").prompt == "a slow piano"
    assert client.json("POST", "/v1/jobs", PIECE | {"id": "first"})[0] == 409
    assert client.send("DELETE", "/v1/takes/first")[0] == 204
    assert client.json("GET", "/v1/takes/first")[0] == 404


def test_a_plan_is_written_changed_and_followed(client: Client):
    asked = {name: PIECE[name] for name in ("prompt", "duration_s", "seed")}
    plan = client.json("POST", "/v1/plans", asked | {"bpm": 90})[1]["plan"]
    assert plan["bpm"] == 90
    plan["chords"] = [{"bar": 1, "beat": 1, "chord": "Dm"}]
    job = client.json("POST", "/v1/jobs", PIECE | {"plan": plan, "instruments": "flute"})[1]
    assert client.finished(job["id"])["state"] == "done"
    made = client.json("GET", f"/v1/takes/{job['id']}")[1]["settings"]["plan"]
    assert (made["bpm"], made["chords"], made["instruments"]) == (90, plan["chords"], ["flute"])
    assert client.send("GET", f"/v1/takes/{job['id']}/mid")[1].startswith(b"MThd")


def test_takes_are_edited(client: Client):
    source = client.json("POST", "/v1/jobs", PIECE | {"id": "source", "duration_s": 4})[1]["id"]
    client.finished(source)
    before = read_audio(client.send("GET", f"/v1/takes/{source}/play")[1]).audio
    edits = [
        {"edit": "extend", "add_s": 1.0},
        {"edit": "inpaint", "spans_s": [[1.0, 2.0]]},
        {"edit": "vary", "strength": 0.5},
        {"edit": "loop", "bars": 1, "bpm": 120},
    ]
    for edit in edits:
        status, job = client.json("POST", "/v1/edits", edit | {"take": source, "seed": 9})
        assert (status, client.finished(job["id"])["error"]) == (202, "")
        audio = read_audio(client.send("GET", f"/v1/takes/{job['id']}/play")[1]).audio
        if edit["edit"] == "extend":
            assert audio.shape[1] == 5 * 44_100
        if edit["edit"] == "inpaint":
            assert torch.equal(audio[:, :44_100], before[:, :44_100])
            assert not torch.equal(audio, before)
    of_loop = {"edit": "extend", "add_s": 1.0, "take": job["id"]}
    extended = client.json("POST", "/v1/edits", of_loop)[1]["id"]
    assert client.finished(extended)["error"] == ""
    whole = read_audio(client.send("GET", f"/v1/takes/{extended}/play")[1]).audio
    kept = audio.shape[1] - round(CROSSFADE_S * 44_100)
    assert torch.equal(whole[:, :kept], audio[:, :kept])
    assert client.json("POST", "/v1/edits", {"edit": "vary", "take": "none"})[0] == 404
    assert client.json("POST", "/v1/edits", {"edit": "melt", "take": source})[0] == 422


def test_streams_go_on_between_the_pieces_of_an_edit(client: Client):
    pipeline, breaks = client.studio.pipeline, []
    patient = with_breaks(pipeline, lambda: breaks.append(1))
    codes = torch.randint(0, 8, (1, 2, 300))
    assert torch.equal(patient.decode(codes, 1), pipeline.decode(codes, 1))
    assert len(breaks) > 1
    breaks.clear()
    audio = patient.decode(codes, 1).repeat(1, 1, 2)
    assert torch.equal(patient.encode(audio), pipeline.encode(audio))
    assert len(breaks) > 1


def test_a_sound_file_is_put_on_the_shelf(client: Client, sound: Path):
    status, content, _ = client.send("POST", "/v1/takes?name=My%20noise", sound.read_bytes())
    take = json.loads(content)
    assert (status, take["prompt"], take["seed"]) == (201, "My noise", None)
    kept = read_audio(client.send("GET", f"/v1/takes/{take['id']}/play")[1]).audio
    assert torch.equal(kept, read_audio(sound).audio)
    for damaged in (b"", b"RIFF", b"\0" * 1000):
        assert client.send("POST", "/v1/takes", damaged)[0] == 422
    assert not list(client.studio.shelf.path.glob(".*.partial.*"))


def test_jobs_that_wait_are_made_together_and_sound_as_if_alone(client: Client):
    long = client.json("POST", "/v1/jobs", PIECE | {"duration_s": 8})[1]["id"]  # others wait for
    ids = [client.json("POST", "/v1/jobs", PIECE | {"seed": seed})[1]["id"] for seed in range(5)]
    assert all(client.finished(id)["state"] == "done" for id in [long, *ids])
    for seed, id in enumerate(ids):
        alone = client.send("POST", "/v1/audio/music", PIECE | {"seed": seed})[1]
        assert client.send("GET", f"/v1/jobs/{id}/result")[1] == alone


def test_the_client_in_the_docs_saves_a_piece(client: Client, tmp_path: Path):
    script = Path(__file__).parents[1] / "docs" / "serving" / "client.py"
    command = [sys.executable, str(script), f"http://{client.address}"]
    said = subprocess.run([*command, "a slow piano", str(tmp_path / "a.flac")], timeout=120)
    assert said.returncode == 0
    assert read_audio(tmp_path / "a.flac").audio.shape == (2, 441_000)
    wrong = subprocess.run([*command, " ", str(tmp_path / "b.wav")], stderr=subprocess.PIPE)
    assert wrong.returncode == 1
    assert b"prompt must be" in wrong.stderr


def test_a_job_is_canceled(client: Client):
    busy = client.json("POST", "/v1/jobs", PIECE | {"duration_s": 20})[1]["id"]
    waiting = client.json("POST", "/v1/jobs", PIECE)[1]["id"]
    for id in (waiting, busy):
        assert client.json("DELETE", f"/v1/jobs/{id}")[1]["state"] == "canceled"
        assert client.json("GET", f"/v1/jobs/{id}/result")[0] == 409
    wait_for(lambda: not client.studio.works)
    assert not list(client.studio.shelf.path.glob(f"{waiting}*"))


def test_progress_is_sent(client: Client):
    id = client.json("POST", "/v1/jobs", PIECE | {"duration_s": 3})[1]["id"]
    body = client.send("GET", f"/v1/jobs/{id}/events")[1].decode()
    last = json.loads(body.strip().split("data: ")[-1])
    assert (last["state"], last["progress"]) == ("done", 1.0)


def test_health_and_metrics(client: Client):
    assert client.json("GET", "/healthz") == (200, {"status": "ok"})
    text = client.send("GET", "/metrics")[1].decode()
    assert 'partita_jobs{state="done"}' in text
    assert "piano" not in text


# -- live ------------------------------------------------------------------------------------


def test_the_log_has_no_prompt(client: Client, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", logger="partita.serve"):
        client.send("POST", "/v1/audio/music", PIECE)
        wait_for(lambda: "request" in caplog.text)  # written when the answer is sent
    assert "piano" not in "".join(str(vars(record)) for record in caplog.records)


def test_other_seeds_give_other_bytes(client: Client):
    """Two pieces of other seeds differ, so that equal bytes above mean something."""
    bodies = {
        hashlib.sha256(client.send("POST", "/v1/audio/music", PIECE | {"seed": seed})[1]).digest()
        for seed in (1, 2)
    }
    assert len(bodies) == 2
