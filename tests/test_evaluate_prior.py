"""``partita evaluate prior``: bits against the training loss, texts, resuming, refusals."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import write_parts
from tiny_prior import some_codes, some_text, tiny_prior

from pipelines.cli import main
from pipelines.data.tokens import open_tokens, read_codes
from pipelines.evaluation import prior_report
from pipelines.evaluation.held_out import labeled_plan, nats_per_code
from pipelines.evaluation.measurement_cache import FOLDER
from pipelines.inference.text import encode_text, load_text_encoder
from prior import Condition, Prior
from prior.loss import PriorBatch, prior_loss

LABELS = {
    **{"tempo_bpm": 96.0, "key": "Bb", "mode": "minor", "meter": "4/4", "drums": True},
    **{"instruments": ["oboe"], "plan": {"first_beat": 0.5, "chords": [[0.0, 10, "minor"]]}},
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A pipeline and the tokens of two held-out clips, whose labels hold a plan."""
    return write_parts(tmp_path_factory.mktemp("parts"), json.dumps(LABELS))


@pytest.fixture(scope="module")
def report(parts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes."""
    output = tmp_path_factory.mktemp("report")
    assert main(command(parts, output)) == 0
    return json.loads((output / "prior.json").read_text()) | {"folder": str(output)}


def command(parts: dict[str, str], output: Path) -> list[str]:
    """The command line."""
    return [
        *("evaluate", "prior", "--pipeline", parts["pipeline"], "--tokens", parts["tokens"]),
        *("--output", str(output), "--quiet"),
    ]


@pytest.mark.parametrize("reads_plan", [False, True])
def test_nats_are_the_training_loss_with_the_plan(reads_plan):
    prior = tiny_prior("transformer", reads_plan=reads_plan).eval()
    codes = some_codes(prior, 2, 9)
    plan = labeled_plan(prior, json.dumps(LABELS), 9)
    assert (plan is None) == (not reads_plan)
    plans = None if plan is None else plan[None].repeat(2, 1, 1)
    text = replace(some_text(2), plan=plans)
    mask, ends = torch.ones(2, 9, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    batch = PriorBatch(codes, mask, ends, text)
    nats = nats_per_code(prior, codes, text)
    assert nats.shape == (2, 3, 9)
    with torch.inference_mode():
        expected = prior_loss(prior, batch).nats_per_book
    torch.testing.assert_close(nats.mean((0, 2)), expected, rtol=1e-5, atol=0)
    unplanned = nats_per_code(prior, codes, some_text(2))
    assert torch.equal(unplanned, nats) == (not reads_plan)
    none = nats_per_code(prior, codes)
    torch.testing.assert_close(none, nats_per_code(prior, codes, Condition.empty(2, 12)))


def test_the_report_holds_every_text_book_and_second(report):
    assert report["num_clips"] == 2
    assert report["seconds"] == pytest.approx(4.0)
    assert len(report["books"]) == 2
    frame = report["frame"]["own caption"]
    books = [book["own caption"] for book in report["books"]]
    assert frame["mean"] == pytest.approx(sum(books), rel=1e-5)
    assert frame["low"] <= frame["mean"] <= frame["high"]
    assert frame["kbps"] == pytest.approx(frame["mean"] * 25 / 1000)
    assert report["uniform_bits"] == 4
    assert len(report["unigram_bits"]) == 2
    assert [row["second"] for row in report["positions"]] == [0, 1]
    assert {row["clips"] for row in report["positions"]} == {2}
    page = (Path(report["folder"]) / "prior.md").read_text()
    assert "| codebook 1 |" in page
    assert "another clip's" in page


def test_a_second_run_computes_nothing_and_says_the_same(report, parts):
    folder = Path(report["folder"])
    entries = sorted((folder / FOLDER).iterdir())
    written = [path.stat().st_mtime_ns for path in entries]
    assert main(command(parts, folder)) == 0
    assert [path.stat().st_mtime_ns for path in entries] == written
    again = json.loads((folder / "prior.json").read_text())
    assert again["frame"] == report["frame"]


def save_prior(folder: Path, **changes: Any) -> list[str]:
    """Save a prior of the tokens' first two codebooks; the arguments that choose it."""
    sizes = {"num_codebooks": 2, "codebook_size": 16, "text_width": 16}
    tiny_prior("transformer", **sizes, **changes).save_pretrained(folder)
    return ["--prior", str(folder)]


def test_a_prior_whose_frames_are_notes_is_measured_in_frames(parts, tmp_path):
    prior = save_prior(tmp_path / "notes", frame_rate=None)
    tokens = Path(shutil.copytree(parts["tokens"], tmp_path / "tokens"))
    info = json.loads((tokens / "tokens.json").read_text())
    (tokens / "tokens.json").write_text(json.dumps(info | {"frame_rate": None}))
    notes = parts | {"tokens": str(tokens)}
    assert main([*command(notes, tmp_path), *prior, "--frames", "40"]) == 0
    report = json.loads((tmp_path / "prior.json").read_text())
    assert (report["num_frames"], report["seconds"]) == (80, None)
    assert "kbps" not in report["frame"]["own caption"]
    assert [row["first frame"] for row in report["positions"]] == [0, 32]
    assert report["caption_worth"]["no caption"]["nats_per_10_s"] is None


def test_a_prior_that_reads_plans_is_measured_with_them(parts, tmp_path):
    arguments = save_prior(tmp_path / "planned", reads_plan=True)
    assert main([*command(parts, tmp_path), *arguments]) == 0
    report = json.loads((tmp_path / "prior.json").read_text())
    assert report["conditions"] == [*prior_report.CONDITIONS, "own caption, no plan"]
    tokenizer, text_encoder = load_text_encoder(parts["pipeline"])
    prior = Prior.from_pretrained(arguments[1]).eval()
    rows = open_tokens(parts["tokens"], "validation")
    plan = labeled_plan(prior, json.dumps(LABELS), 50)[None]
    bits = []
    for row in range(2):
        text = encode_text(tokenizer, text_encoder, [rows[row]["captions"][0]])
        codes = read_codes(rows, row)[None, :2]
        for condition in (replace(text, plan=plan), text):
            nats = nats_per_code(prior, codes, condition).sum(1).mean()
            bits.append(float(nats) / math.log(2))
    frame = report["frame"]
    assert frame["own caption"]["mean"] == pytest.approx((bits[0] + bits[2]) / 2, rel=1e-5)
    unplanned = frame["own caption, no plan"]["mean"]
    assert unplanned == pytest.approx((bits[1] + bits[3]) / 2, rel=1e-5)
    assert abs(unplanned / frame["own caption"]["mean"] - 1) > 0.01


def test_worth_and_positions_of_known_bits():
    bits = np.zeros((3, 2, 4), np.float32)
    bits[0], bits[1], bits[2] = 1.0, 1.5, 3.0
    clips = [prior_report.ClipBits("a", "x", bits), prior_report.ClipBits("b", "x", bits[..., :2])]
    worth = prior_report.caption_worth(clips, prior_report.CONDITIONS, frame_rate=2)
    assert worth["another clip's"]["bits_per_frame"]["mean"] == pytest.approx(1.0)
    assert worth["no caption"]["nats_per_10_s"] == pytest.approx(4 * math.log(2) * 20)
    assert worth["no caption"]["clips_where_it_costs"] == 1
    seconds = prior_report.tabulate_positions(clips, prior_report.CONDITIONS, frame_rate=2)
    assert [row["clips"] for row in seconds] == [2, 1]
    assert seconds[1]["books"] == [1.0, 1.0]


def test_the_other_caption_has_other_words():
    assert prior_report.other_caption(["a", "b", "a", "c"], 0) != "a"
    assert prior_report.other_caption(["a", "a"], 0) == "a"


def test_tokens_of_too_few_books_are_refused(parts, tmp_path):
    settings = prior_report.PriorReportSettings(tmp_path, (parts["tokens"],), quiet=True)
    prior = tiny_prior("lstm", num_codebooks=5)
    with pytest.raises(ValueError, match="holds 4 codebooks, the prior has 5"):
        prior_report.report_prior(prior, None, None, settings)
