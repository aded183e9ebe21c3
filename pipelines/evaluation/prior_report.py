"""``partita evaluate prior``: bits of held-out frames and codebooks, with captions and without."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipelines.data.shards import evenly_spaced
from pipelines.data.tokens import open_all_tokens, read_codes
from pipelines.evaluation.adherence import bootstrap_interval
from pipelines.evaluation.comparison import package_versions
from pipelines.evaluation.measurement_cache import (
    MeasurementCache,
    make_key,
    module_fingerprint,
)
from pipelines.evaluation.prior_page import write_prior_page
from pipelines.inference.text import encode_text
from prior.loss import cross_entropy
from prior.model import Prior

if TYPE_CHECKING:
    from datasets import Dataset

DEFINITIONS = 1  # raise when what is measured changes: it is part of every cache key
UNIGRAM_CLIPS = 400
TEXTS = ("own caption", "another clip's", "no caption")
BITS = 1 / math.log(2)


@dataclass(frozen=True)
class PriorSettings:
    """What a report on a prior needs beside it.

    Attributes:
        output: folder of the report and of the cache; made if it does not exist.
        tokens: folders of token caches.
        clips: held-out clips, evenly spaced; all there are where there are fewer.
        duration_s: of a clip at most, from its beginning.
        split: of the caches.
        quiet: no progress bar.
    """

    output: Path
    tokens: tuple[str, ...]
    clips: int = 64
    duration_s: float = 20.0
    split: str = "validation"
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ValueError(f"clips must be at least 1, got {self.clips}")
        if not self.duration_s > 0:
            raise ValueError(f"duration_s must be positive, got {self.duration_s}")


@dataclass(frozen=True)
class ClipBits:
    """One clip: bits of every code under the three texts.

    Attributes:
        id: of the clip.
        source: where it comes from.
        bits: (3, K, T), texts in the order of ``TEXTS``.
    """

    id: str
    source: str
    bits: np.ndarray


def report_prior(
    prior: Prior, tokenizer: Any, text_encoder: Any, settings: PriorSettings, name: str = "prior"
) -> dict[str, Any]:
    """Measure a prior on held-out tokens; write ``prior.json``, ``prior.md`` and ``prior.png``.

    Args:
        prior: to be measured, in evaluation mode.
        tokenizer, text_encoder: that it was trained with.
        settings: see :class:`PriorSettings`.
        name: of the prior in the report.

    Returns:
        What was written to ``prior.json``.

    Raises:
        ValueError: a token cache does not fit the prior, or there are no held-out clips.
    """
    rows = open_all_tokens(list(settings.tokens), settings.split)
    check_tokens(rows, prior)
    cache = MeasurementCache(settings.output)
    identity = module_fingerprint(prior), module_fingerprint(text_encoder)
    clips = measure_clips(prior, tokenizer, text_encoder, rows, settings, cache, identity)
    frame_rate = prior.config.frame_rate
    content = {
        "title": f"{name}: held-out bits",
        "fingerprint": identity[0],
        "settings": asdict(settings) | {"output": settings.output.name},
        "num_clips": len(clips),
        "seconds": sum(clip.bits.shape[-1] for clip in clips) / frame_rate,
        "frame_rate": frame_rate,
        "uniform_bits": math.log2(prior.config.codebook_size),
        "unigram_bits": unigram_bits(rows, settings, prior),
        "books": book_table(clips),
        "frame": {text: frame_row(clips, index, frame_rate) for index, text in enumerate(TEXTS)},
        "caption_worth": caption_worth(clips, frame_rate),
        "positions": position_table(clips, frame_rate),
        "sources": source_table(clips),
        "clips": [
            {"id": clip.id, "bits_per_frame": clip.bits.sum(1).mean(1).tolist()} for clip in clips
        ],
        "versions": package_versions(),
    }
    write_prior_page(settings.output, content)
    return content


def check_tokens(rows: "Dataset", prior: Prior) -> None:
    """Raise unless the cache holds the prior's books and entries."""
    codes = read_codes(rows, 0)
    books, size = prior.config.num_codebooks, prior.config.codebook_size
    if len(codes) < books:
        raise ValueError(f"the token cache holds {len(codes)} books, the prior writes {books}")
    if int(codes.max()) >= size:
        raise ValueError(f"the token cache has codes beyond the prior's codebook_size={size}")


