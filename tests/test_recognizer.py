"""The recognizer, the losses in its layers, and how it is fitted."""

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_data import write_parts, write_prepared
from tiny_training import metrics, run_codec, run_decoder, settings

from codec.recognizer import Recognizer, feature_loss, feature_score, load_recognizer
from pipelines.cli import main
from pipelines.train_codec import CodecLosses
from pipelines.training.decoder_data import DecoderData
from pipelines.training.fit_recognizer import (
    LabelledClip,
    crop,
    draw_batches,
    facts_loss,
    heard_facts,
    judge,
)
from prior.plan import INSTRUMENTS, ChordChange, MelodyNote, Plan

LABELS = {
    "tempo_bpm": 120.0,
    "key": "A",
    "mode": "minor",
    "meter": "4/4",
    "instruments": ["harp", "bass"],
    "drums": False,
    "plan": {"first_beat": 0.0, "chords": [[0.0, 9, "minor"]], "melody": [[1.0, 1.0, 69]]},
}


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(num_facts=6, width=16, hidden=24).requires_grad_(False).eval()


def levels(rows: int = 2, frames: int = 64, seed: int = 0) -> torch.Tensor:
    """(B, 1, M, F) natural-log mel of noise with a spectral slope."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 1, 128, frames, generator=draws) - torch.linspace(2, 8, 128)[:, None]


def test_a_layer_has_fewer_bands_and_frames_than_the_one_before(recognizer: Recognizer):
    layers = recognizer.features(levels()[:, 0])
    assert [tuple(layer.shape[1:]) for layer in layers] == [
        *((4, 64, 32), (8, 32, 16), (16, 16, 16), (16, 8, 16), (24, 16), (24, 16)),
    ]
    assert recognizer(levels()[:, 0]).shape == (2, 16, 6)


def test_the_distance_of_features_does_not_depend_on_the_level(recognizer: Recognizer):
    quiet, loud = levels(), levels(seed=1)
    assert float(feature_loss(recognizer, quiet, quiet)) == 0.0
    distance = feature_loss(recognizer, quiet, loud)
    assert float(distance) > 0.1
    raised = feature_loss(recognizer, quiet + 2.0, loud + 1.0)
    assert float(raised) == pytest.approx(float(distance), rel=1e-4)


def test_a_gradient_reaches_the_reconstruction_alone(recognizer: Recognizer):
    decoded, target = levels().requires_grad_(), levels(seed=1).requires_grad_()
    feature_loss(recognizer, decoded, target).backward()
    assert decoded.grad is not None
    assert decoded.grad.abs().sum() > 0
    assert target.grad is None
    assert all(weight.grad is None for weight in recognizer.parameters())


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_score_of_features_is_least_for_the_targets_spread(
    recognizer: Recognizer, spread: float
):
    slope = levels().mean(dim=(0, 3), keepdim=True)
    first, second, target = (levels(64, 32, seed) - slope for seed in (1, 2, 3))
    best = feature_score(recognizer, slope + first, slope + second, slope + target)
    samples = (slope + spread * sample for sample in (first, second))
    assert best < 0.97 * feature_score(recognizer, *samples, slope + target)


def test_a_plan_says_what_is_heard_and_what_is_not_known():
    plan = Plan(
        tempo_bpm=120.0,
        chords=(ChordChange(0.0, 9, "minor"), ChordChange(2.0, 5, "major")),
        instruments=("harp", "bass"),
        drums=True,
        melody=(MelodyNote(1.0, 1.0, 69),),
    )
    facts = heard_facts(plan, 50)  # two seconds, four beats
    count = len(INSTRUMENTS)
    players, chord, tune = facts.split([2 * count + 2, 24, 14], dim=1)
    assert players[:, :count].argmax(1).unique().tolist() == [INSTRUMENTS.index("harp")]
    assert {INSTRUMENTS[i] for i in players[0, count:-2].nonzero()[:, 0]} == {"harp", "bass"}
    assert players[0, -2:].tolist() == [0.0, 1.0]  # without drums, with drums
    assert chord[0].nonzero()[:, 0].tolist() == [9, 12 + 0, 12 + 4, 12 + 9]
    assert chord[30].nonzero()[:, 0].tolist() == [5, 12 + 0, 12 + 5, 12 + 9]
    assert tune[5].sum() == 0.0
    assert tune[20].nonzero()[:, 0].tolist() == [0, 2 + 9]  # it sounds, an A
    unknown = heard_facts(Plan(tempo_bpm=120.0, instruments=("harp",)), 50)
    assert unknown[:, 2 * count + 2 :].isnan().all()
    assert not unknown[:, : 2 * count + 2].isnan().any()


def two_kinds_of_clips(count: int) -> list[LabelledClip]:
    """Clips of low or of high noise, which two facts tell apart."""
    draws = torch.Generator().manual_seed(count)
    clips = []
    for index in range(count):
        kind = index % 2
        loud = torch.randint(120, 140, (128, 400), generator=draws, dtype=torch.uint8)
        loud[64 * kind : 64 * kind + 64] -= 80
        facts = torch.zeros(100, len(INSTRUMENTS))
        facts[:, kind] = 1.0
        clips.append(LabelledClip(loud, facts))
    return clips


def test_it_learns_to_tell_clips_apart():
    torch.manual_seed(0)
    small = Recognizer(num_facts=len(INSTRUMENTS), width=16, hidden=24)
    batches = draw_batches(two_kinds_of_clips(8), seed=0)
    optimizer = torch.optim.AdamW(small.parameters(), 3e-3)
    for _ in range(40):
        loss = facts_loss(small, *next(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert judge(small, two_kinds_of_clips(6)) > 0.9
    assert small.training


def test_of_a_short_clip_the_rest_is_silent_and_not_known():
    clip = LabelledClip(torch.full((128, 40), 99, dtype=torch.uint8), torch.ones(10, 3))
    cut = crop(clip, torch.Generator().manual_seed(0))
    assert cut.levels.shape == (128, 320)
    assert (cut.levels[:, 40:] == 0).all()
    assert cut.facts[:10].eq(1).all()
    assert cut.facts[10:].isnan().all()
    assert math.isfinite(
        facts_loss(Recognizer(3, width=16), cut.levels[None].float(), cut.facts[None])
    )


def test_the_command_fits_what_both_trainers_use(tmp_path: Path, capsys):
    scores = write_prepared(tmp_path / "scores", json.dumps(LABELS))
    folder = tmp_path / "recognizer"
    command = [
        "train",
        "recognizer",
        str(scores),
        "--output",
        str(folder),
        "--steps",
        "2",
        "--quiet",
    ]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{folder}: learned from 5 clips")
    assert told.endswith("of the token frames of 2 others\n")
    parts = write_parts(tmp_path / "parts")
    losses = CodecLosses(quantize_from=1, features=2.0, recognizer=str(folder))
    run_codec(parts, settings(tmp_path / "codec"), losses=losses)
    first = metrics(tmp_path / "codec")[0]
    assert first["features"] > 0
    rest = first["regression"] + 0.25 * first["commitment"]
    assert first["loss"] == pytest.approx(rest + 2 * first["features"], rel=1e-4)
    drawing = {"one_step_share": 1.0, "features": 3.0, "recognizer": str(folder)}
    run_decoder(parts, settings(tmp_path / "decoder"), **drawing)
    first = metrics(tmp_path / "decoder")[0]
    assert first["features"] > 0
    assert first["loss"] == pytest.approx(first["one_step"] + 3 * first["features"], rel=1e-4)


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, capsys):
    with pytest.raises(ValueError, match="a loss of features needs recognizer, the folder"):
        load_recognizer(None, weight=1.0)
    assert load_recognizer(None, weight=0.0) is None
    with pytest.raises(ValueError, match="features needs one_step_share above 0"):
        DecoderData([], [], "", features=1.0)
    plain = str(write_prepared(tmp_path / "plain"))
    command = ["train", "recognizer", plain, "--output", str(tmp_path / "out")]
    for arguments, message in (
        (command, "(train) has a plan"),
        ([*command, "--steps", "1"], "--steps must be at least 2, got 1"),
        ([*command[:-1], plain], "is not empty"),
        (["train", "recognizer", str(tmp_path / "no"), "--output", "x"], "no"),
    ):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
