"""Train the codec: ``accelerate launch pipelines/train_codec.py --config configs/codec/tiny.yaml``.

A batch goes from ``batches.SpectrogramCrops`` through ``CodecTraining.forward`` (codec, then
losses) to ``training.train``.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from codec.audio_file import write_audio
from codec.discriminator import PatchDiscriminator
from codec.losses import (
    discriminator_hinge,
    energy_loss,
    generator_hinge,
    movement_loss,
    spectrogram_loss,
)
from codec.seeds import derive_seed
from codec.spectral_codec import CodecOutput, SpectralCodec
from pipelines.augmentation import Augmentation
from pipelines.batches import SpectrogramCrops, SpectrogramData, open_all, validation_crops
from pipelines.configuration import run_script
from pipelines.prepared import FRAME_RATE
from pipelines.training import TrainingConfig, train

INITIALISATION_BATCHES = 16


@dataclass(frozen=True)
class CodecLosses:
    """Weights of the codec's losses.

    Args:
        movement: of the frame-to-frame term beside the regression's 1.
        energy: of the power in tiles beside the regression's 1.
        commitment: of the quantiser's commitment term.
        adversarial: of the patch discriminator; 0 trains none.
        adversarial_from: update at which the codec begins to listen to the discriminator, which
            learns from the start.
        quantise_from: update at which the codebooks are set by k-means and join.
        focus_books: number of books that training favours, 0 for none.
        focus_share: of the rows, those coded by ``focus_books``; half of the others are coded by
            all books and half by any number of them.
        decoder_alone: train nothing but the decoder of the codec that ``training.start_from``
            names, on 1 to K of its books: tokens, and what was trained on them, stay valid.
    """

    movement: float = 0.0
    energy: float = 0.0
    commitment: float = 0.25
    adversarial: float = 0.0
    adversarial_from: int = 2000
    quantise_from: int = 500
    focus_books: int = 0
    focus_share: float = 0.0
    decoder_alone: bool = False


@dataclass
class SpectrogramBatch:
    """(B, C, R, F), as the codec analyzes audio."""

    spectrogram: Tensor

    def to(self, device: torch.device) -> "SpectrogramBatch":
        """Move to a device."""
        return SpectrogramBatch(self.spectrogram.to(device))


class CodecTraining(nn.Module):
    """The codec and, if there is one, its adversary: one forward gives the loss of both.

    The codec's adversarial term sees the discriminator's weights detached and the
    discriminator's term sees the decode detached, so one backward and one optimizer serve both.
    """

    def __init__(self, codec: SpectralCodec, losses: CodecLosses) -> None:
        super().__init__()
        self.codec = codec
        self.losses = losses
        channels = codec.spectrogram_channels
        self.discriminator = PatchDiscriminator(channels) if losses.adversarial > 0 else None
        if losses.decoder_alone:
            for name, part in codec.named_children():
                part.requires_grad_(name in codec.SOUND_PARTS)

    def forward(self, spectrogram: Tensor, step: int, seed: int) -> dict[str, Tensor]:
        """(B, C, R, F) -> the named loss terms, their weighted sum under "loss"."""
        losses, M = self.losses, self.codec.config.num_mels
        books = self.draw_books(len(spectrogram), seed).to(spectrogram.device)
        if losses.decoder_alone:
            output = self._decoded_codes(spectrogram, books)
        else:
            output = self.codec(spectrogram, books, quantise=step >= losses.quantise_from)
        levels, target = output.reconstruction, spectrogram[:, :, :M]
        terms = {
            "regression": spectrogram_loss(levels, target),
            "commitment": output.commitment,
        }
        weights = {"regression": 1.0, "commitment": losses.commitment}
        if losses.movement > 0:
            terms["movement"] = movement_loss(levels, target)
        if losses.energy > 0:
            terms["energy"] = energy_loss(levels, target)
        weights |= {"movement": losses.movement, "energy": losses.energy}
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        if self.discriminator is not None:
            joined = step >= losses.adversarial_from
            loss = loss + self._adversarial(levels, target, terms, joined)
        return {"loss": loss, **terms}

    def draw_books(self, rows: int, seed: int) -> Tensor:
        """(B,) how many books code each row."""
        most, focus = self.codec.num_codebooks, self.losses.focus_books
        draws = torch.rand(2, rows, generator=torch.Generator().manual_seed(seed))
        books = 1 + (draws[1] * most).long()
        if focus:
            share = self.losses.focus_share
            books = torch.where(draws[0] < (1 + share) / 2, most, books)
            books = torch.where(draws[0] < share, min(focus, most), books)
        return books

    def _decoded_codes(self, spectrogram: Tensor, books: Tensor) -> CodecOutput:
        """What the decoder makes of each row's codes, of its number of books."""
        codes = self.codec.encode_spectrogram(spectrogram)
        latents = self.codec.decode_latents(codes, books)
        return CodecOutput(self.codec.reconstruct(latents), latents.new_zeros(()))

    def _adversarial(
        self, reconstruction: Tensor, target: Tensor, terms: dict[str, Tensor], joined: bool
    ) -> Tensor:
        """The discriminator's loss, and once it has joined the codec's weighted one beside it."""
        assert self.discriminator is not None
        fake, real = self.codec.normalise(reconstruction), self.codec.normalise(target)
        terms["discriminator"] = discriminator_hinge(
            self.discriminator(real), self.discriminator(fake.detach())
        )
        if not joined:
            return terms["discriminator"]
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        terms["generator"] = generator_hinge(functional_call(self.discriminator, frozen, (fake,)))
        return terms["discriminator"] + self.losses.adversarial * terms["generator"]


