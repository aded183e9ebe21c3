"""The loop: learning, exact resume, two processes, interruption, a full disk."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_pipeline import CODEBOOK_SIZE, TEXT_WIDTH
from tiny_training import (
    TRAINERS,
    Parts,
    Train,
    assert_same_weights,
    losses,
    metrics,
    run_codec,
    run_decoder,
    run_prior,
    settings,
    tiny_prior,
    weights,
)

from codec import SpectralCodec
from decoder import DiffusionDecoder
from decoder.painting import CoarseConditioning
from pipelines.train_codec import CodecLosses, train_codec
from pipelines.training.acceleration import start_accelerator
from pipelines.training.augmentation import Augmentation
from pipelines.training.checkpoints import checkpoints, save_checkpoint
from pipelines.training.codec_data import SpectrogramData
from pipelines.training.decoder_data import DecoderCrops, DecoderData
from pipelines.training.item_order import EpochOrder, StepSampler
from pipelines.training.loop import learning_rate
from pipelines.training.training_config import TrainingConfig
from pipelines.training.weight_average import WeightAverage


def stop_after_two(parts: Parts, training: TrainingConfig, run: Train) -> None:
    """Train as far as the second step, as if the run was killed before the fourth."""
    run(parts, training)
    shutil.rmtree(Path(training.output_dir) / "checkpoint-00000004")


@TRAINERS
def test_resumed_run_equals_uninterrupted_one(parts: Parts, tmp_path: Path, run: Train) -> None:
    whole = run(parts, settings(tmp_path / "whole"))
    halves = settings(tmp_path / "halves")
    stop_after_two(parts, halves, run)
    assert_same_weights(run(parts, halves, resume=True), whole)


def test_a_checkpoint_with_an_average_of_parameters_alone_is_resumed(
    parts: Parts, tmp_path: Path
) -> None:
    training = settings(tmp_path / "run")
    stop_after_two(parts, training, run_prior)
    path = tmp_path / "run" / "checkpoint-00000002" / "custom_checkpoint_0.pkl"
    average = torch.load(path, weights_only=False)
    parameters = [average[f"module.{name}"] for name, _ in tiny_prior().named_parameters()]
    earlier = {"shadow_params": parameters, "optimization_step": 2, "min_decay": 0.0}
    torch.save(earlier, path)
    whole = run_prior(parts, settings(tmp_path / "whole"))
    assert_same_weights(run_prior(parts, training, resume=True), whole)


def test_data_loading_processes_change_nothing(parts: Parts, tmp_path: Path) -> None:
    alone, helped = (
        run_prior(parts, settings(tmp_path / f"{n}", num_workers=n, validate_every=8))
        for n in (0, 1)
    )
    assert losses(helped.parent) == pytest.approx(losses(alone.parent), rel=1e-5)


@TRAINERS
def test_loss_falls(parts: Parts, tmp_path: Path, run: Train) -> None:
    run(parts, settings(tmp_path, steps=60, batch_size=4, checkpoint_every=60, validate_every=60))
    found = losses(tmp_path)
    assert sum(found[-5:]) < 0.85 * sum(found[1:6])


@TRAINERS
def test_training_leaves_the_process_as_it_was(parts: Parts, tmp_path: Path, run: Train) -> None:
    run(parts, settings(tmp_path, steps=1, validate_every=1))
    assert torch.initial_seed() == 0  # `run` seeds before it builds the model


@pytest.mark.parametrize(
    ("mixed_precision", "of_training"), [("bf16", ("medium", True)), ("no", ("highest", False))]
)
def test_validation_computes_as_inference_does(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mixed_precision: str,
    of_training: tuple[str, bool],
) -> None:
    forward, seen = DiffusionDecoder.forward, {True: set(), False: set()}

    def recorded(model: DiffusionDecoder, *arguments: Any) -> Any:
        precision = torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")
        seen[model.training].add(precision)
        return forward(model, *arguments)

    monkeypatch.setattr(DiffusionDecoder, "forward", recorded)
    short = settings(tmp_path, steps=2, validate_every=1, mixed_precision=mixed_precision)
    run_decoder(parts, short)
    assert seen == {True: {of_training}, False: {("highest", False)}}


def test_run_writes_what_it_promises(parts: Parts, tmp_path: Path) -> None:
    model = run_decoder(parts, settings(tmp_path))
    assert DiffusionDecoder.from_pretrained(model).config.width == 32
    assert [path.name[-2:] for path in checkpoints(tmp_path)] == ["02", "04"]
    samples = tmp_path / "samples" / "step-00000004"
    assert {path.name for path in samples.iterdir()} == {"coarse.wav", "fine.wav"}
    last = metrics(tmp_path)[-1]
    assert last["validation/coarse_error"] > 0
    with pytest.raises(ValueError, match="already holds checkpoint-00000004: pass --resume"):
        run_decoder(parts, settings(tmp_path))


def test_the_two_noises_of_a_decoders_item_are_independent(parts: Parts) -> None:
    data = DecoderData([parts["prepared"]], [parts["tokens"]], parts["codec"], crop_s=0.64)
    codec = SpectralCodec.from_pretrained(parts["codec"])
    item = DecoderCrops(data, "train", 0, CoarseConditioning(codec))[0]
    for axes in ((), (1,), (2,), (1, 2)):
        pair = torch.stack([item.noise, item.other_noise.flip(axes)])
        follows = torch.corrcoef(pair.flatten(1))
        assert abs(follows[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("share", "parts_of_loss"), [(0.5, {"flow", "one_step"}), (1.0, {"one_step"})]
)
def test_a_decoder_learns_the_single_step_of_its_solver(
    parts: Parts, tmp_path: Path, share: float, parts_of_loss: set[str]
) -> None:
    run_decoder(parts, settings(tmp_path), one_step_share=share)
    logged = metrics(tmp_path)[0]
    found = {name: logged[name] for name in ("flow", "one_step") if name in logged}
    assert found.keys() == parts_of_loss
    assert logged["loss"] == pytest.approx(sum(found.values()) / len(found), rel=1e-4)


def test_full_disk_keeps_the_previous_checkpoint(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_codec(parts, settings(tmp_path))
    accelerator = start_accelerator(settings(tmp_path))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(accelerator, "save_state", full)
    with pytest.raises(OSError, match=r"No space left on device.*previous one is kept"):
        save_checkpoint(accelerator, accelerator.save_state, tmp_path, 6, 2, 2)
    assert [path.name for path in checkpoints(tmp_path)][-1] == "checkpoint-00000004"
    assert not list(tmp_path.glob(".partial*"))


def test_a_process_that_dies_during_a_checkpoint_is_named(tmp_path: Path) -> None:
    def gone() -> None:
        raise RuntimeError("Read error [127.0.0.1]: Connection reset by peer")

    accelerator = SimpleNamespace(num_processes=2, is_main_process=True, wait_for_everyone=gone)
    with pytest.raises(ConnectionError, match="another process of this run has ended"):
        save_checkpoint(accelerator, lambda folder: None, tmp_path, 6, 2, 2)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_loss_that_is_not_finite_stops_the_run(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"the (loss|gradients) became"):
        run_codec(parts, settings(tmp_path, learning_rate=1e30, max_grad_norm=1e30))


BOOKS = "quantizer.vq.layers.0._codebook.embed"


def test_the_average_of_frozen_weights_is_equal_to_the_bit() -> None:
    model = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(model.weight, -0.0)  # of which a hash sees the sign
    average = WeightAverage(model, decay=0.9)
    for _ in range(3):
        average.update_parameters(model)
    assert torch.signbit(average.module.weight).all()
    assert torch.equal(average.module.bias, model.bias)


def test_codebooks_are_averaged_with_the_encoder(parts: Parts, tmp_path: Path) -> None:
    training = settings(tmp_path, ema_decay=0.25, checkpoint_every=1, keep_checkpoints=4)
    exported = weights(run_codec(parts, training, losses=CodecLosses(quantize_from=0)))
    trained = [load_file(path / "model.safetensors") for path in checkpoints(tmp_path)]
    for name in (BOOKS, "to_latent.weight"):
        steps = [tensors[f"codec.{name}"] for tensors in trained]
        expected = steps[0]
        for tensor, decay in zip(steps[1:], (2 / 11, 3 / 12, 0.25), strict=True):
            expected = decay * expected + (1 - decay) * tensor
        assert torch.allclose(exported[name], expected, atol=1e-6), name
        assert not torch.allclose(exported[name], steps[-1], atol=1e-4), name


def test_codebooks_join_the_average_when_they_are_set(parts: Parts, tmp_path: Path) -> None:
    exported = weights(run_codec(parts, settings(tmp_path, steps=2)))[BOOKS]
    trained = load_file(checkpoints(tmp_path)[0] / "model.safetensors")[f"codec.{BOOKS}"]
    # an average that began with zeros would still hold 2/11 of them
    assert (exported - trained).norm() < 0.02 * trained.norm()


class OverflowingScaler(torch.amp.GradScaler):
    """A gradient scaler whose first backward passes overflow, as half precision's may."""

    def __init__(self, overflows: int) -> None:
        super().__init__("cpu", init_scale=1.0)
        self.overflows = overflows

    def scale(self, outputs: Any) -> Any:
        self.overflows -= 1
        return super().scale(outputs) * (float("inf") if self.overflows >= 0 else 1.0)