@torch.inference_mode()
def measure_clips(
    prior: Prior,
    tokenizer: Any,
    text_encoder: Any,
    rows: "Dataset",
    settings: PriorSettings,
    cache: MeasurementCache,
    identity: tuple[str, str],
) -> list[ClipBits]:
    """Bits of every code of the chosen clips; what the cache knows is not computed again."""
    chosen = evenly_spaced(rows, settings.clips)
    facts = rows.select_columns(["id", "captions", "source"])
    captions = [(facts[row]["captions"] or [""])[0] for row in chosen]
    length = max(1, round(settings.duration_s * prior.config.frame_rate))
    measured = []
    for index, row in enumerate(tqdm(chosen, unit="clip", disable=settings.quiet)):
        other = other_caption(captions, index)
        codes = read_codes(rows, row)[: prior.config.num_codebooks, :length]
        key = make_key(DEFINITIONS, *identity, codes.numpy().tobytes(), captions[index], other)
        bits = cache.get_vectors(key)
        if bits is None:
            texts = [captions[index], other, ""]
            bits = code_bits(prior, encode_text(tokenizer, text_encoder, texts), codes)
            cache.add_vectors(key, bits)
        measured.append(ClipBits(facts[row]["id"], facts[row]["source"], bits))
    return measured


def other_caption(captions: Sequence[str], index: int) -> str:
    """The caption of the clip half the list away, or the next one with other words."""
    count = len(captions)
    order = [captions[(index + count // 2 + step) % count] for step in range(count)]
    return next((text for text in order if text != captions[index]), captions[index])


def code_bits(prior: Prior, text: Any, codes: Tensor) -> np.ndarray:
    """(K, T) codes under N texts -> (N, K, T) float32 bits.

    The first book's probabilities are those of codes and of the end together.
    """
    batch = codes[None].repeat(len(text.text_mask), 1, 1)
    output = prior(batch, text)
    nats = [cross_entropy(output.first_logits, batch[:, 0])]
    for book, logits in enumerate(output.depth_logits.unbind(1), start=1):
        nats.append(cross_entropy(logits, batch[:, book]))
    return (torch.stack(nats, dim=1) * BITS).float().cpu().numpy()


def unigram_bits(rows: "Dataset", settings: PriorSettings, prior: Prior) -> list[float] | str:
    """Bits of each book for who knows only how often codes occur in the training split."""
    try:
        training = open_all_tokens(list(settings.tokens), "train")
    except ValueError as reason:
        return str(reason)
    books, size = prior.config.num_codebooks, prior.config.codebook_size
    counts = np.zeros((books, size), np.int64)
    for row in evenly_spaced(training, UNIGRAM_CLIPS):
        counts += histogram(read_codes(training, row), books, size)
    shares = (counts + 1) / (counts.sum(1, keepdims=True) + size)  # (K, V)
    chosen = evenly_spaced(rows, settings.clips)
    held = np.stack([histogram(read_codes(rows, r), books, size) for r in chosen]).sum(0)
    return (-(held * np.log2(shares)).sum(1) / held.sum(1)).tolist()


def histogram(codes: Tensor, books: int, size: int) -> np.ndarray:
    """(K, T) codes -> (books, V) counts."""
    return np.stack([np.bincount(book, minlength=size) for book in codes[:books].numpy()])


def book_table(clips: Sequence[ClipBits]) -> list[dict[str, float]]:
    """Mean bits of every book under each text; every clip weighs the same."""
    means = np.stack([clip.bits.mean(2) for clip in clips]).mean(0)  # (3, K)
    return [dict(zip(TEXTS, map(float, book), strict=True)) for book in means.T]


def frame_row(clips: Sequence[ClipBits], text: int, frame_rate: float) -> dict[str, float]:
    """Bits a frame under a text, with a 95 % interval over clips, and as a bit rate."""
    frames = np.array([clip.bits[text].sum(0).mean() for clip in clips])
    low, high = bootstrap_interval(frames)
    mean = float(frames.mean())
    return {"mean": mean, "low": low, "high": high, "kbps": mean * frame_rate / 1000}


def caption_worth(clips: Sequence[ClipBits], frame_rate: float) -> dict[str, Any]:
    """What another clip's caption, or none, costs in bits a frame and in nats per 10 s."""
    result: dict[str, Any] = {}
    for index, text in enumerate(TEXTS[1:], start=1):
        costs = np.array([(c.bits[index] - c.bits[0]).sum(0).mean() for c in clips])
        low, high = bootstrap_interval(costs)
        result[text] = {
            "bits_per_frame": float(costs.mean()),
            "low": low,
            "high": high,
            "nats_per_10_s": float(costs.mean()) / BITS * frame_rate * 10,
            "clips_where_it_costs": float((costs > 0).mean()),
        }
    return result


def position_table(clips: Sequence[ClipBits], frame_rate: float) -> list[dict[str, Any]]:
    """Bits a frame of every second, by text, and of every book with the own caption."""
    longest = max(clip.bits.shape[-1] for clip in clips)
    table = []
    for second in range(math.ceil(longest / frame_rate)):
        start, stop = round(second * frame_rate), round((second + 1) * frame_rate)
        parts = [clip.bits[..., start:stop] for clip in clips if clip.bits.shape[-1] > start]
        means = np.stack([part.mean(2) for part in parts]).mean(0)  # (3, K)
        table.append(
            {
                "second": second,
                "clips": len(parts),
                "frame": dict(zip(TEXTS, map(float, means.sum(1)), strict=True)),
                "books": means[0].tolist(),
            }
        )
    return table


def source_table(clips: Sequence[ClipBits]) -> dict[str, dict[str, float]]:
    """Bits a frame by source, with the own caption and with another's."""
    sources: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        sources.setdefault(clip.source, []).append(clip.bits.sum(1).mean(1))
    return {
        source: {"clips": len(bits), **dict(zip(TEXTS, np.mean(bits, 0).tolist(), strict=True))}
        for source, bits in sorted(sources.items())
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita evaluate prior``."""
    parser.add_argument("--pipeline", required=True, help="folder of a saved pipeline")
    parser.add_argument("--prior", help="folder of another prior for the same text encoder")
    parser.add_argument("--tokens", required=True, nargs="+", help="folders of token caches")
    parser.add_argument("--output", required=True, type=Path, help="folder of the report")
    parser.add_argument("--clips", type=int, default=64, help="held-out clips (default: 64)")
    parser.add_argument("--duration", type=float, default=20.0, help="of a clip, s (default: 20)")
    parser.add_argument("--split", default="validation", help="of the caches")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Run ``partita evaluate prior`` and print the page."""
    from pipelines.inference.text import load_text_encoder

    folder = Path(args.prior or Path(args.pipeline) / "prior")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: not a saved prior")
    settings = PriorSettings(
        args.output, tuple(args.tokens), args.clips, args.duration, args.split, args.quiet
    )
    tokenizer, text_encoder = load_text_encoder(args.pipeline)
    prior: Any = Prior.from_pretrained(folder)
    name = Path(args.prior or args.pipeline).resolve().name
    report_prior(prior.eval().float(), tokenizer, text_encoder, settings, name)
    print((args.output / "prior.md").read_text())
    return 0
