"""Store the plans of composed pieces as a token cache, on which a planner is trained."""

import json
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from codec.seeds import derive_seed
from codec.whole_file import write_json
from pipelines.data.plans import plan_of_labels
from pipelines.data.prepared import SPLITS
from pipelines.data.scores.captions import LONG, MEDIUM, SHORT, captions
from pipelines.data.scores.score import Score
from pipelines.data.scores.score_jobs import ScoreJob, check_sources, compose_piece
from pipelines.data.scores.score_sound import RenderError, clip_labels
from pipelines.data.scores.score_sources import DEFAULT_SOURCES
from pipelines.data.shards import ShardWriter
from pipelines.data.token_cache import SHARD_CLIPS, new_cache
from pipelines.data.tokens import INFO_NAME, SCHEMA, TOKENS_VERSION, TokenInfo, hash_text
from pipelines.data.worker_processes import map_in_order
from prior.plan_codes import CODEBOOK_SIZE, HEAD_FRAMES, NUM_BOOKS, encode_plan
from prior.planner import MAX_CHORDS


def build_plan_cache(
    out_folder: str | Path,
    pieces: int,
    seed: int = 0,
    sources: tuple[str, ...] = DEFAULT_SOURCES,
    workers: int = 1,
) -> dict[str, int]:
    """Compose pieces, without playing them, and store their plans with captions, all or none.

    Every 33rd piece is for validation; ``sources`` are names in ``score_sources.SOURCES``.

    Returns:
        Number of pieces by split.

    Raises:
        ValueError: the folder exists, or a number is out of range.
        FileNotFoundError: a source is not installed; the message names its package.
    """
    for name, value in (("pieces", pieces), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    check_sources(sources)
    sources = tuple(sorted(sources))
    settings = {"pieces": pieces, "seed": seed, "sources": list(sources)}
    jobs = [ScoreJob(seed, index, sources) for index in range(pieces)]
    counts = dict.fromkeys(SPLITS, 0)
    with new_cache(out_folder) as folder, ExitStack() as stack:
        writers = {
            split: stack.enter_context(ShardWriter(folder / split, SCHEMA, SHARD_CLIPS))
            for split in SPLITS
        }
        rows = stack.enter_context(closing(map_in_order(plan_row, jobs, workers)))
        bar = tqdm(zip(jobs, rows, strict=True), total=len(jobs), unit="piece", disable=None)
        for job, row in bar:
            if row is not None:
                writers[job.split].add_row(row)
                counts[job.split] += 1
        info = TokenInfo(
            format_version=TOKENS_VERSION,
            codec_class="Plan",
            codec_hash=hash_text("tempo, key, instruments, chords"),
            num_codebooks=NUM_BOOKS,
            codebook_size=CODEBOOK_SIZE,
            frame_rate=None,
            prepared=hash_text(json.dumps(settings)),
            clips={split: count for split, count in counts.items() if count},
        )
        write_json(folder / INFO_NAME, asdict(info))
    return counts


def plan_row(job: ScoreJob) -> dict[str, Any] | None:
    """Compose one piece and return a row of ``tokens.SCHEMA``, or None where that failed."""
    try:
        score = compose_piece(job)
    except (RenderError, ValueError, OSError) as error:
        print(f"skipped {job.track}: {error}", file=sys.stderr)
        return None
    labels = clip_labels(score, 0.0, score.duration_s)
    return {
        "id": job.track,
        "captions": planner_captions(labels, derive_seed(job.seed, job.track, 0)),
        "labels": json.dumps(labels),
        "source": f"scores:{labels['source']}",
        **encoded(score, labels),
    }


def planner_captions(labels: dict[str, Any], seed: int) -> list[str]:
    """Generate captions as for a prior, and more in which only mood and speed imply the plan.

    A caption that names the key teaches no model that "woeful" is minor, nor one that names the
    tempo that "sluggish" is slow. So nine of fifteen name no key, and six of those are short.
    """
    keyless = labels | {"key": None, "mode": None}
    return [
        *captions(labels, seed),
        *captions(keyless, derive_seed(seed, "keyless"), 3, (MEDIUM, LONG, MEDIUM)),
        *captions(keyless, derive_seed(seed, "short"), 6, (SHORT,)),
    ]


def encoded(score: Score, labels: dict[str, Any]) -> dict[str, Any]:
    """Encode the plan of a piece, cut to ``MAX_CHORDS``, as columns of ``tokens.SCHEMA``."""
    plan = plan_of_labels(labels)
    assert plan is not None
    codes = encode_plan(plan, score.num_beats)
    cut = codes[:, : HEAD_FRAMES + MAX_CHORDS]
    return {
        "is_end": cut.shape == codes.shape,
        "num_frames": cut.shape[1],
        "codes": cut.numpy().astype("<i2").tobytes(),
    }
