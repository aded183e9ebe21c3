"""How a piece ends: the cadence of its plan, the fade of its sound, and what edits make of both."""

from pathlib import Path
from typing import Any

import pytest
import torch

from codec.audio_file import read_audio
from pipelines import Pipeline, render
from pipelines.cli import main
from pipelines.inference.endings import with_ending
from pipelines.inference.plan_schema import draft_plan
from pipelines.inference.token_file import load_tokens, save_song_tokens
from pipelines.music_output import MusicOutput
from pipelines.rendering.rows import Defaults, read_request
from prior import Plan
from prior.cadence import with_cadence
from prior.plan import ChordChange

RATE = 44_100
PLAN = {"bpm": 300, "meter": "2/4", "key": "C", "chords": "F F", "instruments": [], "drums": None}


@pytest.fixture(scope="module")
def song(pipeline: Pipeline) -> MusicOutput:
    """3 s that ring out, as is the default."""
    return pipeline("abc", 3.0, 3, plan=PLAN)


def test_a_plan_closes_with_a_cadence_that_has_time_to_ring():
    plan = draft_plan({"version": 1, "bpm": 120, "meter": "4/4", "key": "D minor"}, {})
    closed = with_cadence(plan.completed(None, 40), 10.0)
    assert closed.chords[-2:] == (ChordChange(12.0, 9, "major"), ChordChange(16.0, 2, "minor"))
    assert closed.end_beat == 20.0
    assert with_cadence(plan.completed(None, 40), 3.0) == plan.completed(None, 40)
    assert with_cadence(Plan(100.0), 30.0) == Plan(100.0)


@pytest.mark.parametrize(("ending", "faded"), [("ring", 1000), ("fade", 2500), ("cut", 0)])
def test_an_ending_fades_the_end_alone(ending: str, faded: int):
    audio = torch.ones(2, 5000)
    whole = with_ending(audio, 1000, ending)
    assert torch.equal(whole[:, : 5000 - faded], audio[:, : 5000 - faded])
    assert (float(whole[0, -1]) == 0) == bool(faded)
    places = range(0, 5000, 700)
    parts = [with_ending(audio[:, at : at + 700], 1000, ending, at, 5000) for at in places]
    assert torch.equal(torch.cat(parts, dim=-1), whole)


def test_a_piece_rings_out_unless_it_is_cut(pipeline: Pipeline, song: MusicOutput):
    (plan,) = song.plans
    assert [chord.root for chord in plan.chords[-2:]] == [7, 0]
    assert plan.end_beat == 15.0
    assert float(song.audio[..., -1].abs().max()) == 0
    cut = pipeline("abc", 3.0, 3, plan=PLAN, ending="cut")
    assert {chord.root for chord in cut.plans[0].chords} == {5}
    assert float(cut.audio[..., -1].abs().max()) > 0


def test_each_row_of_a_batch_ends_where_it_is_asked_to(pipeline: Pipeline, tmp_path: Path):
    same = {"prompt": "abc", "seed": 3, "plan": PLAN}
    rows = [
        {"id": "ring", "duration_s": 3.0, **same},
        {"id": "cut", "duration_s": 3.0, "ending": "cut", **same},
        {"id": "fade", "duration_s": 1.0, "ending": "fade", **same},
    ]
    render(pipeline, rows, tmp_path)
    for row in rows:
        ending: Any = row.get("ending", "ring")
        alone = pipeline("abc", row["duration_s"], 3, plan=PLAN, ending=ending)
        tokens = load_tokens(tmp_path / f"{row['id']}.safetensors")
        assert torch.equal(tokens.codes, alone.codes[0])
        written = read_audio(tmp_path / f"{row['id']}.wav").audio
        sound = alone.audio[0] / alone.audio[0].abs().max()
        assert torch.allclose(written / written.abs().max(), sound, atol=1e-3)
    again = [{"id": "again", "codes": str(tmp_path / "ring.safetensors")}]
    render(pipeline, again, tmp_path / "again")
    assert float(read_audio(tmp_path / "again" / "again.wav").audio[:, -1].abs().max()) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ending": "slow"}, "ending must be one of ring, fade, cut, got 'slow'"),
        ({"ending": 3}, "ending must be one of"),
        ({"ending": "cut", "edit": {"source": "a.wav", "add_s": 1}}, "its source's ending"),
    ],
)
def test_rows_refuse_an_ending_that_cannot_be(pipeline: Pipeline, changes: Any, message: str):
    request = read_request([{"id": "a", "prompt": "x", **changes}], pipeline, Defaults())
    assert message in request.faults[0].message


def test_a_continuation_takes_the_fade_back(pipeline: Pipeline, song: MusicOutput, tmp_path: Path):
    save_song_tokens(tmp_path / "song.safetensors", song, pipeline.codec)
    longer = pipeline.extend(song, 1.0, seed=4)
    seam = song.audio.shape[-1]
    kept = seam - round(1.05 * RATE)
    assert torch.equal(longer.audio[..., :kept], song.audio[..., :kept])
    assert torch.equal(longer.codes[..., :75], song.codes)
    raw = pipeline.decode(longer.codes, 3)[..., : longer.audio.shape[-1]]
    assert torch.equal(longer.audio[..., seam - RATE :], raw[..., seam - RATE :])
    assert longer.plans[0].end_beat is None
    assert longer.settings["ending"] == "cut"
    from_file = pipeline.extend(tmp_path / "song.safetensors", 1.0, seed=4)
    assert torch.equal(from_file.audio, longer.audio)


def test_other_edits_keep_the_ending(pipeline: Pipeline, song: MusicOutput, tmp_path: Path):
    filled = pipeline.inpaint(song, [(1.5, 3.0)], seed=4)
    assert torch.equal(filled.audio[..., : round(1.5 * RATE)], song.audio[..., : round(1.5 * RATE)])
    assert float(filled.audio[..., -1].abs().max()) == 0
    assert filled.plans[0].end_beat == 15.0
    save_song_tokens(tmp_path / "filled.safetensors", filled, pipeline.codec)
    assert load_tokens(tmp_path / "filled.safetensors").settings["ending"] == "ring"


def test_a_token_file_decodes_with_its_ending(pipeline_folder, tmp_path, capsys):
    song, tokens = tmp_path / "song.wav", tmp_path / "song.safetensors"
    words = ["generate", "abc", "--duration", "1", "--seed", "1", "--output", str(song)]
    of = ["--pipeline", str(pipeline_folder)]
    assert main([*words, "--tokens", str(tokens), *of]) == 0
    assert main(["decode", str(tokens), "--output", str(tmp_path / "again.wav"), *of]) == 0
    capsys.readouterr()
    assert (tmp_path / "again.wav").read_bytes() == song.read_bytes()
