"""Train the prior: ``accelerate launch pipelines/train_prior.py --config configs/prior/tiny.yaml``.

A batch passes data/tokens.py (stored codes), training/prior_data.py (clips and what conditions
them), inference/text.py (captions to token states), training/loop.py (order, devices, optimizer),
this file (``PriorTask.loss``), prior/loss.py and prior/model.py.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from codec.audio_file import write_audio
from codec.process_settings import kept_process_settings
from codec.seeds import generator
from pipelines.data.codecs import hash_module, load_codec, refuse_other_codec
from pipelines.data.midi_file import midi_bytes
from pipelines.data.notes.note_tokenizer import NoteTokenizer
from pipelines.errors import one_line_errors
from pipelines.inference.text import load_text_encoder
from pipelines.training.configuration import configure
from pipelines.training.loop import train
from pipelines.training.prior_data import (
    PriorData,
    TokenClip,
    TokenClips,
    check_tokens_fit,
    make_batch,
)
from pipelines.training.training_config import TrainingConfig
from prior.condition import Condition
from prior.frame_generator import FrameGenerator
from prior.loss import PriorBatch, fill_loss, prior_loss
from prior.model import Prior
from prior.sampling import Sampling

SAMPLE_FRAMES = 250


class PriorTask:
    """The prior's part of the training loop (see ``loop.TrainingTask``)."""

    def __init__(self, prior: Prior, data: PriorData, training: TrainingConfig) -> None:
        self.model = prior
        self.tokenizer, self.text_encoder = load_text_encoder(data.text_encoder)
        self.codec = load_codec(data.codec) if data.codec else None
        info, config = check_tokens_fit(data.tokens, prior), prior.config
        if self.codec is not None:
            refuse_other_codec(info.codec_hash, self.codec, f"the token cache {data.tokens[0]}")
        prior.register_to_config(_text_encoder_hash=hash_module(self.text_encoder))
        reads = config.num_codebooks, config.reads_plan
        form = bool(config.reads_form)
        if data.fill_share and not config.fills:
            raise ValueError("fill_share needs a prior with fills=true (model.fills)")
        self.fill_share, self.seed = data.fill_share, training.seed
        self.dataset = TokenClips(data, *reads, "train", training.seed, form)
        frames = self.dataset.crop_tokens
        self.audio_s_per_item = frames / info.frame_rate if info.frame_rate else 0.0
        held_out = TokenClips(data, *reads, "validation", training.seed, form)
        places: Any = held_out.rows.spread(data.validation_clips)
        clips = [
            held_out.clip(place, generator(training.seed, "validation", place), dropout=False)
            for place in places
        ]
        self.held_out = make_batch(clips, self.tokenizer, self.text_encoder)
        self.sample_caption = clips[0].caption

    def collate(self, items: list[TokenClip]) -> PriorBatch:
        """Encode captions, where data are loaded, and stack."""
        return make_batch(items, self.tokenizer, self.text_encoder)

    def before_step(self, average: Prior, batch: PriorBatch, step: int) -> None:
        """Change nothing."""

    def loss(
        self, model: nn.Module, batch: PriorBatch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the nats per code of the (wrapped) prior, and those of each codebook."""
        first_known = self.draw_fill(step, batch.codes.shape[-1])
        result = fill_loss(model, batch, first_known) if first_known else prior_loss(model, batch)
        return result.loss, {f"nats_book_{k}": nats for k, nats in enumerate(result.nats_per_book)}

    def draw_fill(self, step: int, num_frames: int) -> int:
        """Draw from which frame on a step's clips are known; 0 for a step that fills nothing.

        A step has one place for all its clips, the same in all processes.
        """
        share, place = torch.rand(2, generator=generator(self.seed, "fill", step)).tolist()
        if share >= self.fill_share or num_frames < 2:
            return 0
        return 1 + int(place * (num_frames - 1))

    def validate(self, model: Prior, folder: Path) -> dict[str, float]:
        """Measure held-out nats per codebook and what text and plan are worth; write a sample."""
        batch: PriorBatch = send_to_device(self.held_out, next(model.parameters()).device)
        condition = batch.condition
        # every clip with another clip's caption: the difference is what the text is worth
        others = condition.text_states.roll(-1, 0), condition.text_mask.roll(-1, 0)
        changed = {"loss_wrong_text": Condition(*others, condition.plan)}
        if condition.plan is not None:
            changed["loss_no_plan"] = replace(condition, plan=None)
        result = prior_loss(model, batch)
        figures: dict[str, Tensor] = {"loss": result.loss}
        figures |= {f"nats_book_{k}": nats for k, nats in enumerate(result.nats_per_book)}
        if self.fill_share:
            half = batch.codes.shape[-1] // 2
            figures["loss_fill"] = fill_loss(model, batch, half).loss
        for name, other in changed.items():
            figures[name] = prior_loss(model, batch._replace(condition=other)).loss
        if self.codec is not None:
            self._write_sample(model, condition.row(0), folder)
        return {name: float(value) for name, value in figures.items()}

    def _write_sample(self, model: Prior, text: Condition, folder: Path) -> None:
        assert self.codec is not None
        frames = FrameGenerator(model, text, None, SAMPLE_FRAMES, Sampling(), seeds=[0])
        codes = torch.stack([frame.codes for frame in frames], dim=-1).cpu()
        sample: Any = self.codec.decode(codes)[0]
        if isinstance(self.codec, NoteTokenizer):
            (folder / "sample.mid").write_bytes(midi_bytes(sample))
        else:
            write_audio(folder / "sample.wav", sample, self.codec.sample_rate)
        (folder / "sample.txt").write_text(self.sample_caption + "\n")

    def component(self, model: Prior) -> Prior:
        """Return the prior: all that is trained."""
        return model


@kept_process_settings()  # what loads the text encoder adds warning filters
def train_prior(
    model: Prior, data: PriorData, training: TrainingConfig, resume: bool = False
) -> Path:
    """Train a prior from cached tokens and return the folder of the exported one."""
    return train(PriorTask(model, data, training), training, resume)


PARTS: dict[str, Any] = {"model": Prior, "data": PriorData, "training": TrainingConfig}
"""The sections of the configuration."""


def main(argv: list[str] | None = None) -> int:
    """Read the configuration, then train.

    Raises:
        ValueError: a mistake in the configuration or the data.
    """
    train_prior(**configure("train_prior.py", PARTS, argv))
    return 0


if __name__ == "__main__":
    with one_line_errors("train_prior.py"):
        main()
