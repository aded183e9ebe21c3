"""Train the decoder: ``accelerate launch pipelines/train_decoder.py --config ...``.

A batch passes data/prepared.py and data/tokens.py (stored spectrograms and codes),
training/decoder_data.py (crops), training/loop.py (order, devices, optimizer), this file
(``DecoderTask.loss``), decoder/painting.py (coarse spectrogram or codes of a frozen codec),
decoder/diffusion_decoder.py and decoder/flow.py.
"""

from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import default_collate

from codec.audio_file import write_audio
from codec.recognizer import feature_score, load_recognizer
from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.flow import Predict, energy_score, flow_loss, one_step_samples, uniform_angle
from decoder.painting import choose_conditioning
from decoder.sampler import FlowSampler, euler_scheduler
from pipelines.data.clip_levels import FRAME_RATE, FRAMES_PER_TOKEN, NUM_MELS, check_analysis
from pipelines.data.codecs import load_codec, refuse_other_codec
from pipelines.data.shards import evenly_spaced
from pipelines.errors import one_line_errors
from pipelines.training.configuration import configure
from pipelines.training.decoder_data import (
    DecoderBatch,
    DecoderCrops,
    DecoderData,
    check_origins,
)
from pipelines.training.loop import train
from pipelines.training.training_config import TrainingConfig


class DecoderTask:
    """The decoder's part of the training loop (see ``loop.TrainingTask``)."""

    def __init__(
        self, decoder: DiffusionDecoder, data: DecoderData, training: TrainingConfig
    ) -> None:
        self.model = decoder
        self.codec = cast(Any, load_codec(data.codec))
        conditioning = choose_conditioning(self.codec, decoder)
        if decoder.config.codebook_size == 0:
            check_analysis(self.codec.config)
        if isinstance(self.codec, nn.Module):
            self.codec.requires_grad_(False)
        info = check_origins(data)
        refuse_other_codec(info.codec_hash, self.codec, f"the token cache {data.tokens[0]}")
        decoder.register_to_config(_codec_hash=info.codec_hash)
        self.dataset = DecoderCrops(data, "train", training.seed, conditioning)
        self.audio_s_per_item = data.crop_patches * FRAMES_PER_TOKEN / FRAME_RATE
        held_out = DecoderCrops(data, "validation", training.seed, conditioning)
        self.held_out = self.collate(
            [
                held_out.item(row, 0, generator(training.seed, "validation", row))
                for row in evenly_spaced(held_out.rows, data.validation_clips)
            ]
        )
        self.focus_books, self.one_step_share = data.focus_books, data.one_step_share
        self.recognizer = load_recognizer(data.recognizer, data.features)
        self.features = data.features

    def collate(self, items: list[DecoderBatch]) -> DecoderBatch:
        """Stack items."""
        return default_collate(items)

    def before_step(self, average: DiffusionDecoder, batch: DecoderBatch, step: int) -> None:
        """Move what is frozen to the device that the model lives on, where the loss needs it."""
        if isinstance(self.codec, SpectralCodec):
            self.codec.to(batch.codes.device)
        if self.recognizer is not None:
            self.recognizer.to(batch.codes.device)

    def loss(
        self, model: nn.Module, batch: DecoderBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the flow-matching loss, in units of the detail's deviation.

        The frozen codec makes the coarse spectrogram that the decoder starts from, if any. The last
        ``one_step_share`` of the rows train the solver's single step instead.
        """
        conditioning, books = choose_conditioning(self.codec, self.model), batch.num_books
        with torch.no_grad():
            given = conditioning.read(batch.codes, batch.positions, books)
        levels = conditioning.normalize(batch.spectrogram[:, :, :NUM_MELS])
        detail = levels if given.coarse is None else levels - given.coarse
        detail = detail / self.model.config.detail_std

        def predict(rows: slice) -> Predict:
            read = given.coarse, given.latents, books, given.positions
            chosen = [None if of_rows is None else of_rows[rows] for of_rows in read]
            return lambda point, angle: model(point, angle, *chosen)

        rows = len(detail)
        split = rows - round(self.one_step_share * rows)
        losses = {}
        if split:
            flow = slice(0, split)
            angle = uniform_angle(batch.time[flow])
            losses["flow"] = flow_loss(predict(flow), batch.noise[flow], detail[flow], angle)
        weights = {"flow": split / rows, "one_step": 1 - split / rows}
        if split < rows:
            once, turns = slice(split, rows), self.model.config.turns
            samples = one_step_samples(
                predict(once), batch.noise[once], batch.other_noise[once], turns
            )
            losses["one_step"] = energy_score(*samples, detail[once])
            if self.recognizer is not None:
                coarse = 0.0 if given.coarse is None else given.coarse[once]
                painted = [
                    conditioning.denormalize(coarse + self.model.config.detail_std * sample)
                    for sample in (*samples, detail[once])
                ]
                losses["features"] = feature_score(self.recognizer, *painted)
                weights["features"] = weights["one_step"] * self.features
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return loss, {name: value.detach() for name, value in losses.items()}

    def validate(self, model: DiffusionDecoder, folder: Path) -> dict[str, float]:
        """Measure the loss, and error and movement of both decodes of ``focus_books`` codebooks."""
        batch = send_to_device(self.held_out, next(model.parameters()).device)
        self.before_step(model, batch, 0)
        figures = {"loss": float(self.loss(model, batch, 0)[0])}
        codes = batch.codes[:, : self.focus_books]
        sampler = FlowSampler(self.codec, model, euler_scheduler())
        decodes = {"fine": sampler.decode_spectrogram(codes, list(range(len(codes))))}
        if isinstance(self.codec, SpectralCodec):
            decodes["coarse"] = self.codec.decode_spectrogram(codes)
        target = batch.spectrogram[:, :, :NUM_MELS]
        for name, decoded in decodes.items():
            levels = decoded[:, :, :NUM_MELS, : target.shape[-1]]
            figures[f"{name}_error"] = float((levels - target).abs().mean())
            figures[f"{name}_movement"] = _movement(levels) / _movement(target)
            audio = sampler.vocoder(decoded[:1])
            write_audio(folder / f"{name}.wav", audio[0].cpu(), sampler.vocoder.log_mel.sample_rate)
        return figures

    def component(self, model: DiffusionDecoder) -> DiffusionDecoder:
        """Return the decoder: all that is trained."""
        return model


def _movement(spectrogram: Tensor) -> float:
    """Compute the mean absolute change from frame to frame (nats)."""
    return float(spectrogram.diff(dim=-1).abs().mean())


def train_decoder(
    model: DiffusionDecoder, data: DecoderData, training: TrainingConfig, resume: bool = False
) -> Path:
    """Train a decoder from cached spectrograms and tokens; return the exported one's folder."""
    return train(DecoderTask(model, data, training), training, resume)


PARTS: dict[str, Any] = {
    "model": DiffusionDecoder,
    "data": DecoderData,
    "training": TrainingConfig,
}
"""The sections of the configuration."""


def main(argv: list[str] | None = None) -> int:
    """Read the configuration, then train.

    Raises:
        ValueError: a mistake in the configuration or the data.
    """
    train_decoder(**configure("train_decoder.py", PARTS, argv))
    return 0


if __name__ == "__main__":
    with one_line_errors("train_decoder.py"):
        main()
