"""From a folder of music to a LoRA adapter, with figures before and after."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoder.diffusion_decoder import DiffusionDecoder
from pipelines.data.codecs import load_codec
from pipelines.data.markdown import table
from pipelines.data.recordings.preparation import prepare_tracks
from pipelines.data.recordings.prepare_config import PrepareConfig
from pipelines.data.recordings.track_metadata import read_metadata
from pipelines.data.recordings.tracks import Track, TrackList
from pipelines.data.token_cache import build_token_cache
from pipelines.finetuning.album import CAPTIONS_NAME, describe_album
from pipelines.finetuning.before_after import describe_figures
from pipelines.inference.components import read_index
from pipelines.inference.lora import FILE_NAME, METADATA_KEY, LoraLoading
from pipelines.inference.safetensors_file import read_safetensors
from pipelines.inference.text import encode_text
from pipelines.train_decoder import DecoderTask
from pipelines.train_prior import PriorTask
from pipelines.training.decoder_data import DecoderData
from pipelines.training.loop import train
from pipelines.training.lora_task import LoraConfig, LoraTask
from pipelines.training.prior_data import PriorData
from pipelines.training.training_config import TrainingConfig
from prior.model import Prior


@dataclass(frozen=True)
class FinetuneConfig:
    """What is trained on, and for how long."""

    album: Path  # folder, archive, ``metadata.jsonl`` or list of audio files
    output: Path  # folder of captions, data, runs and the adapter
    pipeline: Path  # folder of the saved pipeline that is adapted
    # words that captions made here begin with; None for the name of ``output``
    style: str | None = None
    steps: int = 600  # of training, for each part
    batch_size: int = 8  # clips per step
    crop_s: float = 10.0  # length of a clip (s)
    learning_rate: float = 1e-3  # peak
    rank: int = 16  # of the adapter
    decoder: bool = False  # whether the decoder gets an adapter too
    seed: int = 0  # of everything random
    workers: int = 1  # processes that read the album
    quiet: bool = False  # no progress bars of the preparation

    def __post_init__(self) -> None:
        if not self.pipeline.is_dir():
            raise ValueError(f"pipeline must be the folder of a saved one, got {self.pipeline}")
        index = read_index(self.pipeline)
        if self.decoder and (index.get("decoder") or [None])[0] is None:
            raise ValueError(f"decoder=true, and {self.pipeline} has no decoder")

    @property
    def captions(self) -> Path:
        """The file of captions, to be read and edited."""
        return self.output / CAPTIONS_NAME

    @property
    def tokens(self) -> Path:
        """The folder of the album's tokens."""
        return self.output / "data" / "tokens"

    def write_captions(self) -> list[Any]:
        """Describe the album's tracks in ``captions``; what it says already stays."""
        style = self.style or self.output.resolve().name.replace("-", " ").replace("_", " ")
        return describe_album(self.album, style, self.captions)


def finetune(config: FinetuneConfig, resume: bool = False) -> Path:
    """Prepare an album, train an adapter and write it; return its folder, ``output``.

    With ``resume`` it goes on where an earlier call with equal settings was stopped.

    Raises:
        ValueError: the album is too small, a track cannot be read, or ``output`` holds something
            made with other settings.
    """
    tracks = config.write_captions()
    prepared = config.output / "data" / "prepared"
    codec_folder = config.pipeline / "codec"
    codec = load_codec(codec_folder)
    settings = PrepareConfig(
        str(config.album),
        str(prepared),
        audio="none" if hasattr(codec, "encode_spectrogram") else "keep",
        workers=config.workers,
        quiet=config.quiet,
    )
    prepare_tracks(TrackList(tracks), settings)
    build_token_cache(prepared, codec, config.tokens, quiet=config.quiet)
    trained = [train(adapt_prior(config), training_config(config, "prior"), resume)]
    if config.decoder:
        task = adapt_decoder(config, prepared)
        trained.append(train(task, training_config(config, "decoder"), resume))
    join_adapters(trained, config.output)
    return config.output


def training_config(config: FinetuneConfig, part: str) -> TrainingConfig:
    """Set the training of one part."""
    every = max(1, config.steps // 6)
    return TrainingConfig(
        output_dir=str(config.output / "runs" / part),
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=min(50, config.steps // 10),
        ema_decay=0.99,
        checkpoint_every=every,
        validate_every=every,
        seed=config.seed,
    )


def adapt_prior(config: FinetuneConfig) -> LoraTask:
    """Make the task of the prior's adapter."""
    prior = Prior.from_pretrained(config.pipeline / "prior")
    data = PriorData(
        [str(config.tokens)], str(config.pipeline), crop_s=config.crop_s, text_dropout=0.1
    )
    task = PriorTask(prior, data, training_config(config, "prior"))
    captions = [text for row in read_metadata(config.captions).values() for text in row["captions"]]
    encode_text(task.tokenizer, task.text_encoder, captions)  # refuses one that is too long
    return LoraTask(task, "prior", LoraConfig(config.rank, float(config.rank), config.seed))


def adapt_decoder(config: FinetuneConfig, prepared: Path) -> LoraTask:
    """Make the task of the decoder's adapter."""
    decoder = DiffusionDecoder.from_pretrained(config.pipeline / "decoder")
    books = json.loads((config.pipeline / "prior" / "config.json").read_text())["num_codebooks"]
    data = DecoderData(
        [str(prepared)],
        [str(config.tokens)],
        str(config.pipeline / "codec"),
        focus_books=books,
        focus_share=0.75,
    )
    task = DecoderTask(decoder, data, training_config(config, "decoder"))
    return LoraTask(task, "decoder", LoraConfig(config.rank, float(config.rank), config.seed))


def join_adapters(folders: list[Path], output: Path) -> None:
    """Write the adapters of several parts as one file."""
    values: dict[str, Any] = {}
    for folder in folders:
        metadata, tensors = read_safetensors(folder / FILE_NAME)
        for name, tensor in tensors.items():
            part, _, layer = name.partition(".")
            values.setdefault(f"{part}_lora_layers", {})[layer] = tensor
        for name, value in json.loads(metadata[METADATA_KEY]).items():
            part, _, key = name.partition(".")
            values.setdefault(f"{part}_lora_adapter_metadata", {})[key] = value
    LoraLoading.save_lora_weights(output, **values)


def adapter_card(
    config: FinetuneConfig, tracks: list[Track], figures: dict[str, Any] | None
) -> str:
    """Write what an adapter is for, what it was trained on and what it changed."""
    head = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-audio",
        "base_model": config.pipeline.resolve().name,
        "tags": ["lora", "music"],
    }
    header = "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items())
    lines = ["---", header, "---", "", f"# {config.output.resolve().name}", ""]
    lines += [f"A LoRA adapter of rank {config.rank}, {config.steps} steps of {config.batch_size}."]
    lines += ["", f"    partita generate 'a prompt' --lora {config.output.name}:0.8", ""]
    lines += [f"- {line}" for line in describe_figures(figures)] if figures else []
    names = ("license", "attribution")
    rows = [[t.name, t.split, *(t.metadata.get(name, "") for name in names)] for t in tracks]
    lines += ["", table(["Track", "Split", "License", "Attribution"], rows), ""]
    return "\n".join(lines)
