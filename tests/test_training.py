"""The loop: learning, exact resume, two processes, interruption, a full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_data import write_parts
from tiny_pipeline import CODEBOOK_SIZE, NUM_BOOKS, TEXT_WIDTH

from codec import SpectralCodec
from codec.component import WEIGHTS_NAME
from decoder import DiffusionDecoder
from pipelines.train_codec import CodecLosses, train_codec
from pipelines.train_decoder import train_decoder
from pipelines.train_prior import train_prior
from pipelines.training.checkpoints import checkpoints, load_weights, save_checkpoint
from pipelines.training.codec_data import SpectrogramData
from pipelines.training.configuration import build, build_parser, parse
from pipelines.training.decoder_data import DecoderData
from pipelines.training.loop import (
    EpochOrder,
    StepSampler,
    TrainingConfig,
    learning_rate,
    start_accelerator,
)
from pipelines.training.precision import choose_precision
from pipelines.training.prior_data import PriorData
from prior import Prior

Train = Callable[..., Path]
QUANTIZED = CodecLosses(quantize_from=1)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny data and frozen parts."""
    return write_parts(tmp_path_factory.mktemp("parts"))


def settings(folder: Path, **changes: Any) -> TrainingConfig:
    """Four steps of two items in float32, with a checkpoint after every second."""
    config = TrainingConfig(
        output_dir=str(folder),
        steps=4,
        batch_size=2,
        learning_rate=3e-3,
        warmup_steps=1,
        ema_decay=0.5,
        mixed_precision="no",
        checkpoint_every=2,
        validate_every=4,
        log_every=1,
    )
    return replace(config, **changes)


def run_codec(
    parts: dict[str, str],
    training: TrainingConfig,
    resume: bool = False,
    losses: CodecLosses = QUANTIZED,
) -> Path:
    torch.manual_seed(0)
    codec = SpectralCodec(
        width=16,
        encoder_layers=1,
        decoder_layers=1,
        latent_dim=8,
        num_codebooks=2,
        codebook_size=16,
        vocoder_iterations=1,
    )
    data = SpectrogramData([parts["prepared"]], crop_s=0.64, validation_clips=2)
    return train_codec(codec, losses, data, training, resume)


def tiny_prior() -> Prior:
    torch.manual_seed(0)
    return Prior(
        backbone="lstm",
        num_codebooks=2,
        codebook_size=CODEBOOK_SIZE,
        width=32,
        num_layers=1,
        num_heads=2,
        text_width=TEXT_WIDTH,
        depth_width=16,
        depth_layers=1,
        depth_heads=2,
    )


def run_prior(parts: dict[str, str], training: TrainingConfig, resume: bool = False) -> Path:
    data = PriorData(
        [parts["tokens"]], parts["pipeline"], parts["codec"], crop_s=1.0, validation_clips=2
    )
    return train_prior(tiny_prior(), data, training, resume)


def run_decoder(parts: dict[str, str], training: TrainingConfig, resume: bool = False) -> Path:
    torch.manual_seed(0)
    decoder = DiffusionDecoder(
        latent_dim=8,
        num_codebooks=NUM_BOOKS,
        width=32,
        num_layers=1,
        num_heads=2,
        window_frames=16,
        overlap_frames=4,
        default_steps=2,
    )
    data = DecoderData(
        [parts["prepared"]], [parts["tokens"]], parts["codec"], crop_s=0.64, validation_clips=2
    )
    return train_decoder(decoder, data, training, resume)


TRAINERS = pytest.mark.parametrize("run", [run_codec, run_prior, run_decoder])


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def assert_same_weights(folder: Path, other: Path) -> None:
    expected = load_file(other / WEIGHTS_NAME)
    for name, tensor in load_file(folder / WEIGHTS_NAME).items():
        assert torch.equal(tensor, expected[name]), name


def stop_after_two(parts: dict[str, str], training: TrainingConfig, run: Train) -> None:
    """Train as far as the second step, as if the run was killed before the fourth."""
    run(parts, training)
    shutil.rmtree(Path(training.output_dir) / "checkpoint-00000004")


@TRAINERS
def test_resumed_run_equals_uninterrupted_one(
    parts: dict[str, str], tmp_path: Path, run: Train
) -> None:
    whole = run(parts, settings(tmp_path / "whole"))
    halves = settings(tmp_path / "halves")
    stop_after_two(parts, halves, run)
    assert_same_weights(run(parts, halves, resume=True), whole)


