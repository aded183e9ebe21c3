"""Train the prior: ``accelerate launch pipelines/train_prior.py --config configs/prior/tiny.yaml``.

A batch goes from ``prior_data.TokenClips`` through ``PriorRecipe.loss`` (captions to token
states, then ``prior.loss.prior_loss``) to ``training.train``.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codec.audio_file import write_audio
from codec.seeds import generator
from pipelines.data.notes.midi_file import midi_bytes
from pipelines.data.notes.note_codec import NoteCodec
from pipelines.data.tokens import load_codec
from pipelines.inference.text import encode_text, load_text_encoder
from pipelines.training.codec_data import evenly_spaced
from pipelines.training.configuration import run_script
from pipelines.training.loop import TrainingConfig, train
from pipelines.training.prior_data import PriorData, TokenBatch, TokenClips
from prior.generate import generate
from prior.loss import PriorBatch, PriorLoss, prior_loss
from prior.model import Prior
from prior.sampling import Sampling

SAMPLE_FRAMES = 250


class PriorRecipe:
    """The prior's part of the training loop (see ``training.Recipe``)."""

    def __init__(self, prior: Prior, data: PriorData, training: TrainingConfig) -> None:
        self.model = prior
        self.tokenizer, self.text_encoder = load_text_encoder(data.text_encoder)
        self.codec = load_codec(data.codec) if data.codec else None
        books = prior.config.num_codebooks
        plans = prior.config.reads_plan
        self.dataset = TokenClips(data, books, plans, "train", training.seed)
        frame_rate = prior.config.frame_rate
        self.audio_s_per_item = data.crop_tokens / frame_rate if frame_rate else 0.0
        held_out = TokenClips(data, books, plans, "validation", training.seed)
        self.held_out = [
            held_out.clip(row, generator(training.seed, "validation", row))
            for row in evenly_spaced(held_out.rows, data.validation_clips)
        ]

    def collate(self, items: list[TokenBatch]) -> TokenBatch:
        """Stack items."""
        return TokenBatch.stack(items)

    def before_step(self, model: nn.Module, batch: TokenBatch, step: int) -> None:
        """Move the frozen text encoder to the device that the model lives on."""
        self.text_encoder.to(batch.codes.device)

    def loss(
        self, model: nn.Module, batch: TokenBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Nats per code of the (wrapped) prior."""
        result = self.nats(model, batch)
        return result.loss, _by_book(result)

    def nats(self, model: nn.Module, batch: TokenBatch) -> PriorLoss:
        """Encode the captions, then the prior's loss."""
        text = encode_text(self.tokenizer, self.text_encoder, batch.captions)
        return prior_loss(
            model,
            PriorBatch(
                codes=batch.codes,
                frame_mask=batch.frame_mask,
                ends=batch.ends,
                condition=replace(text, plan=batch.plan),
                depth_frames=batch.depth_frames,
            ),
        )

    def validate(self, model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        """Held-out nats per book, what text buys, and one sample."""
        assert isinstance(model, Prior)
        device = next(model.parameters()).device
        self.text_encoder.to(device)
        batch = TokenBatch.stack(self.held_out).to(device)
        result = self.nats(model, batch)
        # every clip with another clip's caption: the difference is what the text tells
        others = batch.captions[1:] + batch.captions[:1]
        shuffled = self.nats(model, replace(batch, captions=others))
        figures = {"loss": float(result.loss)}
        figures |= {name: float(value) for name, value in _by_book(result).items()}
        figures["loss_wrong_text"] = float(shuffled.loss)
        if batch.plan is not None:
            figures["loss_no_plan"] = float(self.nats(model, replace(batch, plan=None)).loss)
        if self.codec is not None:
            self._write_sample(model, batch.captions[0], folder)
        return figures

    def _write_sample(self, model: Prior, caption: str, folder: Path) -> None:
        assert self.codec is not None
        text = encode_text(self.tokenizer, self.text_encoder, [caption])
        frames = generate(model, text, None, SAMPLE_FRAMES, Sampling(), seeds=[0])
        codes = torch.stack([frame.codes for frame in frames], dim=-1).cpu()
        sample: Any = self.codec.decode(codes)[0]
        if isinstance(self.codec, NoteCodec):
            (folder / "sample.mid").write_bytes(midi_bytes(sample))
        else:
            write_audio(folder / "sample.wav", sample, self.codec.sample_rate)
        (folder / "sample.txt").write_text(caption + "\n")

    def component(self, model: nn.Module) -> Prior:
        """The prior: all that is trained."""
        assert isinstance(model, Prior)
        return model


def _by_book(result: PriorLoss) -> dict[str, Tensor]:
    return {f"nats_book_{index}": nats for index, nats in enumerate(result.nats_per_book)}


def train_prior(
    model: Prior, data: PriorData, training: TrainingConfig, resume: bool = False
) -> Path:
    """Train a prior from cached tokens and return the folder of the exported one."""
    return train(PriorRecipe(model, data, training), training, resume)


PARTS: dict[str, Any] = {"model": Prior, "data": PriorData, "training": TrainingConfig}
"""The sections of its configuration."""


def main(argv: list[str] | None = None) -> int:
    """Read the configuration, then train."""
    return run_script("train_prior.py", train_prior, PARTS, argv)


if __name__ == "__main__":
    sys.exit(main())
