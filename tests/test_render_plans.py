"""Rows with plans and edits: columns, manifests, token files, faults."""

import json
from pathlib import Path

import pytest
import soundfile
import torch

from pipelines import Pipeline, RenderOptions, render
from pipelines.inference.plan_schema import draft_plan
from pipelines.inference.token_file import load_tokens
from pipelines.rendering.manifest import read_manifest
from pipelines.rendering.rows import BadRowsError

RATE = 44_100


def test_rows_carry_plans_and_edits(pipeline: Pipeline, tmp_path: Path):
    rows = [
        {"id": "a", "prompt": "abc", "duration_s": 2, "bpm": 240, "chords": "C G", "meter": "2/4"},
        {"id": "b", "prompt": "abc", "duration_s": 1, "plan": {"key": "D minor"}, "drums": True},
        {"id": "c", "prompt": "abc", "duration_s": 1},
    ]
    out = tmp_path / "out"
    summary = render(pipeline, rows, out, options=RenderOptions(batch_size=4))
    assert (summary.done, summary.failed) == (3, [])
    entries = read_manifest(out)
    plan = draft_plan(entries["a"].plan).completed(None, 0.0)
    assert plan.tempo_bpm == 240
    assert [chord.root for chord in plan.chords] == [0, 7, 0, 7]
    assert (entries["b"].plan or {})["key"] == "D minor"
    assert (entries["b"].plan or {})["drums"] is True
    assert load_tokens(out / "a.safetensors").settings["plan"] == entries["a"].plan
    alone = pipeline("abc", 1.0, entries["c"].seed).plans[0]
    assert draft_plan(entries["c"].plan).completed(None, 0.0) == (alone and alone.until(1.0))

    edits = [
        {"id": "d", "edit": {"source": "out/a.safetensors", "from_s": 0.5, "to_s": 1.0}},
        {"id": "e", "edit": {"source": "out/a.safetensors", "add_s": 0.5}, "seed": 3},
        {"id": "f", "edit": {"source": "out/a.safetensors", "strength": 0.5}},
    ]
    file = tmp_path / "edits.jsonl"
    file.write_text("\n".join(map(json.dumps, edits)))
    edited = tmp_path / "edited"
    summary = render(pipeline, file, edited)
    assert (summary.done, [entry.error for entry in summary.failed]) == (3, [])
    assert soundfile.info(edited / "e.wav").frames == round(2.5 * RATE)
    found = [torch.from_numpy(soundfile.read(p)[0]) for p in (edited / "d.wav", out / "a.wav")]
    gain = read_manifest(edited)["d"].gain_db, entries["a"].gain_db
    assert gain[0] == gain[1]  # the loudest place lies outside the edit
    changed = (found[0] != found[1]).any(dim=1).nonzero()[:, 0] / RATE
    assert float(changed.min()) >= 0.5
    assert float(changed.max()) < 1.0
    again = render(pipeline, file, edited)
    assert (again.done, again.skipped) == (0, 3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "abc", "chords": "X"}, "chords, symbol 1: chord must be a symbol"),
        ({"prompt": "abc", "key": 3}, "key must be like D minor"),
        ({"prompt": "abc", "plan": "none.json"}, "none.json does not exist"),
        ({"prompt": "abc", "plan": 3}, "plan must be an object or the name of a file"),
        ({"edit": {"source": "none.wav", "add_s": 1}}, "none.wav does not exist"),
        ({"edit": {"source": "a.wav", "add_s": 1, "to_s": 2}}, "edit must hold source and one of"),
        ({"edit": {"source": "a.wav", "add_s": "x"}}, "edit: add_s must be a number, got 'x'"),
        ({"edit": {"source": "a.wav", "from_s": 2, "to_s": 1}}, "from_s and to_s must lie in the"),
        ({"edit": {"source": "a.wav", "from_s": 0, "to_s": 9}}, "from_s and to_s must lie in the"),
        ({"edit": {"source": "a.wav", "strength": 2}}, "strength must lie in"),
        ({"edit": "a.wav"}, "edit must be an object with a source"),
    ],
)
def test_a_bad_row_is_named(pipeline: Pipeline, tmp_path: Path, row: dict, message: str):
    soundfile.write(tmp_path / "a.wav", 0.1 * torch.ones(RATE).numpy(), RATE)
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"id": "x", **row}))
    with pytest.raises(BadRowsError, match=message):
        render(pipeline, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
