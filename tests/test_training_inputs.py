"""Configs and trained models that a run begins with: read, taken over, or refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import (
    TRAINERS,
    Parts,
    Train,
    metrics,
    run_codec,
    run_prior,
    settings,
    tiny_prior,
    weights,
)

from codec import SpectralCodec
from decoder import DiffusionDecoder
from pipelines.train_codec import CodecLosses, CodecTraining
from pipelines.train_prior import train_prior
from pipelines.training.acceleration import choose_precision, start_accelerator
from pipelines.training.checkpoints import load_weights
from pipelines.training.codec_data import SpectrogramData
from pipelines.training.configuration import configure
from pipelines.training.decoder_data import DecoderData
from pipelines.training.prior_data import PriorData
from pipelines.training.training_config import TrainingConfig
from prior import Prior


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
        *(*argv, "--training.output_dir", "x", "--data.prepared", "[a]"),
        *("--data.tokens", "[b]", "--data.codec", "c"),
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


def test_the_codecs_decoder_alone_is_trained_on_its_codes(parts: Parts, tmp_path: Path) -> None:
    first = run_codec(parts, settings(tmp_path / "first"))
    losses = CodecLosses(energy=2.0, decoder_alone=True)
    second = run_codec(parts, settings(tmp_path / "second", start_from=str(first)), losses=losses)
    before, after = weights(first), weights(second)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"from_latent", "decoder", "patch_out"}
    assert metrics(second.parent)[0]["energy"] > 0
    with pytest.raises(ValueError, match=r"decoder_alone needs training\.start_from"):
        run_codec(parts, settings(tmp_path / "third"), losses=losses)


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