@pytest.mark.parametrize("overflows", [2, 10**9])
def test_a_step_that_overflows_is_repeated(
    parts: Parts, tmp_path: Path, overflows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(config: TrainingConfig) -> Any:
        accelerator = start_accelerator(config)
        accelerator.scaler = OverflowingScaler(overflows)
        return accelerator

    plain = run_decoder(parts, settings(tmp_path / "plain", max_grad_norm=1e9))
    monkeypatch.setattr("pipelines.training.loop.start_accelerator", start)
    training = settings(tmp_path / "overflowed", max_grad_norm=1e9)
    if overflows == 2:
        assert_same_weights(run_decoder(parts, training), plain)
        return
    with pytest.raises(FloatingPointError, match="gradients became infinite or NaN at step 0"):
        run_decoder(parts, training)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (10, 1.0), (60, 0.55), (110, 0.1)])
def test_learning_rate_warms_up_and_decays_to_a_tenth(step: int, rate: float) -> None:
    config = TrainingConfig("x", steps=110, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(step, config) == pytest.approx(rate)


def test_processes_share_the_items_of_a_step() -> None:
    config = TrainingConfig("x", batch_size=2, gradient_accumulation_steps=2)
    one = iter(StepSampler(replace(config, batch_size=4), rank=0, world=1, first_step=3))
    two = [iter(StepSampler(config, rank, world=2, first_step=3)) for rank in range(2)]
    for _ in range(4):
        expected = [next(one) for _ in range(4)]
        assert [next(two[rank]) for rank in range(2) for _ in range(2)] == expected


def test_every_epoch_is_a_permutation() -> None:
    order = EpochOrder(7, seed=1)
    epochs = [[order(7 * epoch + position) for position in range(7)] for epoch in range(3)]
    assert all(sorted(rows) == list(range(7)) for rows in epochs)
    assert epochs[0] != epochs[1]
    assert order(0) == epochs[0][0]


def script(parts: Parts, folder: Path, *more: str, processes: int = 1) -> list[str]:
    """The prior's trainer as a user starts it."""
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        if processes > 1
        else []
    )
    small = ["--model.width", "32", "--model.num_layers", "1", "--model.num_heads", "2"]
    return [
        *(sys.executable, *launcher, "pipelines/train_prior.py", *small),
        *("--model.codebook_size", str(CODEBOOK_SIZE), "--model.text_width", str(TEXT_WIDTH)),
        *("--data.tokens", f"[{parts['tokens']}]", "--data.text_encoder", parts["pipeline"]),
        *("--data.crop_s", "0.64", "--data.validation_clips", "2"),
        *("--training.output_dir", str(folder), "--training.mixed_precision", "no"),
        *("--training.log_every", "1", *more),
    ]


ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_two_processes_equal_one_with_twice_the_batch(parts: Parts, tmp_path: Path) -> None:
    steps = ["--training.steps", "3", "--training.warmup_steps", "1"]
    for name, processes, batch in (("one", 1, 4), ("two", 2, 2)):
        command = script(
            parts, tmp_path / name, *steps, "--training.batch_size", str(batch), processes=processes
        )
        subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert_same_weights(tmp_path / "two" / "model", tmp_path / "one" / "model", atol=2e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_run_resumes(parts: Parts, tmp_path: Path, number: signal.Signals) -> None:
    steps = ["--training.steps", "100000", "--training.checkpoint_every", "5"]
    command = script(parts, tmp_path, *steps)
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 90
    while not checkpoints(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    process.wait(60)
    reached = int(checkpoints(tmp_path)[-1].name.split("-")[1])
    more = ["--training.steps", str(reached + 2), "--resume"]
    done = subprocess.run(
        script(parts, tmp_path, *more), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"resumed from {checkpoints(tmp_path)[0].parent}" in done.stdout
    assert int(checkpoints(tmp_path)[-1].name.split("-")[1]) == reached + 2


def test_the_average_begins_with_the_model_that_a_run_starts_from(
    parts: Parts, tmp_path: Path
) -> None:
    first = run_prior(parts, settings(tmp_path / "first", steps=1))
    begun = weights(first)
    start = settings(tmp_path / "0.99", ema_decay=0.99, start_from=str(first), warmup_steps=0)

    def moved(training: TrainingConfig) -> float:
        after = weights(run_prior(parts, training))
        return sum(float((tensor - begun[name]).norm()) for name, tensor in after.items())

    live = replace(start, ema_decay=0.0, output_dir=str(tmp_path / "0.0"))
    assert moved(start) < 0.6 * moved(live)
    halves = replace(start, output_dir=str(tmp_path / "halves"))
    stop_after_two(parts, halves, run_prior)
    assert_same_weights(run_prior(parts, halves, resume=True), tmp_path / "0.99" / "model")


def test_a_codec_with_a_stereo_image_is_trained(parts: dict[str, str], tmp_path: Path) -> None:
    """Augmented crops, k-means of both kinds of books, checkpoints, a loss that falls."""
    torch.manual_seed(0)
    codec = SpectralCodec(
        **{"width": 32, "encoder_layers": 1, "decoder_layers": 1, "latent_dim": 16},
        **{"num_codebooks": 3, "codebook_size": 16, "stereo_bands": 32},
    )
    data = SpectrogramData([parts["prepared"]], crop_s=0.64, validation_clips=2)
    losses = CodecLosses(energy=1.0, quantize_from=5, focus_books=2, focus_share=0.5)
    changes = Augmentation(6, 3, 0.5, 0.5, 0.1)
    training = settings(tmp_path, steps=40, checkpoint_every=40, validate_every=40)
    folder = train_codec(codec, losses, data, training, augmentation=changes)
    rows = metrics(tmp_path)
    regression = [row["regression"] for row in rows if "regression" in row]
    assert sum(regression[-5:]) < 0.7 * sum(regression[:5])
    found = rows[-1]  # chords are panned, so what the image adds are level differences
    assert found["validation/books_3_difference_db"] < found["validation/books_1_difference_db"]
    trained = SpectralCodec.from_pretrained(folder)
    assert trained.image_book is not None
    assert trained.image_book.is_set


def test_user_mistake_is_one_line_and_exit_code_2(parts: Parts, tmp_path: Path) -> None:
    command = script(parts | {"tokens": str(tmp_path / "nothing")}, tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr
