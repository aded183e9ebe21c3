"""Train the codec: ``accelerate launch pipelines/train_codec.py --config configs/codec/tiny.yaml``.

A batch passes data/prepared.py (stored spectrograms), training/codec_data.py (crops),
training/loop.py (order, devices, optimizer), this file (``CodecTraining.forward``),
codec/spectral_codec.py, codec/quantizer.py and codec/losses.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from codec.audio_file import write_audio
from codec.discriminator import PatchDiscriminator
from codec.losses import (
    band_weights,
    discriminator_hinge,
    energy_loss,
    generator_hinge,
    movement_loss,
    spectrogram_loss,
    sustained_loss,
)
from codec.recognizer import feature_loss, load_recognizer
from codec.seeds import derive_seed
from codec.spectral_codec import CodecOutput, SpectralCodec
from pipelines.data.clip_levels import FRAME_RATE, check_analysis
from pipelines.errors import one_line_errors
from pipelines.training.augmentation import Augmentation
from pipelines.training.codec_data import (
    SpectrogramCrops,
    SpectrogramData,
    open_all,
    validation_crops,
)
from pipelines.training.configuration import configure
from pipelines.training.loop import train
from pipelines.training.training_config import TrainingConfig

INITIALIZATION_BATCHES = 16


@dataclass(frozen=True)
class CodecLosses:
    """Weights of the codec's losses.

    Args:
        movement: of the frame-to-frame term beside the regression's 1.
        energy: of the power in tiles beside the regression's 1.
        sustained: of loud bands' averages over 8 and 32 frames beside the regression's 1.
        features: of the distance in the layers of ``recognizer`` beside the regression's 1.
        recognizer: folder of a recognizer of music (partita train recognizer).
        low: of bands below 800 Hz, within regression and sustained; other bands weigh 1.
        commitment: of the quantizer's commitment term.
        adversarial: of the patch discriminator; 0 trains none.
        adversarial_from: step at which the codec begins to listen to the discriminator, which
            learns from the start.
        quantize_from: step at which the codebooks are set by k-means and join.
        focus_books: number of books that training favors, 0 for none.
        focus_share: of the rows, those coded by ``focus_books``; half of the others are coded by
            all books and half by any number of them.
        decoder_alone: train nothing but the decoder of the codec that ``training.start_from``
            names, on 1 to K of its books: tokens, and what was trained on them, stay valid.
    """

    movement: float = 0.0
    energy: float = 0.0
    sustained: float = 0.0
    features: float = 0.0
    recognizer: str | None = None
    low: float = 1.0
    commitment: float = 0.25
    adversarial: float = 0.0
    adversarial_from: int = 2000
    quantize_from: int = 500
    focus_books: int = 0
    focus_share: float = 0.0
    decoder_alone: bool = False


class CodecTraining(nn.Module):
    """The codec and, if there is one, its adversary: one forward gives the loss of both.

    The codec's adversarial term sees the discriminator's weights detached and the
    discriminator's term sees the decode detached, so one backward and one optimizer serve both.
    """

    band_weights: Tensor

    def __init__(self, codec: SpectralCodec, losses: CodecLosses) -> None:
        super().__init__()
        weights = band_weights(codec.log_mel.frequencies, losses.low)
        self.register_buffer("band_weights", weights, persistent=False)
        self.codec = codec
        self.losses = losses
        channels = codec.spectrogram_channels
        self.discriminator = PatchDiscriminator(channels) if losses.adversarial > 0 else None
        self.recognizer = load_recognizer(losses.recognizer, losses.features)
        if losses.decoder_alone:
            for name, part in codec.named_children():
                part.requires_grad_(name in codec.SOUND_PARTS)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the recognizer, which only listens."""
        super().train(mode)
        if self.recognizer is not None:
            self.recognizer.eval()
        return self

    def forward(self, spectrogram: Tensor, step: int, seed: int) -> dict[str, Tensor]:
        """Compute from (B, C, R, F) the named loss terms, their weighted sum under "loss"."""
        losses, M = self.losses, self.codec.config.num_mels
        books = self.draw_books(len(spectrogram), seed).to(spectrogram.device)
        if losses.decoder_alone:
            output = self._decoded_codes(spectrogram, books)
        else:
            output = self.codec(spectrogram, books, quantize=step >= losses.quantize_from)
        levels, target = output.reconstruction, spectrogram[:, :, :M]
        terms = {
            "regression": spectrogram_loss(levels, target, self.band_weights),
            "commitment": output.commitment,
        }
        weights = {"regression": 1.0, "commitment": losses.commitment}
        if losses.movement > 0:
            terms["movement"] = movement_loss(levels, target)
        if losses.energy > 0:
            terms["energy"] = energy_loss(levels, target)
        if losses.sustained > 0:
            terms["sustained"] = sustained_loss(levels, target, self.band_weights)
        if self.recognizer is not None:
            terms["features"] = feature_loss(self.recognizer, levels, target)
        named = ("movement", "energy", "sustained", "features")
        weights |= {name: getattr(losses, name) for name in named}
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        if self.discriminator is not None:
            joined = step >= losses.adversarial_from
            loss = loss + self._adversarial(levels, target, terms, joined)
        return {"loss": loss, **terms}

    def draw_books(self, rows: int, seed: int) -> Tensor:
        """Draw how many books code each row, (B,): as one process would for all rows of a step."""
        most, focus = self.codec.num_codebooks, self.losses.focus_books
        rank, world = process_place()
        draws = torch.rand(2, rows * world, generator=torch.Generator().manual_seed(seed))
        draws = draws[:, rank * rows : (rank + 1) * rows]
        books = 1 + (draws[1] * most).long()
        if focus:
            share = self.losses.focus_share
            books = torch.where(draws[0] < (1 + share) / 2, most, books)
            books = torch.where(draws[0] < share, min(focus, most), books)
        return books

    def _decoded_codes(self, spectrogram: Tensor, books: Tensor) -> CodecOutput:
        """Decode each row's codes from its own number of books."""
        codes = self.codec.encode_spectrogram(spectrogram)
        latents = self.codec.decode_latents(codes, books)
        return CodecOutput(self.codec.reconstruct(latents), latents.new_zeros(()))

    def _adversarial(
        self, reconstruction: Tensor, target: Tensor, terms: dict[str, Tensor], joined: bool
    ) -> Tensor:
        """Compute the discriminator's loss and, once it has joined, the codec's weighted one."""
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
        augmentation: Augmentation | None = None,
    ) -> None:
        if losses.decoder_alone and training.start_from is None:
            raise ValueError("losses.decoder_alone needs training.start_from, a trained codec")
        check_analysis(codec.config)
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

    def collate(self, items: list[Tensor]) -> Tensor:
        """Stack crops to (B, C, M, F)."""
        return torch.stack(items)

    def before_step(self, average: CodecTraining, batch: Tensor, step: int) -> None:
        """Set the codebooks by k-means over many batches when quantization begins."""
        codec = self.model.codec
        if step < self.model.losses.quantize_from:
            return
        images_set = all(bool(book.is_set) for book in codec.image_books)
        if codec.quantizer.is_initialized and images_set:
            return
        first = derive_seed(self.seed, "initialize") % 2**40
        _, world = process_place()
        items = range(first, first + INITIALIZATION_BATCHES * len(batch) * world)
        crops = torch.stack([self.dataset[item] for item in items]).to(batch.device)
        if not codec.quantizer.is_initialized:
            with torch.no_grad():
                latents = [codec.latents(part).flatten(0, 1) for part in crops.split(len(batch))]
            codec.quantizer.initialize(torch.cat(latents))
        if not images_set:
            set_image_books(codec, crops)
        # the average must not begin with codebooks of zeros
        average.codec.quantizer.load_state_dict(codec.quantizer.state_dict())
        for averaged, book in zip(average.codec.image_books, codec.image_books, strict=True):
            averaged.load_state_dict(book.state_dict())

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
        decoded = codec.reconstruct(codec.latents(target).float())
        levels = target[:, :, : codec.config.num_mels]
        figures = _errors("continuous", decoded, levels, codec)
        if codec.quantizer.is_initialized:
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

    def component(self, model: CodecTraining) -> SpectralCodec:
        """Return the codec without its losses and discriminator."""
        return model.codec


def process_place() -> tuple[int, int]:
    """Return the number of this process, and how many train together."""
    group = torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if group else (0, 1)


def set_image_books(codec: SpectralCodec, crops: Tensor) -> None:
    """Set the image's codebooks that are not set by k-means over (B, 1, M + 2 N, F) crops."""
    M, P = codec.config.num_mels, codec.config.patch_frames
    levels, image = torch.nn.functional.avg_pool1d(crops[:, 0, :M], P), crops[:, 0, M:, ::P]
    for book in codec.image_books:
        if not book.is_set:
            book.initialize(image, levels)
        image = image - book.decode(book.encode(image, levels))


def _errors(name: str, decoded: Tensor, target: Tensor, codec: SpectralCodec) -> dict[str, float]:
    """Average the errors of levels (nats), power and level difference (dB), angles (rad)."""
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
    return train(CodecTask(model, losses, data, training, augmentation), training, resume)


PARTS: dict[str, Any] = {
    "model": SpectralCodec,
    "losses": CodecLosses,
    "data": SpectrogramData,
    "training": TrainingConfig,
    "augmentation": Augmentation,
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
