"""Train the decoder: ``accelerate launch pipelines/train_decoder.py --config ...``.

A batch goes from ``decoder_data.DecoderCrops`` through ``DecoderRecipe.loss`` (the frozen codec
makes the conditions, ``decoder.flow.flow_loss`` compares) to ``training.train``.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codec.audio_file import write_audio
from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.flow import flow_loss, uniform_angle
from decoder.sampler import FlowSampler, check_conditions, euler_scheduler
from pipelines.training.codec_data import evenly_spaced
from pipelines.training.configuration import run_script
from pipelines.training.decoder_data import DecoderBatch, DecoderCrops, DecoderData
from pipelines.training.loop import TrainingConfig, train


class DecoderRecipe:
    """The decoder's part of the training loop (see ``training.Recipe``)."""

    def __init__(
        self, decoder: DiffusionDecoder, data: DecoderData, training: TrainingConfig
    ) -> None:
        self.model = decoder
        self.codec = SpectralCodec.from_pretrained(data.codec).eval().requires_grad_(False)
        check_conditions(self.codec, decoder)
        self.dataset = DecoderCrops(data, "train", training.seed)
        self.audio_s_per_item = data.crop_tokens / self.codec.frame_rate
        held_out = DecoderCrops(data, "validation", training.seed)
        self.held_out = DecoderBatch.stack(
            [
                held_out.item(row, 0, generator(training.seed, "validation", row))
                for row in evenly_spaced(held_out.rows, data.validation_clips)
            ]
        )
        self.focus_books = data.focus_books

    def collate(self, items: list[DecoderBatch]) -> DecoderBatch:
        """Stack items."""
        return DecoderBatch.stack(items)

    def before_step(self, model: nn.Module, batch: DecoderBatch, step: int) -> None:
        """Move the frozen codec to the device that the model lives on."""
        self.codec.to(batch.codes.device)

    def loss(
        self, model: nn.Module, batch: DecoderBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Flow-matching loss of the (wrapped) decoder, in units of the detail's deviation."""
        return self.flow_loss(model, batch, self.model.config.detail_std), {}

    def flow_loss(self, model: nn.Module, batch: DecoderBatch, detail_std: float) -> Tensor:
        """The loss of one batch with the batch's own noise and angles."""
        with torch.no_grad():
            latents = self.codec.quantizer.decode(batch.codes, batch.num_books)
            coarse = self.codec.normalize(self.codec.reconstruct(latents))
        detail = (self.codec.normalize(batch.spectrogram) - coarse) / detail_std

        def predict(point: Tensor, angle: Tensor) -> Tensor:
            return model(point, angle, coarse, latents, batch.num_books)

        return flow_loss(predict, batch.noise, detail, uniform_angle(batch.time))

    def validate(self, model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        """Held-out loss, and for ``focus_books`` books error and movement of both decodes."""
        assert isinstance(model, DiffusionDecoder)
        device = next(model.parameters()).device
        self.codec.to(device)
        batch = self.held_out.to(device)
        figures = {"loss": float(self.flow_loss(model, batch, model.config.detail_std))}
        codes = batch.codes[:, : self.focus_books]
        sampler = FlowSampler(self.codec, model, euler_scheduler())
        fine = sampler.decode_spectrogram(codes, list(range(len(codes))))
        coarse = self.codec.decode_spectrogram(codes)
        for name, decoded in (("coarse", coarse), ("fine", fine)):
            figures[f"{name}_error"] = float((decoded - batch.spectrogram).abs().mean())
            figures[f"{name}_movement"] = _movement(decoded) / _movement(batch.spectrogram)
            audio = self.codec.vocoder(decoded[:1])
            write_audio(folder / f"{name}.wav", audio[0].cpu(), self.codec.sample_rate)
        return figures

    def component(self, model: nn.Module) -> DiffusionDecoder:
        """The decoder: all that is trained."""
        assert isinstance(model, DiffusionDecoder)
        return model


def _movement(spectrogram: Tensor) -> float:
    """Mean absolute change from frame to frame (nats)."""
    return float(spectrogram.diff(dim=-1).abs().mean())


def train_decoder(
    model: DiffusionDecoder, data: DecoderData, training: TrainingConfig, resume: bool = False
) -> Path:
    """Train a decoder from cached spectrograms and tokens; returns the exported one's folder."""
    return train(DecoderRecipe(model, data, training), training, resume)


PARTS: dict[str, Any] = {
    "model": DiffusionDecoder,
    "data": DecoderData,
    "training": TrainingConfig,
}
"""The sections of its configuration."""


def main(argv: list[str] | None = None) -> int:
    """Read the configuration, then train."""
    return run_script("train_decoder.py", train_decoder, PARTS, argv)


if __name__ == "__main__":
    sys.exit(main())
