"""Run each trainer for a few steps on tiny parts, and read what it left."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_pipeline import CODEBOOK_SIZE, NUM_BOOKS, TEXT_WIDTH
from torch import Tensor

from codec import SpectralCodec
from codec.component import WEIGHTS_NAME
from decoder import DiffusionDecoder
from pipelines.train_codec import CodecLosses, train_codec
from pipelines.train_decoder import train_decoder
from pipelines.train_prior import train_prior
from pipelines.training.codec_data import SpectrogramData
from pipelines.training.decoder_data import DecoderData
from pipelines.training.prior_data import PriorData
from pipelines.training.training_config import TrainingConfig
from prior import Prior

Train = Callable[..., Path]


Parts = dict[str, str]


QUANTIZED = CodecLosses(quantize_from=1)


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
    parts: Parts, training: TrainingConfig, resume: bool = False, losses: CodecLosses = QUANTIZED
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


def run_decoder(
    parts: Parts, training: TrainingConfig, resume: bool = False, **drawing: Any
) -> Path:
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
    folders = [parts["prepared"]], [parts["tokens"]], parts["codec"]
    data = DecoderData(*folders, crop_s=0.64, validation_clips=2, **drawing)
    return train_decoder(decoder, data, training, resume)


TRAINERS = pytest.mark.parametrize("run", [run_codec, run_prior, run_decoder])


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder) if "loss" in line]


def weights(model: Path) -> dict[str, Tensor]:
    return load_file(model / WEIGHTS_NAME)


def assert_same_weights(model: Path, other: Path, atol: float = 0.0) -> None:
    expected = weights(other)
    for name, tensor in weights(model).items():
        assert torch.allclose(tensor, expected[name], rtol=0, atol=atol), name
