"""Report the bits that a prior needs for held-out codes, with captions and plans and without."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipelines.data.shards import evenly_spaced
from pipelines.data.tokens import open_all_tokens, read_codes, read_token_infos
from pipelines.errors import check_fields
from pipelines.evaluation.averages import mean_with_interval
from pipelines.evaluation.codebooks import count_codes
from pipelines.evaluation.held_out import labeled_plan, nats_per_code
from pipelines.evaluation.measurement_cache import MeasurementCache, make_key, module_fingerprint
from pipelines.evaluation.pair_metrics import package_versions
from pipelines.evaluation.prior_page import page_blocks, plot_positions
from pipelines.evaluation.report_files import write_report_files
from pipelines.inference.text import encode_text
from prior.condition import Condition
from prior.model import Prior

if TYPE_CHECKING:
    from datasets import Dataset

DEFINITIONS = 2  # raise when what is measured changes: it is part of every cache key
UNIGRAM_CLIPS = 400
CONDITIONS = ("own caption", "another clip's", "no caption")
NO_PLAN = "own caption, no plan"
BLOCK_FRAMES = 32  # averaged at once where frames have no duration
BITS = 1 / math.log(2)
Encode = Callable[[list[str]], Condition]


@dataclass(frozen=True)
class PriorReportSettings:
    """Says where a report on a prior goes, and what is measured."""

    output: Path  # folder of the report and of the cache; made if it does not exist
    tokens: tuple[str, ...]  # folders of token caches
    clips: int = 64  # held-out clips at most, evenly spaced
    duration_s: float = 20.0  # of a clip at most, from its beginning
    frames: int = 500  # of a clip at most, where frames have no fixed duration (notes, plans)
    split: str = "validation"
    quiet: bool = False  # no progress bar

    def __post_init__(self) -> None:
        check_fields(self, "clips frames", lambda count: count >= 1, "be at least 1")
        check_fields(self, "duration_s", lambda seconds: seconds > 0, "be positive")


@dataclass(frozen=True)
class ClipBits:
    """Holds the bits of every code of one clip under each condition."""

    id: str
    source: str
    bits: np.ndarray  # (N, K, T), conditions in the order of the report


def report_prior(
    prior: Prior,
    tokenizer: Any,
    text_encoder: Any,
    settings: PriorReportSettings,
    name: str = "prior",
) -> dict[str, Any]:
    """Measure a prior on held-out tokens; write ``prior.json``, ``prior.md`` and ``prior.png``.

    The prior is in evaluation mode; tokenizer and text encoder are those that it was trained with.

    Returns:
        The content of ``prior.json``.

    Raises:
        ValueError: a token cache does not fit the prior, or there are no held-out clips.
    """
    check_tokens(settings.tokens, prior)
    rows = open_all_tokens(list(settings.tokens), settings.split)
    fingerprint = module_fingerprint(prior)
    encode = partial(encode_text, tokenizer, text_encoder)
    weights = fingerprint + module_fingerprint(text_encoder)
    clips = measure_clips(prior, encode, rows, settings, weights)
    frame_rate, plans = prior.config.frame_rate, prior.config.reads_plan
    conditions = [*CONDITIONS, NO_PLAN] if plans else list(CONDITIONS)
    num_frames = sum(clip.bits.shape[-1] for clip in clips)
    content = {
        "title": f"{name}: held-out bits",
        "fingerprint": fingerprint,
        "settings": asdict(settings) | {"output": settings.output.name},
        "conditions": conditions,
        "plans": plans,
        "num_clips": len(clips),
        "num_frames": num_frames,
        "seconds": num_frames / frame_rate if frame_rate else None,
        "frame_rate": frame_rate,
        "uniform_bits": math.log2(prior.config.codebook_size),
        "unigram_bits": unigram_bits(rows, settings, prior),
        "books": [named(conditions, bits) for bits in mean_bits([clip.bits for clip in clips]).T],
        "frame": {
            condition: summarize_frames(clips, index, frame_rate)
            for index, condition in enumerate(conditions)
        },
        "caption_worth": caption_worth(clips, conditions, frame_rate),
        "position_unit": "second" if frame_rate else "first frame",
        "positions": tabulate_positions(clips, conditions, frame_rate),
        "sources": tabulate_sources(clips, conditions),
        "clips": [
            {"id": clip.id, "bits_per_frame": clip.bits.sum(1).mean(1).tolist()} for clip in clips
        ],
        "versions": package_versions(),
    }
    write_report_files(settings.output, "prior", content, page_blocks(content), plot_positions)
    return content


def check_tokens(folders: Sequence[str], prior: Prior) -> None:
    """Raise ValueError unless the caches hold what the prior was made for."""
    info, config = read_token_infos(folders)[0], prior.config
    if info.num_codebooks < config.num_codebooks:
        raise ValueError(
            f"the token cache holds {info.num_codebooks} codebooks, "
            f"the prior has {config.num_codebooks}"
        )
    for name in ("codebook_size", "frame_rate"):
        if getattr(info, name) != config[name]:
            raise ValueError(f"{name} differs: tokens {getattr(info, name)}, prior {config[name]}")
    if config.get("_codec_hash", info.codec_hash) != info.codec_hash:
        raise ValueError(f"the tokens {folders[0]} are of another codec than the prior's")


def measure_clips(
    prior: Prior, encode: Encode, rows: "Dataset", settings: PriorReportSettings, weights: str
) -> list[ClipBits]:
    """Measure the chosen clips; what the cache knows of these weights is not computed again."""
    cache = MeasurementCache(settings.output)
    chosen = evenly_spaced(rows, settings.clips)
    facts = rows.select_columns(["id", "captions", "source", "labels"])
    captions = [(facts[row]["captions"] or [""])[0] for row in chosen]
    frame_rate = prior.config.frame_rate
    length = max(1, round(settings.duration_s * frame_rate)) if frame_rate else settings.frames
    measured = []
    for index, row in enumerate(tqdm(chosen, unit="clip", disable=settings.quiet)):
        codes = read_codes(rows, row)[: prior.config.num_codebooks, :length]
        plan = labeled_plan(prior, facts[row]["labels"], codes.shape[1])
        texts = [captions[index], other_caption(captions, index), ""]
        read = None if plan is None else plan.numpy().tobytes()
        key = make_key(DEFINITIONS, weights, codes.numpy().tobytes(), *texts, read)
        found = cache.recall(key, code_bits, prior, encode, texts, codes, plan)
        measured.append(ClipBits(facts[row]["id"], facts[row]["source"], found["bits"]))
    return measured


def other_caption(captions: Sequence[str], index: int) -> str:
    """Choose the caption of the clip half the list away, or the next one with other words."""
    count = len(captions)
    order = [captions[(index + count // 2 + step) % count] for step in range(count)]
    return next((text for text in order if text != captions[index]), captions[index])


def code_bits(
    prior: Prior, encode: Encode, texts: list[str], codes: Tensor, plan: Tensor | None
) -> dict[str, np.ndarray]:
    """Measure the bits of (K, T) codes under N texts.

    Returns:
        ``bits``, (N, K, T) float32, each text with the plan where there is one; then N is one more,
        the first text without the plan.
    """
    text = encode(texts)
    batch = codes[None].repeat(len(texts), 1, 1)
    plans = None if plan is None else plan[None].repeat(len(texts), 1, 1)
    nats = nats_per_code(prior, batch, replace(text, plan=plans))
    if plan is not None:
        unplanned = Condition(text.text_states[:1], text.text_mask[:1])
        nats = torch.cat([nats, nats_per_code(prior, batch[:1], unplanned)])
    return {"bits": (nats * BITS).numpy()}


def unigram_bits(rows: "Dataset", settings: PriorReportSettings, prior: Prior) -> list[float] | str:
    """Compute the bits of each codebook by the frequencies of its codes in the training split."""
    try:
        training = open_all_tokens(list(settings.tokens), "train")
    except ValueError as reason:
        return str(reason)
    count, size = prior.config.num_codebooks, prior.config.codebook_size
    trained, held = (
        count_codes((read_codes(split, row)[:count] for row in evenly_spaced(split, clips)), size)
        for split, clips in ((training, UNIGRAM_CLIPS), (rows, settings.clips))
    )
    shares = (trained + 1) / (trained.sum(1, keepdim=True) + size)  # (K, V)
    return (-(held * shares.log2()).sum(1) / held.sum(1)).tolist()


def mean_bits(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Average (N, K, T) bits of clips to (N, K); every clip weighs the same."""
    return np.stack([bits.mean(2) for bits in clips]).mean(0)


def summarize_frames(
    clips: Sequence[ClipBits], condition: int, frame_rate: float | None
) -> dict[str, float]:
    """Average bits a frame, with a 95 % interval over clips and, at a frame rate, as a bit rate."""
    frames = mean_with_interval([clip.bits[condition].sum(0).mean() for clip in clips])
    rate = {"kbps": frames["mean"] * frame_rate / 1000} if frame_rate else {}
    return frames | rate


def caption_worth(
    clips: Sequence[ClipBits], conditions: Sequence[str], frame_rate: float | None
) -> dict[str, Any]:
    """Compute what each other condition costs against the first, in bits a frame and nats."""
    result: dict[str, Any] = {}
    for index, condition in enumerate(conditions[1:], start=1):
        costs = np.array([(c.bits[index] - c.bits[0]).sum(0).mean() for c in clips])
        bits = mean_with_interval(costs)
        result[condition] = {
            "bits_per_frame": bits,
            "nats_per_10_s": bits["mean"] / BITS * frame_rate * 10 if frame_rate else None,
            "clips_where_it_costs": float((costs > 0).mean()),
        }
    return result


def tabulate_positions(
    clips: Sequence[ClipBits], conditions: Sequence[str], frame_rate: float | None
) -> list[dict[str, Any]]:
    """Average bits a frame of every second (or 32 frames), and of every codebook at the first."""
    longest = max(clip.bits.shape[-1] for clip in clips)
    width = frame_rate or BLOCK_FRAMES
    rows = []
    for block in range(math.ceil(longest / width)):
        start, stop = round(block * width), round((block + 1) * width)
        parts = [clip.bits[..., start:stop] for clip in clips if clip.bits.shape[-1] > start]
        means = mean_bits(parts)
        place = {"second": block} if frame_rate else {"first frame": start}
        frame = {"frame": named(conditions, means.sum(1)), "books": means[0].tolist()}
        rows.append({**place, "clips": len(parts), **frame})
    return rows


def tabulate_sources(
    clips: Sequence[ClipBits], conditions: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Average bits a frame of every source's clips under each condition."""
    sources: dict[str, list[np.ndarray]] = {}
    for clip in clips:
        sources.setdefault(clip.source, []).append(clip.bits.sum(1).mean(1))
    return {
        source: {"clips": len(bits), **named(conditions, np.mean(bits, 0))}
        for source, bits in sorted(sources.items())
    }


def named(conditions: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Name a number of each condition."""
    return dict(zip(conditions, map(float, values), strict=True))