def test_resumed_run_keeps_the_decay_of_its_start(parts: dict[str, str], tmp_path: Path) -> None:
    first = str(run_prior(parts, settings(tmp_path / "first", steps=1)))
    whole = run_prior(parts, settings(tmp_path / "whole", start_from=first))
    halves = settings(tmp_path / "halves", start_from=first)
    stop_after_two(parts, halves, run_prior)
    assert_same_weights(run_prior(parts, halves, resume=True), whole)


def test_a_checkpoint_with_an_average_of_parameters_alone_is_resumed(
    parts: dict[str, str], tmp_path: Path
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


def test_data_loading_processes_change_nothing(parts: dict[str, str], tmp_path: Path) -> None:
    alone, helped = (
        run_prior(parts, settings(tmp_path / f"{n}", num_workers=n, validate_every=8))
        for n in (0, 1)
    )
    assert losses(helped.parent) == pytest.approx(losses(alone.parent), rel=1e-5)


@TRAINERS
def test_loss_falls(parts: dict[str, str], tmp_path: Path, run: Train) -> None:
    run(parts, settings(tmp_path, steps=60, batch_size=4, checkpoint_every=60, validate_every=60))
    found = losses(tmp_path)
    assert sum(found[-5:]) < 0.85 * sum(found[1:6])


@TRAINERS
def test_training_leaves_the_process_as_it_was(
    parts: dict[str, str], tmp_path: Path, run: Train
) -> None:
    run(parts, settings(tmp_path, steps=1, validate_every=1))
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.initial_seed() == 0  # `run` seeds before it builds the model


def test_validation_computes_as_inference_does(
    parts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = DiffusionDecoder.forward, {True: set(), False: set()}

    def recorded(model: DiffusionDecoder, *arguments: Any) -> Any:
        precision = torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")
        seen[model.training].add(precision)
        return forward(model, *arguments)

    monkeypatch.setattr(DiffusionDecoder, "forward", recorded)
    run_decoder(parts, settings(tmp_path, steps=2, validate_every=1, mixed_precision="bf16"))
    assert seen == {True: {("medium", True)}, False: {("highest", False)}}


def test_run_writes_what_it_promises(parts: dict[str, str], tmp_path: Path) -> None:
    model = run_decoder(parts, settings(tmp_path))
    assert DiffusionDecoder.from_pretrained(model).config.width == 32
    assert [path.name for path in checkpoints(tmp_path)] == [
        "checkpoint-00000002",
        "checkpoint-00000004",
    ]
    samples = tmp_path / "samples" / "step-00000004"
    assert {path.name for path in samples.iterdir()} == {"coarse.wav", "fine.wav"}
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation/coarse_error"] > 0


def test_second_run_in_a_folder_must_resume(parts: dict[str, str], tmp_path: Path) -> None:
    run_codec(parts, settings(tmp_path))
    with pytest.raises(ValueError, match="already holds checkpoint-00000004: pass --resume"):
        run_codec(parts, settings(tmp_path))


def test_full_disk_keeps_the_previous_checkpoint(
    parts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_codec(parts, settings(tmp_path))
    accelerator = start_accelerator(settings(tmp_path))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(accelerator, "save_state", full)
    with pytest.raises(OSError, match=r"No space left on device.*previous one is kept"):
        save_checkpoint(accelerator, tmp_path, 6, keep=2)
    assert [path.name for path in checkpoints(tmp_path)][-1] == "checkpoint-00000004"
    assert not list(tmp_path.glob(".partial*"))


def test_loss_that_is_not_finite_stops_the_run(parts: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"the (loss|gradients) became"):
        run_codec(parts, settings(tmp_path, learning_rate=1e30, max_grad_norm=1e30))


BOOKS = "quantizer.vq.layers.0._codebook.embed"


def test_codebooks_are_averaged_with_the_encoder(parts: dict[str, str], tmp_path: Path) -> None:
    training = settings(tmp_path, ema_decay=0.25, checkpoint_every=1, keep_checkpoints=4)
    exported = load_file(
        run_codec(parts, training, losses=CodecLosses(quantize_from=0)) / WEIGHTS_NAME
    )
    trained = [load_file(path / "model.safetensors") for path in checkpoints(tmp_path)]
    for name in (BOOKS, "to_latent.weight"):
        expected = trained[0][f"codec.{name}"]
        for weights, decay in zip(trained[1:], (2 / 11, 3 / 12, 0.25), strict=True):
            expected = decay * expected + (1 - decay) * weights[f"codec.{name}"]
        assert torch.allclose(exported[name], expected, atol=1e-6), name
        assert not torch.allclose(exported[name], trained[-1][f"codec.{name}"], atol=1e-4), name


def test_codebooks_join_the_average_when_they_are_set(
    parts: dict[str, str], tmp_path: Path
) -> None:
    exported = load_file(run_codec(parts, settings(tmp_path, steps=2)) / WEIGHTS_NAME)
    (checkpoint,) = checkpoints(tmp_path)
    trained = load_file(checkpoint / "model.safetensors")[f"codec.{BOOKS}"]
    assert (
        exported[BOOKS] - trained
    ).norm() < 0.02 * trained.norm()  # not 2/11, the share of zeros


class OverflowingScaler(torch.amp.GradScaler):
    """A gradient scaler whose first backward passes overflow, as half precision's may."""

    def __init__(self, overflows: int) -> None:
        super().__init__("cpu", init_scale=1.0)
        self.overflows = overflows

    def scale(self, outputs: Any) -> Any:
        self.overflows -= 1
        return super().scale(outputs) * (float("inf") if self.overflows >= 0 else 1.0)


def overflow(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next run's first backward passes overflow."""

    def start(config: TrainingConfig) -> Any:
        accelerator = start_accelerator(config)
        accelerator.scaler = OverflowingScaler(times)
        return accelerator

    monkeypatch.setattr("pipelines.training.loop.start_accelerator", start)


def test_a_step_that_overflows_is_repeated(
    parts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = settings(tmp_path / "plain", max_grad_norm=1e9)
    plain = run_decoder(parts, training)
    overflow(monkeypatch, times=2)
    training = replace(training, output_dir=str(tmp_path / "overflowed"))
    assert_same_weights(run_decoder(parts, training), plain)


def test_gradients_that_are_never_finite_stop_the_run(
    parts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow(monkeypatch, times=10**9)
    with pytest.raises(FloatingPointError, match="gradients became infinite or NaN at step 0"):
        run_decoder(parts, settings(tmp_path))


def test_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    config = TrainingConfig("x", steps=110, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(10, config) == pytest.approx(1.0)
    assert learning_rate(60, config) == pytest.approx(0.55)
    assert learning_rate(110, config) == pytest.approx(0.1)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\)"),
        ({"mixed_precision": "int3"}, "mixed_precision must be"),
        ({"log_with": "paper"}, "log_with must be"),
    ],
)
def test_bad_settings_name_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig("x", **changes)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--training.stepz", "3"], "stepz"),
        (["--training.steps", "many"], "steps"),
        (["--model.width", "50", "--model.num_heads", "4"], "must divide width"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_configuration_is_a_value_error(argv: list[str], message: str) -> None:
    given = [
        *("--training.output_dir", "x", "--data.prepared", "[a]"),
        *("--data.tokens", "[b]", "--data.codec", "c", *argv),
    ]
    shapes = {"model": DiffusionDecoder, "data": DecoderData, "training": TrainingConfig}
    parser = build_parser("test", shapes)
    with pytest.raises(ValueError, match=message):
        build(parser, parse(parser, given))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("losses: {quantise_from: 3}", r"quantise_from is now losses\.quantize_from"),
        ("data: {plan_dropout: 0.2}", r"now data\.whole_plan_dropout .* data\.players_dropout"),
    ],
)
def test_a_field_of_an_old_config_is_answered_by_its_new_name(
    config: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "old.yaml").write_text(config)
    parser = build_parser("test", {"losses": CodecLosses, "data": PriorData})
    with pytest.raises(ValueError, match=message):
        parse(parser, ["--config", str(tmp_path / "old.yaml")])


def script(parts: dict[str, str], folder: Path, *more: str, processes: int = 1) -> list[str]:
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


def test_two_processes_equal_one_with_twice_the_batch(
    parts: dict[str, str], tmp_path: Path
) -> None:
    steps = ["--training.steps", "3", "--training.warmup_steps", "1"]
    for name, processes, batch in (("one", 1, 4), ("two", 2, 2)):
        command = script(
            parts, tmp_path / name, *steps, "--training.batch_size", str(batch), processes=processes
        )
        subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    one = load_file(tmp_path / "one" / "model" / WEIGHTS_NAME)
    two = load_file(tmp_path / "two" / "model" / WEIGHTS_NAME)
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=2e-5), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_run_resumes(parts: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
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


@TRAINERS
def test_a_run_starts_from_a_trained_model(
    parts: dict[str, str], tmp_path: Path, run: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(parts, settings(tmp_path / "first"))
    begun = settings(tmp_path / "second", start_from=str(first), learning_rate=1e-12, steps=1)
    second = run(parts, begun)
    assert "new: nothing" in capsys.readouterr().out
    began = load_file(second / WEIGHTS_NAME)
    for name, tensor in load_file(first / WEIGHTS_NAME).items():
        if "_codebook." not in name:  # those follow the data without a learning rate
            assert torch.allclose(tensor, began[name], atol=1e-7), name


def test_the_average_begins_with_the_model_that_a_run_starts_from(
    parts: dict[str, str], tmp_path: Path
) -> None:
    first = run_prior(parts, settings(tmp_path / "first", steps=1))
    begun = load_file(first / WEIGHTS_NAME)

    def moved(ema_decay: float, **more: Any) -> float:
        folder = tmp_path / f"{ema_decay}-{len(more)}"
        model = run_prior(parts, settings(folder, steps=8, ema_decay=ema_decay, **more))
        return sum(
            float((tensor - begun[name]).norm())
            for name, tensor in load_file(model / WEIGHTS_NAME).items()
        )

    start = {"start_from": str(first), "warmup_steps": 0}
    assert moved(0.99, **start) < 0.5 * moved(0.0, **start)


def test_the_codecs_decoder_alone_is_trained_on_its_codes(
    parts: dict[str, str], tmp_path: Path
) -> None:
    first = run_codec(parts, settings(tmp_path / "first"))
    losses = CodecLosses(energy=2.0, decoder_alone=True)
    second = run_codec(parts, settings(tmp_path / "second", start_from=str(first)), losses=losses)
    before, after = load_file(first / WEIGHTS_NAME), load_file(second / WEIGHTS_NAME)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"from_latent", "decoder", "patch_out"}
    metrics = [json.loads(line) for line in (second.parent / "metrics.jsonl").open()]
    assert metrics[0]["energy"] > 0
    with pytest.raises(ValueError, match=r"decoder_alone needs training\.start_from"):
        run_codec(parts, settings(tmp_path / "third"), losses=losses)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        ("nowhere", FileNotFoundError, "start_from: .*nowhere.* does not exist"),
        ("codec", ValueError, "start_from: .* holds .*, which this model does not have"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    parts: dict[str, str], tmp_path: Path, start: str, error: type[Exception], message: str
) -> None:
    folder = parts.get(start, str(tmp_path / start))
    with pytest.raises(error, match=message):
        run_prior(parts, settings(tmp_path / "run", start_from=folder))


def test_a_start_of_another_size_is_refused(parts: dict[str, str], tmp_path: Path) -> None:
    first = run_prior(parts, settings(tmp_path / "first", steps=1))
    model = Prior.from_pretrained(first)
    other = Prior(**{k: v for k, v in model.config.items() if k[0] != "_"} | {"width": 16})
    with pytest.raises(ValueError, match=r"start_from: tensor .* must be .*16.*, got .*32"):
        load_weights(other, first)


@pytest.mark.parametrize("wanted", ["no", "bf16", "fp16"])
def test_a_named_precision_is_taken(wanted: str) -> None:
    assert choose_precision(wanted, torch.device("cpu")) == wanted


@pytest.mark.parametrize(
    ("features", "expected"),
    [({}, "no"), ({"avx2": True, "avx512_bf16": False}, "no"), ({"avx512_bf16": True}, "bf16")],
)
def test_auto_is_bf16_only_where_the_processor_computes_in_it(
    features: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == expected


def test_user_mistake_is_one_line_and_exit_code_2(parts: dict[str, str], tmp_path: Path) -> None:
    command = script(parts | {"tokens": str(tmp_path / "nothing")}, tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr
