"""The whole comparison on made-up data: it measures, writes, goes on, and refuses mistakes."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from tiny_pipeline import TEXT_WIDTH

from pipelines.comparison import arm as arms
from pipelines.comparison import comparison_settings as options
from pipelines.comparison import run_comparison
from pipelines.comparison.arm import Arm, TimedPriorTask, is_trained, read_curve, train_arm
from pipelines.comparison.comparison_settings import (
    Budget,
    ComparisonSettings,
    PriorVariant,
    RecallSettings,
)
from pipelines.comparison.equal_size import fit_width
from pipelines.comparison.ladder import to_loss
from pipelines.comparison.piece_cache import TrackPiece, cache_info, write_cache
from pipelines.comparison.recall import recall_stream
from pipelines.comparison.run_comparison import compare, main
from pipelines.comparison.study import Study, read_model
from pipelines.training.loop import train
from prior import Prior

ROOT = Path(__file__).parents[1]
ALPHABET = 32
CLIP_FRAMES = 250
MODEL = {
    "codebook_size": ALPHABET,
    "num_codebooks": 2,
    "num_layers": 1,
    "num_heads": 2,
    "text_width": TEXT_WIDTH,
    "depth_width": 16,
    "depth_layers": 1,
    "depth_heads": 2,
}
BACKBONES = {"Transformer": {"backbone": "transformer"}, "LSTM": {"backbone": "lstm"}}


def made_up_cache(folder: Path) -> str:
    """Three tracks a split, of four clips each, that repeat a passage of 100 frames."""
    splits: dict[str, list[TrackPiece]] = {"train": [], "validation": []}
    for split, pieces in splits.items():
        for track in range(3):
            codes = recall_stream(len(split), track, 4 * CLIP_FRAMES, 100, ALPHABET)[:1]
            codes = np.concatenate([codes, (codes * 5 + 1) % ALPHABET])
            for number, clip in enumerate(np.split(codes, 4, axis=1)):
                name = f"{split}-{track}-{number}"
                pieces.append(TrackPiece(name, clip, ["made up"], is_end=number == 3))
    return write_cache(folder, splits, cache_info("made up", 2, ALPHABET))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> ComparisonSettings:
    """A study of one seed that takes seconds."""
    folder = tmp_path_factory.mktemp("compare")
    tokens = made_up_cache(folder / "made-up")
    first = PriorVariant("Transformer prior", [tokens], model=BACKBONES["Transformer"])
    return ComparisonSettings(
        output_dir=str(folder / "run"),
        document=str(folder / "docs" / "comparison.md"),
        seeds=[0],
        parameters=20_000,
        tolerance=0.2,
        model=MODEL,
        backbones=BACKBONES,
        ladder=[
            first,
            PriorVariant("LSTM prior", [tokens], model=BACKBONES["LSTM"], against=first.name),
            PriorVariant("absent", [str(folder / "nowhere")]),
        ],
        ladder_budget=Budget(2, 2, 50),
        throughput=options.ThroughputSettings([8, 16], 16, 1),
        recall=RecallSettings(10_000, 16, 8, [Budget(1, 2, 32), Budget(1, 1, 64)], [1.0], 1),
        scaling=options.ScalingSettings([15_000, 25_000], [1.0], 2e7, 2, 32, 5),
        context=options.ContextSettings(
            [tokens], Budget(1, 2, 50), Budget(1, 1, 300), 500, 50, 60, [5.0, 16.0]
        ),
        generation=options.GenerationSettings([4, 8], 2, 1),
        optimization=options.Optimization(
            mixed_precision="no",
            validations=2,
            validation_clips=2,
            text_encoder=str(pipeline_folder),
        ),
    )


@pytest.fixture(scope="module")
def document(settings: ComparisonSettings) -> str:
    """What the study wrote."""
    path = compare(settings)
    assert path is not None
    return path.read_text()


def test_the_document_holds_every_row_picture_and_gap(document, settings):
    assert len(re.findall(r"^## ", document, re.MULTILINE)) == 1 + len(options.ROWS)
    pictures = re.findall(r"!\[.*?\]\((.*?\.png)\)", document)
    assert len(pictures) == 10
    for picture in pictures:
        path = Path(settings.document).parent / picture
        assert path.is_file()
        assert path.with_suffix(".csv").read_text().startswith("series,")
    assert "absent:" in document
    assert "no prepared dataset is named (reconstruction.scores)" in document
    assert "one seed, so no difference is claimed" in document


def test_arms_have_equal_size_and_their_counts_are_printed(document):
    ladder = document.partition("## The ladder")[2].partition("##")[0]
    counts = re.findall(r"\| (?:Transformer|LSTM) prior \| ([\d,]+) \|", ladder)
    assert len(counts) == 2
    for count in counts:
        assert abs(int(count.replace(",", "")) / 20_000 - 1) <= 0.2


def test_a_second_run_trains_and_measures_nothing(settings, document):
    def stamps() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in Path(settings.output_dir).rglob("arm.json")}

    before = stamps()
    row = Path(settings.output_dir) / "rows" / "throughput.json"
    measured = row.read_text()
    assert "| 8 |" in measured
    reading = Path(settings.document).with_suffix("") / "reading.md"
    reading.write_text("The tortoise was ahead.\n")
    compare(replace(settings, rows=["throughput"]))
    assert stamps() == before
    assert row.read_text() == measured
    written = Path(settings.document).read_text()
    assert "## In short\n\nThe tortoise was ahead.\n\n## How" in written
    assert "## The ladder" not in written


def test_an_arm_that_another_run_trains_is_left_to_it(settings, tmp_path):
    study = Study(replace(settings, output_dir=str(tmp_path)), lambda text: None)
    held, free = an_arm(settings, 1), an_arm(settings, 1, seed=1)
    after = replace(an_arm(settings, 1, seed=2), start=held)
    with arms.lock(study.arm_folder(held)):
        study.train_free([held, after, free])
        assert not is_trained(study.arm_folder(held))
        assert not is_trained(study.arm_folder(after))
        assert is_trained(study.arm_folder(free))
    study.train_free([after])
    assert is_trained(study.arm_folder(held))
    assert is_trained(study.arm_folder(after))


def test_one_run_measures(settings, document, capsys):
    with FileLock(Path(settings.output_dir) / "measuring.lock"):
        assert compare(settings) is None
    assert "another run of this study measures" in capsys.readouterr().out


def test_caches_of_different_codecs_are_refused_before_anything_is_trained(settings, tmp_path):
    other = write_cache(tmp_path / "other", {}, cache_info("another", 2, ALPHABET))
    context = replace(settings.context, tokens=[*settings.context.tokens, other])
    with pytest.raises(ValueError, match="were made with different codecs"):
        compare(replace(settings, output_dir=str(tmp_path / "run"), context=context))
    assert not (tmp_path / "run" / "arms").exists()


def test_a_budget_may_have_its_own_learning_rate(settings, tmp_path):
    own, common = Budget(1, 1, 20, learning_rate=0.01), Budget(1, 1, 20)
    for budget, rate in ((own, 0.01), (common, settings.optimization.learning_rate)):
        config = arms.training_config(budget, 0, settings.optimization, tmp_path)
        assert config.learning_rate == rate


# -- one arm ----------------------------------------------------------------------------------


def an_arm(settings: ComparisonSettings, steps: int = 4, seed: int = 0) -> Arm:
    fields = MODEL | {"backbone": "lstm", "codebook_size": ALPHABET}
    tokens = (settings.ladder[0].tokens[0],)
    return Arm("arm", fit_width(fields, 20_000, 0.2), tokens, Budget(steps, 2, 20), seed)


def test_a_stopped_arm_goes_on_where_it_was(settings, tmp_path):
    arm = an_arm(settings)
    whole = train_arm(arm, tmp_path / "whole", settings.optimization)
    halves = tmp_path / "halves" / arm.key(settings.optimization)
    stop_after(halves, arm, settings, 2)
    with pytest.raises(KeyboardInterrupt, match="arm stopped at step 2 of 4"):
        arms.finish(arm, halves, 4)
    resumed = train_arm(arm, tmp_path / "halves", settings.optimization)
    for one, other in zip(whole.prior.parameters(), resumed.prior.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.curve["step"].tolist() == [2, 4]
    assert resumed.curve["loss"] == pytest.approx(whole.curve["loss"])
    assert resumed.curve["cpu_s"][1] > resumed.curve["cpu_s"][0] > 0


def stop_after(run: Path, arm: Arm, settings: ComparisonSettings, steps: int) -> None:
    """Train as far as ``steps`` of the arm's, as Ctrl-C would leave it."""

    class Stopping(TimedPriorTask):
        def before_step(self, model: Any, batch: Any, step: int) -> None:
            if step == steps - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            super().before_step(model, batch, step)

    torch.manual_seed(arm.seed)
    prior = Prior(**arm.model)
    config = arms.training_config(arm.budget, arm.seed, settings.optimization, run)
    data = arms.prior_data(arm.tokens, arm.budget, settings.optimization)
    train(Stopping(prior, data, config), config)


def test_another_seed_is_another_arm(settings):
    keys = {an_arm(settings, 4, seed).key(settings.optimization) for seed in (0, 1)}
    keys.add(an_arm(settings, 5).key(settings.optimization))
    assert len(keys) == 3


def test_seconds_to_a_loss_lie_on_the_line_between_validations(tmp_path):
    logged = [
        {"step": 10, "validation/loss": 4.0, "validation/wall_s": 1.0, "validation/cpu_s": 2.0},
        {"step": 20, "validation/loss": 2.0, "validation/wall_s": 3.0, "validation/cpu_s": 6.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, logged)))
    curve = read_curve(tmp_path)
    assert curve["step"].tolist() == [10, 20]
    assert to_loss(curve, 3.0) == pytest.approx((15, 2, 4))
    assert to_loss(curve, 5.0) == pytest.approx((10, 1, 2))


# -- the command ------------------------------------------------------------------------------


def test_every_shipped_arm_can_be_made_its_size(monkeypatch):
    monkeypatch.chdir(ROOT)
    found: list[ComparisonSettings] = []
    monkeypatch.setattr(run_comparison, "compare", found.append)
    assert main(["--config", "configs/compare.yaml"]) == 0
    (shipped,) = found
    assert len(shipped.seeds) == 3
    wanted = [
        (shipped.model | read_model(variant) | variant.model, shipped.parameters)
        for variant in shipped.ladder
    ]
    for fields in shipped.backbones.values():
        sizes = {shipped.parameters, *shipped.scaling.parameters}
        wanted += [(shipped.model | fields | {"codebook_size": 1024}, size) for size in sizes]
        streams = shipped.recall.model | {"codebook_size": shipped.recall.alphabet}
        wanted.append((shipped.model | fields | streams, shipped.recall.parameters))
    for model, parameters in wanted:
        fit_width(model, parameters, shipped.tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("rows: [", "rows: [thruput, "), "rows must be among"),
        (lambda text: text + "  nonsense: 1\n", "nonsense"),
        (lambda text: text.replace("steps:", "stepps:"), "stepps"),
        (lambda text: text.replace("seeds: [0, 1, 2]", "seeds: []"), "at least one seed"),
        (lambda text: text.replace("against: tokens, LSTM", "against: GRU"), "it lacks"),
        (
            lambda text: text.replace("name: tokens, LSTM", "name: tokens, Transformer"),
            "differently",
        ),
    ],
)
def test_a_mistake_is_one_line(change, message, tmp_path, capsys):
    text = (ROOT / "configs" / "compare.yaml").read_text() + "  rows: [recall]\n"
    path = tmp_path / "compare.yaml"
    path.write_text(change(text))
    with pytest.raises(SystemExit, match="2"):
        main(["--config", str(path)])
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