class CodecRecipe:
    """The codec's part of the training loop (see ``training.Recipe``)."""

    def __init__(
        self,
        codec: SpectralCodec,
        losses: CodecLosses,
        data: SpectrogramData,
        training: TrainingConfig,
        augmentation: Augmentation | None = None,
    ) -> None:
        if losses.decoder_alone and training.start_from is None:
            raise ValueError("losses.decoder_alone needs training.start_from, a trained codec")
        self.model = CodecTraining(codec, losses)
        self.data = data
        self.seed = training.seed
        self.dataset = SpectrogramCrops(
            open_all(data.prepared, "train"),
            data.crop_frames,
            training.seed,
            stereo_bands := codec.config.stereo_bands,
            augmentation,
        )
        self.audio_s_per_item = data.crop_frames / FRAME_RATE
        self.held_out = validation_crops(data, 5.0, stereo_bands)

    def collate(self, items: list[Tensor]) -> SpectrogramBatch:
        """Stack crops."""
        return SpectrogramBatch(torch.stack(items))

    def before_step(self, model: nn.Module, batch: SpectrogramBatch, step: int) -> None:
        """Set the codebooks by k-means over many batches when quantisation begins."""
        assert isinstance(model, CodecTraining)
        codec = model.codec
        image_book = codec.image_book
        if step < model.losses.quantise_from:
            return
        if codec.quantizer.is_initialised and (image_book is None or image_book.is_set):
            return
        size = batch.spectrogram.shape[0]
        first = derive_seed(self.seed, "initialise") % 2**40
        crops = [
            self._crops(first + index * size, size, batch)
            for index in range(INITIALISATION_BATCHES)
        ]
        if not codec.quantizer.is_initialised:
            with torch.no_grad():
                latents = [codec.latents(crop).flatten(0, 1) for crop in crops]
            codec.quantizer.initialise(torch.cat(latents))
        if image_book is not None and not image_book.is_set:
            set_image_book(codec, torch.cat(crops))

    def _crops(self, first: int, count: int, like: SpectrogramBatch) -> Tensor:
        crops = [self.dataset[first + index] for index in range(count)]
        return torch.stack(crops).to(like.spectrogram.device)

    def loss(
        self, model: nn.Module, batch: SpectrogramBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward through the wrapped model."""
        seed = derive_seed(self.seed, "books", step) % 2**31
        terms = model(batch.spectrogram, step, seed)
        return terms.pop("loss"), terms

    def validate(self, model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        """Held-out error in nats, unquantised and by number of books; writes one decoded clip."""
        assert isinstance(model, CodecTraining)
        codec = model.codec
        device = next(codec.parameters()).device
        target = self.held_out.to(device)
        decoded = codec.reconstruct(codec.latents(target).float())
        levels = target[:, :, : codec.config.num_mels]
        figures = _errors("continuous", decoded, levels, codec)
        if codec.quantizer.is_initialised:
            codes = codec.encode_spectrogram(target)
            books = {1, min(2, codec.num_codebooks), min(4, codec.num_codebooks)}
            for count in sorted({*books, codec.num_codebooks}):
                decoded = codec.decode_spectrogram(codes[:, :count])
                figures |= _errors(f"books_{count}", decoded, target, codec)
            audio = codec.vocoder(decoded[:1])
            write_audio(folder / "decoded.wav", audio[0].cpu(), codec.sample_rate)
            audio = codec.vocoder(target[:1])
            write_audio(folder / "original.wav", audio[0].cpu(), codec.sample_rate)
        return figures

    def component(self, model: nn.Module) -> SpectralCodec:
        """The codec without its losses and discriminator."""
        assert isinstance(model, CodecTraining)
        return model.codec


def set_image_book(codec: SpectralCodec, crops: Tensor) -> None:
    """Set the image's codebook by k-means over (B, 1, M + 2 N, F) crops."""
    assert codec.image_book is not None
    M, P = codec.config.num_mels, codec.config.patch_frames
    levels = torch.nn.functional.avg_pool1d(crops[:, 0, :M], P)
    codec.image_book.initialise(crops[:, 0, M:, ::P], levels)


def _errors(name: str, decoded: Tensor, target: Tensor, codec: SpectralCodec) -> dict[str, float]:
    """Mean errors of levels (nats), power (dB), level differences (dB) and angles (rad)."""
    M, N = codec.config.num_mels, codec.config.stereo_bands
    error = (decoded - target).abs()
    kept, power = ((2 * levels[:, :, :M]).exp().sum() for levels in (decoded, target))
    figures = {name: float(error[:, :, :M].mean())}
    figures[f"{name}_level_db"] = float(10 * (kept / power).log10())
    if decoded.shape[2] > M:
        figures[f"{name}_difference_db"] = float(error[:, :, M : M + N].mean())
        figures[f"{name}_angle"] = float(error[:, :, M + N :].mean())
    return figures


def train_codec(
    model: SpectralCodec,
    losses: CodecLosses,
    data: SpectrogramData,
    training: TrainingConfig,
    resume: bool = False,
    augmentation: Augmentation | None = None,
) -> Path:
    """Train a codec from a prepared dataset and return the folder of the exported one."""
    return train(CodecRecipe(model, losses, data, training, augmentation), training, resume)


PARTS: dict[str, Any] = {
    "model": SpectralCodec,
    "losses": CodecLosses,
    "data": SpectrogramData,
    "training": TrainingConfig,
    "augmentation": Augmentation,
}
"""The sections of its configuration."""


def main(argv: list[str] | None = None) -> int:
    """Read the configuration, then train."""
    return run_script("train_codec.py", train_codec, PARTS, argv)


if __name__ == "__main__":
    sys.exit(main())
