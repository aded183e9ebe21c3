"""Train the codec: ``accelerate launch pipelines/train_codec.py --config configs/codec/tiny.yaml``.

A batch passes data/prepared.py (stored spectrograms), training/codec_data.py (crops),
training/loop.py (order, devices, optimizer), this file (``CodecTraining.forward``),
codec/spectral_codec.py, codec/quantizer.py and codec/losses.py.
"""

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
from pipelines.data.prepared import FRAME_RATE
from pipelines.errors import one_line_errors
from pipelines.training.codec_data import (
    SpectrogramCrops,
    SpectrogramData,
    open_all,
    validation_crops,
)
from pipelines.training.configuration import configure
from pipelines.training.loop import TrainingConfig, train

INITIALIZATION_BATCHES = 16


@dataclass(frozen=True)
class CodecLosses:
    """Weights of the codec's losses.

    Args:
        movement: of the frame-to-frame term beside the regression's 1.
        energy: of the power in tiles beside the regression's 1.
        commitment: of the quantizer's commitment term.
        adversarial: of the patch discriminator; 0 trains none.
        adversarial_from: step at which the codec begins to listen to the discriminator, which
            learns from the start.
        quantize_from: step at which the codebooks are set by k-means and join.
        decoder_alone: train nothing but the decoder of the codec that ``training.start_from``
            names, on 1 to K of its books: tokens, and what was trained on them, stay valid.
    """

    movement: float = 0.0
    energy: float = 0.0
    commitment: float = 0.25
    adversarial: float = 0.0
    adversarial_from: int = 2000
    quantize_from: int = 500
    decoder_alone: bool = False


class CodecTraining(nn.Module):
    """The codec and, if there is one, its adversary: one forward gives the loss of both.

    The codec's adversarial term sees the discriminator's weights detached and the
    discriminator's term sees the decode detached, so one backward and one optimizer serve both.
    """

    def __init__(self, codec: SpectralCodec, losses: CodecLosses) -> None:
        super().__init__()
        self.codec = codec
        self.losses = losses
        self.discriminator = PatchDiscriminator(codec.channels) if losses.adversarial > 0 else None
        if losses.decoder_alone:
            for name, part in codec.named_children():
                part.requires_grad_(name in codec.SOUND_PARTS)

    def forward(self, spectrogram: Tensor, step: int, seed: int) -> dict[str, Tensor]:
        """(B, C, M, F) log-mel -> the named loss terms, their weighted sum under "loss"."""
        if self.losses.decoder_alone:
            output = self._decoded_codes(spectrogram, seed)
        else:
            output = self.codec(spectrogram, seed, quantize=step >= self.losses.quantize_from)
        regression = spectrogram_loss(output.reconstruction, spectrogram)
        terms = {"regression": regression, "commitment": output.commitment}
        loss = regression + self.losses.commitment * output.commitment
        if self.losses.movement > 0:
            terms["movement"] = movement_loss(output.reconstruction, spectrogram)
            loss = loss + self.losses.movement * terms["movement"]
        if self.losses.energy > 0:
            terms["energy"] = energy_loss(output.reconstruction, spectrogram)
            loss = loss + self.losses.energy * terms["energy"]
        if self.discriminator is not None:
            joined = step >= self.losses.adversarial_from
            loss = loss + self._adversarial(output.reconstruction, spectrogram, terms, joined)
        return {"loss": loss, **terms}

    def _decoded_codes(self, spectrogram: Tensor, seed: int) -> CodecOutput:
        """What the decoder makes of each row's codes, of 1 to K books."""
        codes = self.codec.encode_spectrogram(spectrogram)
        rng = torch.Generator().manual_seed(seed)
        books = torch.randint(1, codes.shape[1] + 1, codes.shape[:1], generator=rng)
        latents = self.codec.quantizer.decode(codes, books.to(codes.device))
        return CodecOutput(self.codec.reconstruct(latents), latents.new_zeros(()))

    def _adversarial(
        self, reconstruction: Tensor, target: Tensor, terms: dict[str, Tensor], joined: bool
    ) -> Tensor:
        """The discriminator's loss, and once it has joined the codec's weighted one beside it."""
        assert self.discriminator is not None
        fake, real = self.codec.normalize(reconstruction), self.codec.normalize(target)
        terms["discriminator"] = discriminator_hinge(
            self.discriminator(real), self.discriminator(fake.detach())
        )
        if not joined:
            return terms["discriminator"]
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        terms["generator"] = generator_hinge(functional_call(self.discriminator, frozen, (fake,)))
        return terms["discriminator"] + self.losses.adversarial * terms["generator"]


class CodecTask:
    """The codec's part of the training loop (see ``loop.TrainingTask``)."""

    def __init__(
        self,
        codec: SpectralCodec,
        losses: CodecLosses,
        data: SpectrogramData,
        training: TrainingConfig,
    ) -> None:
        if losses.decoder_alone and training.start_from is None:
            raise ValueError("losses.decoder_alone needs training.start_from, a trained codec")
        self.model = CodecTraining(codec, losses)
        self.data = data
        self.seed = training.seed
        self.dataset = SpectrogramCrops(
            open_all(data.prepared, "train"), data.crop_frames, training.seed
        )
        self.audio_s_per_item = data.crop_frames / FRAME_RATE
        self.held_out = validation_crops(data, seconds=5.0)

    def collate(self, items: list[Tensor]) -> Tensor:
        """Stack crops to (B, C, M, F)."""
        return torch.stack(items)

    def before_step(self, average: CodecTraining, batch: Tensor, step: int) -> None:
        """Set the codebooks by k-means over many batches when quantization begins."""
        codec = self.model.codec
        if step < self.model.losses.quantize_from or codec.quantizer.is_initialized:
            return
        first = derive_seed(self.seed, "initialize") % 2**40
        latents = []
        with torch.no_grad():
            for start in range(first, first + INITIALIZATION_BATCHES * len(batch), len(batch)):
                crops = [self.dataset[item] for item in range(start, start + len(batch))]
                latents.append(codec.latents(torch.stack(crops).to(batch.device)).flatten(0, 1))
        codec.quantizer.initialize(torch.cat(latents))
        # the average must not begin with codebooks of zeros
        average.codec.quantizer.load_state_dict(codec.quantizer.state_dict())

    def loss(self, model: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the wrapped model's loss terms."""
        seed = derive_seed(self.seed, "books", step) % 2**31
        terms = model(batch, step, seed)
        return terms.pop("loss"), terms

    def validate(self, model: CodecTraining, folder: Path) -> dict[str, float]:
        """Measure the error in nats, unquantized and by number of codebooks; write one clip."""
        codec = model.codec
        device = next(codec.parameters()).device
        target = self.held_out.to(device)
        figures = {"continuous": _error(codec.reconstruct(codec.latents(target).float()), target)}
        if codec.quantizer.is_initialized:
            codes = codec.encode_spectrogram(target)
            for books in sorted({1, min(2, codec.num_codebooks), codec.num_codebooks}):
                decoded = codec.decode_spectrogram(codes[:, :books])
                figures[f"books_{books}"] = _error(decoded, target)
            audio = codec.vocoder(decoded[:1])
            write_audio(folder / "decoded.wav", audio[0].cpu(), codec.sample_rate)
            audio = codec.vocoder(target[:1])
            write_audio(folder / "original.wav", audio[0].cpu(), codec.sample_rate)
        return figures

    def component(self, model: CodecTraining) -> SpectralCodec:
        """Return the codec without its losses and discriminator."""
        return model.codec


def _error(decoded: Tensor, target: Tensor) -> float:
    return float((decoded - target).abs().mean())


def train_codec(
    model: SpectralCodec,
    losses: CodecLosses,
    data: SpectrogramData,
    training: TrainingConfig,
    resume: bool = False,
) -> Path:
    """Train a codec from a prepared dataset and return the folder of the exported one."""
    return train(CodecTask(model, losses, data, training), training, resume)


PARTS: dict[str, Any] = {
    "model": SpectralCodec,
    "losses": CodecLosses,
    "data": SpectrogramData,
    "training": TrainingConfig,
}
"""The sections of the configuration."""


def main(argv: list[str] | None = None) -> int:
    """Read the configuration, then train.

    Raises:
        ValueError: a mistake in the configuration or the data.
    """
    train_codec(**configure("train_codec.py", PARTS, argv))
    return 0


if __name__ == "__main__":
    with one_line_errors("train_codec.py"):
        main()
