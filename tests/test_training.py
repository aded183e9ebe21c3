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
from torch import Tensor

from codec import SpectralCodec
from codec.component import WEIGHTS_NAME
from decoder import DiffusionDecoder
from pipelines.train_codec import CodecLosses, CodecTraining, train_codec
from pipelines.train_decoder import train_decoder
from pipelines.train_prior import train_prior
from pipelines.training.acceleration import choose_precision, start_accelerator
from pipelines.training.augmentation import Augmentation
from pipelines.training.checkpoints import checkpoints, load_weights, save_checkpoint
from pipelines.training.codec_data import SpectrogramData
from pipelines.training.configuration import configure
from pipelines.training.decoder_data import DecoderData
from pipelines.training.item_order import EpochOrder, StepSampler
from pipelines.training.loop import learning_rate
from pipelines.training.prior_data import PriorData
from pipelines.training.training_config import TrainingConfig
from prior import Prior

Train = Callable[..., Path]
Parts = dict[str, str]
QUANTIZED = CodecLosses(quantize_from=1)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
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
    parts: Parts,
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


def tiny_prior(**changes: Any) -> Prior:
    torch.manual_seed(0)
    sizes = {"num_codebooks": 2, "codebook_size": CODEBOOK_SIZE} | changes
    return Prior(
        **sizes,
        backbone="lstm",
        width=32,
        num_layers=1,
        num_heads=2,
        text_width=TEXT_WIDTH,
        depth_width=16,
        depth_layers=1,
        depth_heads=2,
    )


def run_prior(parts: Parts, training: TrainingConfig, resume: bool = False) -> Path:
    data = PriorData(
        [parts["tokens"]], parts["pipeline"], parts["codec"], crop_s=1.0, validation_clips=2
    )
    return train_prior(tiny_prior(), data, training, resume)


def run_decoder(parts: Parts, training: TrainingConfig, resume: bool = False) -> Path:
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


def weights(model: Path) -> dict[str, Tensor]:
    return load_file(model / WEIGHTS_NAME)


def assert_same_weights(model: Path, other: Path, atol: float = 0.0) -> None:
    expected = weights(other)
    for name, tensor in weights(model).items():
        assert torch.allclose(tensor, expected[name], rtol=0, atol=atol), name


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


def test_validation_computes_as_inference_does(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = DiffusionDecoder.forward, {True: set(), False: set()}

    def recorded(model: DiffusionDecoder, *arguments: Any) -> Any:
        precision = torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")
        seen[model.training].add(precision)
        return forward(model, *arguments)

    monkeypatch.setattr(DiffusionDecoder, "forward", recorded)
    run_decoder(parts, settings(tmp_path, steps=2, validate_every=1, mixed_precision="bf16"))
    assert seen == {True: {("medium", True)}, False: {("highest", False)}}


def test_run_writes_what_it_promises(parts: Parts, tmp_path: Path) -> None:
    model = run_decoder(parts, settings(tmp_path))
    assert DiffusionDecoder.from_pretrained(model).config.width == 32
    assert [path.name[-2:] for path in checkpoints(tmp_path)] == ["02", "04"]
    samples = tmp_path / "samples" / "step-00000004"
    assert {path.name for path in samples.iterdir()} == {"coarse.wav", "fine.wav"}
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation/coarse_error"] > 0
    with pytest.raises(ValueError, match="already holds checkpoint-00000004: pass --resume"):
        run_decoder(parts, settings(tmp_path))


def test_full_disk_keeps_the_previous_checkpoint(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_codec(parts, settings(tmp_path))
    accelerator = start_accelerator(settings(tmp_path))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(accelerator, "save_state", full)
    with pytest.raises(OSError, match=r"No space left on device.*previous one is kept"):
        save_checkpoint(accelerator, accelerator.save_state, tmp_path, 6, keep=2)
    assert [path.name for path in checkpoints(tmp_path)][-1] == "checkpoint-00000004"
    assert not list(tmp_path.glob(".partial*"))


def test_loss_that_is_not_finite_stops_the_run(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"the (loss|gradients) became"):
        run_codec(parts, settings(tmp_path, learning_rate=1e30, max_grad_norm=1e30))


BOOKS = "quantizer.vq.layers.0._codebook.embed"


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
    monkeypatch.setattr("pipelines.training.acceleration.start_accelerator", start)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"warmup_steps": -5}, "warmup_steps must be at least 0, got -5"),
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
    "make",
    [
        lambda **changes: SpectrogramData(["a"], **changes),
        lambda **changes: PriorData(["a"], **changes),
        lambda **changes: DecoderData(["a"], ["b"], "c", **changes),
    ],
)
def test_validation_needs_a_clip(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="validation_clips must be at least 1, got 0"):
        make(validation_clips=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_size": 8}, "codebook_size must be the 16 of the tokens .*, got 8"),
        ({"num_codebooks": 5}, "num_codebooks must be at most the 4 of the tokens .*, got 5"),
    ],
)
def test_a_prior_that_does_not_fit_the_tokens_is_refused(
    parts: Parts, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    data = PriorData([parts["tokens"]], parts["pipeline"])
    with pytest.raises(ValueError, match=message):
        train_prior(tiny_prior(**changes), data, settings(tmp_path))


def test_processes_that_do_not_see_one_another_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_accelerator(settings(tmp_path))  # alone; accelerate keeps what it saw first
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were launched, accelerate sees 1"):
        start_accelerator(settings(tmp_path))


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
    with pytest.raises(ValueError, match=message):
        configure("test", shapes, given)


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
    path = tmp_path / "old.yaml"
    path.write_text(config)
    with pytest.raises(ValueError, match=message):
        configure("test", {"losses": CodecLosses, "data": PriorData}, ["--config", str(path)])


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


@TRAINERS
def test_a_run_starts_from_a_trained_model(
    parts: Parts, tmp_path: Path, run: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(parts, settings(tmp_path / "first"))
    begun = settings(tmp_path / "second", start_from=str(first), learning_rate=1e-12, steps=1)
    second = run(parts, begun)
    assert "new: nothing" in capsys.readouterr().out
    began = weights(second)
    for name, tensor in weights(first).items():
        if "_codebook." not in name:  # those follow the data without a learning rate
            assert torch.allclose(tensor, began[name], atol=1e-7), name


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


def test_the_codecs_decoder_alone_is_trained_on_its_codes(parts: Parts, tmp_path: Path) -> None:
    first = run_codec(parts, settings(tmp_path / "first"))
    losses = CodecLosses(energy=2.0, decoder_alone=True)
    second = run_codec(parts, settings(tmp_path / "second", start_from=str(first)), losses=losses)
    before, after = weights(first), weights(second)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"from_latent", "decoder", "patch_out"}
    metrics = [json.loads(line) for line in (second.parent / "metrics.jsonl").open()]
    assert metrics[0]["energy"] > 0
    with pytest.raises(ValueError, match=r"decoder_alone needs training\.start_from"):
        run_codec(parts, settings(tmp_path / "third"), losses=losses)


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
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    regression = [row["regression"] for row in rows if "regression" in row]
    assert sum(regression[-5:]) < 0.7 * sum(regression[:5])
    found = rows[-1]  # chords are panned, so what the image adds are level differences
    assert found["validation/books_3_difference_db"] < found["validation/books_1_difference_db"]
    trained = SpectralCodec.from_pretrained(folder)
    assert trained.image_book is not None
    assert trained.image_book.is_set


@pytest.mark.parametrize("focus_share", [0.0, 0.4, 1.0])
def test_rows_favor_the_focused_number_of_books(focus_share: float) -> None:
    codec = SpectralCodec(width=16, encoder_layers=1, decoder_layers=1, num_codebooks=8)
    losses = CodecLosses(focus_books=4, focus_share=focus_share)
    books = CodecTraining(codec, losses).draw_books(20_000, seed=1)
    shares = torch.bincount(books, minlength=9)[1:] / len(books)
    rest = (1 - focus_share) / 2
    expected = torch.full((8,), rest / 8)
    expected[3] += focus_share
    expected[7] += rest
    assert torch.allclose(shares, expected, atol=0.01)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        ("nowhere", FileNotFoundError, "start_from: .*nowhere.* does not exist"),
        ("codec", ValueError, "start_from: .* holds .*, which this model does not have"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    parts: Parts, tmp_path: Path, start: str, error: type[Exception], message: str
) -> None:
    folder = parts.get(start, str(tmp_path / start))
    with pytest.raises(error, match=message):
        run_prior(parts, settings(tmp_path / "run", start_from=folder))


def test_a_start_of_another_size_is_refused(parts: Parts, tmp_path: Path) -> None:
    first = run_prior(parts, settings(tmp_path / "first", steps=1))
    model = Prior.from_pretrained(first)
    other = Prior(**{k: v for k, v in model.config.items() if k[0] != "_"} | {"width": 16})
    with pytest.raises(ValueError, match=r"start_from: tensor .* must be .*16.*, got .*32"):
        load_weights(other, first)


@pytest.mark.parametrize(
    ("wanted", "feature", "expected"),
    [
        *(("no", True, "no"), ("bf16", False, "bf16"), ("fp16", False, "fp16")),
        *(("auto", None, "no"), ("auto", False, "no"), ("auto", True, "bf16")),
    ],
)
def test_auto_is_bf16_only_where_the_processor_computes_in_it(
    wanted: str, feature: bool | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {"avx2": True} | ({} if feature is None else {"avx512_bf16": feature})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert choose_precision(wanted, torch.device("cpu")) == expected


def test_user_mistake_is_one_line_and_exit_code_2(parts: Parts, tmp_path: Path) -> None:
    command = script(parts | {"tokens": str(tmp_path / "nothing")}, tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr
