"""The whole comparison on made-up data: it measures, writes, goes on, and refuses mistakes."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from tiny_codec import tiny_codec as spectral_codec
from tiny_pipeline import TEXT_WIDTH

from codec.audio_file import AudioClip
from pipelines.compare import compare, main
from pipelines.comparison import quick
from pipelines.comparison.adherence import FACTS, kept
from pipelines.comparison.arm import (
    Arm,
    StoppedError,
    TrainedArm,
    finish,
    is_trained,
    lock,
    read_curve,
    train_arm,
    training_config,
)
from pipelines.comparison.carriage import Carried, carry, lines, note_rebuild, token_rebuild
from pipelines.comparison.complexity import listen
from pipelines.comparison.equal_size import fit_width
from pipelines.comparison.generation import state_bytes
from pipelines.comparison.hearing import Hearing, notes_hearing
from pipelines.comparison.machine import RunClock
from pipelines.comparison.pieces import cache_info, write_cache
from pipelines.comparison.quick import made_up_cache, made_up_track, quick_settings
from pipelines.comparison.row import Row
from pipelines.comparison.score_clips import ScoreClip
from pipelines.comparison.settings import (
    Budget,
    Context,
    Generation,
    Optimization,
    Recall,
    Rung,
    Scaling,
    Settings,
    Throughput,
)
from pipelines.comparison.speed import to_loss
from pipelines.comparison.study import Study, rung_model

MODEL = {
    "codebook_size": quick.ALPHABET,
    "num_codebooks": 2,
    "num_layers": 1,
    "num_heads": 2,
    "text_width": TEXT_WIDTH,
    "depth_width": 16,
    "depth_layers": 1,
    "depth_heads": 2,
}
BACKBONES = {"Transformer": {"backbone": "transformer"}, "LSTM": {"backbone": "lstm"}}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> Settings:
    """A study of one seed that takes seconds."""
    folder = tmp_path_factory.mktemp("compare")
    tokens = made_up_cache(folder / "made-up")
    first = Rung("Transformer rung", [tokens], model=BACKBONES["Transformer"])
    return Settings(
        output_dir=str(folder / "run"),
        document=str(folder / "docs" / "comparison.md"),
        seeds=[0],
        parameters=20_000,
        tolerance=0.2,
        model=MODEL,
        backbones=BACKBONES,
        ladder=[
            first,
            Rung("LSTM rung", [tokens], model=BACKBONES["LSTM"], against=first.name),
            Rung("absent", [str(folder / "nowhere")]),
        ],
        ladder_budget=Budget(2, 2, 50),
        throughput=Throughput([8, 16], 16, 1),
        recall=Recall(10_000, 16, 8, [Budget(1, 2, 32), Budget(1, 1, 64)], [1.0], 1),
        scaling=Scaling([15_000, 25_000], [1.0], 2e7, 2, 32, 5),
        context=Context([tokens], Budget(1, 2, 50), Budget(1, 1, 300), 500, 50, 60, [5.0, 16.0]),
        generation=Generation([4, 8], 2, 1),
        optimization=Optimization(
            mixed_precision="no",
            validations=2,
            validation_clips=2,
            text_encoder=str(pipeline_folder),
        ),
    )


@pytest.fixture(scope="module")
def document(settings: Settings) -> str:
    """What the study wrote."""
    path = compare(settings)
    assert path is not None
    return path.read_text()


def test_every_row_has_a_section(document: str):
    for title in (
        "Data processing",
        "Context window",
        "The ladder",
        "Training speed",
        "Scalability",
        "Global context",
        "Complexity",
        "Generation",
        "Raw notes against latent tokens",
    ):
        assert f"## {title}" in document


def test_pictures_have_their_numbers_beside_them(document: str, settings: Settings):
    pictures = re.findall(r"!\[.*?\]\((.*?\.png)\)", document)
    assert len(pictures) >= 9
    for picture in pictures:
        path = Path(settings.document).parent / picture
        assert path.read_bytes()[:4] == b"\x89PNG"
        head = path.with_suffix(".csv").read_text().splitlines()[0]
        assert head.startswith("series,")


def test_what_is_missing_is_said(document: str):
    assert "absent:" in document
    assert "no prepared dataset is named (carriage.scores)" in document
    assert "one seed, so no difference is claimed" in document


def test_arms_have_equal_size_and_their_counts_are_printed(document: str):
    ladder = document.partition("## The ladder")[2].partition("##")[0]
    counts = re.findall(r"\| (?:Transformer|LSTM) rung \| ([\d,]+) \|", ladder)
    assert len(counts) == 2
    for count in counts:
        assert abs(int(count.replace(",", "")) / 20_000 - 1) <= 0.2


def test_a_second_run_trains_and_measures_nothing(settings: Settings, document: str):
    def stamps() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in Path(settings.output_dir).rglob("arm.json")}

    before = stamps()
    row = Path(settings.output_dir) / "rows" / "throughput.json"
    measured = row.read_text()
    reading = Path(settings.document).with_suffix("") / "reading.md"
    reading.write_text("The tortoise was ahead.\n")
    compare(replace(settings, rows=["throughput"]))
    assert stamps() == before
    assert row.read_text() == measured
    assert "## In short\n\nThe tortoise was ahead.\n\n## How" in Path(settings.document).read_text()
    clocks = list((Path(settings.output_dir) / "minutes").iterdir())
    assert len(clocks) >= 2
    assert RunClock(Path(settings.output_dir)).note() >= sum(
        json.loads(clock.read_text())["minutes"] for clock in clocks
    )


def test_the_plan_counts_what_is_left(
    settings: Settings, document: str, capsys: pytest.CaptureFixture[str]
):
    compare(replace(settings, rows=["ladder"]), plan=True)
    said = capsys.readouterr().out
    assert "| ladder | Transformer rung |" in said
    assert "0 minutes of training are left" in said


def test_an_arm_that_another_run_trains_is_left_to_it(settings: Settings, tmp_path: Path):
    study = Study(replace(settings, output_dir=str(tmp_path)), lambda text: None)
    held, free = an_arm(settings, 1), an_arm(settings, 1, seed=1)
    after = replace(an_arm(settings, 1, seed=2), start=held)
    with lock(study.arm_folder(held)):
        study.train_free([held, after, free])
        assert not is_trained(study.arm_folder(held))
        assert not is_trained(study.arm_folder(after))
        assert is_trained(study.arm_folder(free))
    study.train_free([after])
    assert is_trained(study.arm_folder(held))
    assert is_trained(study.arm_folder(after))


def test_one_run_measures(settings: Settings, document: str, capsys: pytest.CaptureFixture[str]):
    with FileLock(Path(settings.output_dir) / "measuring.lock"):
        assert compare(settings) is None
    assert "another run of this study measures" in capsys.readouterr().out


def test_caches_of_different_codecs_are_refused_before_anything_is_trained(
    settings: Settings, tmp_path: Path
):
    other = write_cache(tmp_path / "other", {}, cache_info("another", 2, quick.ALPHABET))
    context = replace(settings.context, tokens=[*settings.context.tokens, other])
    with pytest.raises(ValueError, match="were made with different codecs"):
        compare(replace(settings, output_dir=str(tmp_path / "run"), context=context))
    assert not (tmp_path / "run" / "arms").exists()


def test_a_budget_may_have_its_own_learning_rate(settings: Settings, tmp_path: Path):
    own, common = Budget(1, 1, 20, learning_rate=0.01), Budget(1, 1, 20)
    for budget, rate in ((own, 0.01), (common, settings.optimization.learning_rate)):
        config = training_config(budget, 0, settings.optimization, tmp_path)
        assert config.learning_rate == rate


# -- one arm ----------------------------------------------------------------------------------


def an_arm(settings: Settings, steps: int = 4, seed: int = 0) -> Arm:
    fields = MODEL | {"backbone": "lstm", "codebook_size": quick.ALPHABET}
    tokens = (settings.ladder[0].tokens[0],)
    return Arm("arm", fit_width(fields, 20_000, 0.2), tokens, Budget(steps, 2, 20), seed)


def test_a_stopped_arm_goes_on_where_it_was(settings: Settings, tmp_path: Path):
    arm = an_arm(settings)
    whole = train_arm(arm, tmp_path / "whole", settings.optimization)
    halves = tmp_path / "halves" / arm.key(settings.optimization)
    stop_after(halves, arm, settings, 2)
    with pytest.raises(StoppedError, match="arm stopped at step 2 of 4"):
        finish(arm, halves, 4)
    resumed = train_arm(arm, tmp_path / "halves", settings.optimization)
    for one, other in zip(whole.prior.parameters(), resumed.prior.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.curve.step == [2, 4]
    assert resumed.curve.loss == pytest.approx(whole.curve.loss)
    assert resumed.curve.cpu_s[1] > resumed.curve.cpu_s[0] > 0


def stop_after(run: Path, arm: Arm, settings: Settings, steps: int) -> None:
    """Train as far as ``steps`` of the arm's, as Ctrl-C would leave it."""
    from pipelines.comparison.arm import prior_data, training_config
    from pipelines.comparison.clock import ClockedTask
    from pipelines.train_prior import PriorTask
    from pipelines.training.loop import train
    from prior import Prior

    class Stopping(ClockedTask):
        def before_step(self, model: Any, batch: Any, step: int) -> None:
            if step == steps - 1:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGTERM)
            super().before_step(model, batch, step)

    torch.manual_seed(arm.seed)
    prior = Prior(**arm.model)
    config = training_config(arm.budget, arm.seed, settings.optimization, run)
    data = prior_data(arm.tokens, arm.budget, settings.optimization)
    train(Stopping(PriorTask(prior, data, config)), config)


def test_another_seed_is_another_arm(settings: Settings):
    keys = {an_arm(settings, 4, seed).key(settings.optimization) for seed in (0, 1)}
    keys.add(an_arm(settings, 5).key(settings.optimization))
    assert len(keys) == 3


def test_seconds_to_a_loss_lie_on_the_line_between_validations(settings: Settings, tmp_path: Path):
    logged = [
        {"step": 10, "validation/loss": 4.0, "validation/wall_s": 1.0, "validation/cpu_s": 2.0},
        {"step": 20, "validation/loss": 2.0, "validation/wall_s": 3.0, "validation/cpu_s": 6.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, logged)))
    assert read_curve(tmp_path).step == [10, 20]
    arm = TrainedArm(an_arm(settings), tmp_path)
    assert to_loss(arm, 3.0) == pytest.approx((15, 2, 4))
    assert to_loss(arm, 5.0) == pytest.approx((10, 1, 2))


# -- what is heard ----------------------------------------------------------------------------


def test_notes_of_no_cache_need_no_saved_codec(monkeypatch: pytest.MonkeyPatch):
    """The working folder holds one by the name of ``codec``: our package."""
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr("pipelines.data.scores.render.check_programs", lambda *_: None)
    assert notes_hearing(None, "some.sf2").how == "FluidSynth with some.sf2"


class Noise:
    """A clip of three seconds of noise."""

    source = "noise"

    def __init__(self, sample_rate: int) -> None:
        draws = torch.Generator().manual_seed(0)
        audio = 0.1 * torch.randn(2, 3 * sample_rate, generator=draws)
        self.sound = AudioClip(audio, sample_rate)

    def read(self) -> AudioClip:
        return self.sound


def test_tokens_carry_a_clip_and_are_measured():
    codec = spectral_codec()
    clip, row = Noise(codec.sample_rate), Row("carriage", "", "")
    carried = carry([clip], token_rebuild(codec, 2), "tokens", row)
    found = lines("clips", "tokens", carried)
    assert found[0][:2] == ["all clips", "tokens"]
    assert carried.vectors["logmel_statistics"][0][1].shape[1] == 128
    assert lines("clips", "tokens", Carried()) == []


def test_notes_arrive_as_loud_and_as_long_as_the_original():
    clip = ScoreClip("scores-0-0000000-0", "", 0, ("generated",), 0.0, 3.0, Path())
    played = torch.full((2, 100), 0.5)
    rebuild = note_rebuild(Hearing(lambda codes: played, 50, ""))
    pytest.importorskip("miditok")
    arrived = rebuild(clip, AudioClip(torch.full((2, 150), 0.1), 50))
    assert arrived.shape == (2, 150)
    assert torch.allclose(arrived[:, :100], torch.tensor(0.1))
    assert not arrived[:, 100:].any()


def test_a_clip_is_embedded_and_its_labels_are_looked_for():
    noise = torch.manual_seed(0)
    hearing = Hearing(lambda codes: 0.1 * torch.randn(2, 22_050 * 4, generator=noise), 22_050, "")
    piece = made_up_track("train", 0)[0]
    why_not: set[str] = set()
    heard = listen(hearing, [torch.zeros(2, 4, dtype=torch.long)], [piece], why_not)
    assert heard.vectors["logmel_statistics"][0].shape[1] == 128
    assert not heard.hits  # made-up codes promise no tempo and no key


def test_silence_keeps_nothing_of_what_the_labels_name():
    labels = {"tempo_bpm": 120.0, "key": "Eb", "mode": "minor", "lead": "piano", "drums": False}
    silence = torch.zeros(2, 4 * 44_100)
    assert kept(silence, 44_100, labels) == dict.fromkeys(FACTS, False)
    assert kept(silence, 44_100, {"lead": "kazoo"}) == {}


def test_the_state_counts_what_the_frames_fill(settings: Settings):
    from tiny_prior import some_codes, some_text, tiny_prior

    prior, text = tiny_prior("lstm"), some_text(1)
    sizes = []
    for length in (4, 8):
        state = prior.init_state(text, 50)
        prior.prefill(some_codes(prior, 1, length), state)
        sizes.append(state_bytes(state))
    width, layers = prior.config["width"], prior.config["num_layers"]
    assert sizes[1] - sizes[0] == 4 * 2 * width * 4  # keys and values of four frames
    assert sizes[0] == 5 * 2 * width * 4 + layers * 2 * width * 4


# -- the command ------------------------------------------------------------------------------


def test_quick_is_the_same_study_but_small(settings: Settings, tmp_path: Path):
    small = quick_settings(replace(settings, output_dir=str(tmp_path / "run")))
    assert small.output_dir == str(tmp_path / "run-quick")
    assert small.document.startswith(small.output_dir)  # never over the real document
    assert Study(small).rungs()[1] == []


def read_shipped(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings in ``configs``, as the command reads them."""
    from pipelines import compare as module

    found: list[Settings] = []
    monkeypatch.setattr(module, "compare", lambda settings, quick, plan: found.append(settings))
    root = Path(__file__).parents[1]
    assert main(["--config", str(root / "configs" / "compare.yaml"), "--plan"]) == 0
    return found


def test_the_shipped_settings_are_read(monkeypatch: pytest.MonkeyPatch):
    (shipped,) = read_shipped(monkeypatch)
    assert len(shipped.seeds) == 3
    assert {rung.against for rung in shipped.ladder} <= {None, *(r.name for r in shipped.ladder)}


def test_every_shipped_arm_can_be_made_its_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    (shipped,) = read_shipped(monkeypatch)
    tokens = {"codebook_size": 1024}
    wanted = [
        (shipped.model | rung_model(rung) | rung.model, shipped.parameters)
        for rung in shipped.ladder
    ]
    for fields in shipped.backbones.values():
        sizes = {shipped.parameters, *shipped.scaling.parameters}
        wanted += [(shipped.model | fields | tokens, size) for size in sizes]
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
    ],
)
def test_a_mistake_is_one_line(
    change: Callable[[str], str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    root = Path(__file__).parents[1]
    text = (root / "configs" / "compare.yaml").read_text() + "  rows: [recall]\n"
    path = tmp_path / "compare.yaml"
    path.write_text(change(text))
    assert main(["--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
