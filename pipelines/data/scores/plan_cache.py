"""``partita prepare plans``: the plans of composed pieces, for a planner to learn from.

The folder is a token cache (``pipelines.data.tokens``) of plans: ``partita train prior --config
configs/prior/planner.yaml`` trains on it as on any other.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.data.scores.score import Score
    from pipelines.data.scores.score_dataset import Job


def build_plan_cache(
    out_folder: str | Path,
    pieces: int,
    seed: int = 0,
    sources: tuple[str, ...] = ("bach", "generated", "mma"),
    workers: int = 1,
) -> dict[str, int]:
    """Compose pieces, without playing them, and store their plans with captions.

    Args:
        out_folder: of the cache; appears when it is whole.
        pieces: how many, every 33rd for validation.
        seed: equal seeds give equal caches.
        sources: of ``partita prepare scores``.
        workers: processes that compose.

    Returns:
        Pieces by split.

    Raises:
        ValueError: the folder exists, or a number is out of range.
        FileNotFoundError: a source is not installed; names the package.
    """
    from codec.whole_file import write_json
    from pipelines.data.prepared import SPLITS
    from pipelines.data.scores.score_dataset import Job, check_sources
    from pipelines.data.scores.score_sound import check_programs
    from pipelines.data.shards import ShardWriter
    from pipelines.data.token_cache import SHARD_CLIPS
    from pipelines.data.tokens import INFO_NAME, SCHEMA, TOKENS_VERSION, TokenInfo, hash_text
    from pipelines.training.checkpoints import new_folder
    from prior.plan_codes import CODEBOOK_SIZE, NUM_BOOKS

    for name, value in (("pieces", pieces), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if Path(out_folder).exists():
        raise ValueError(f"{out_folder} exists already: choose another folder or delete it")
    check_sources(list(sources))
    if "mma" in sources:
        check_programs(["mma"], Path(__file__))
    settings = {"pieces": pieces, "seed": seed, "sources": sorted(sources)}
    jobs = [Job(seed, index, tuple(sorted(sources)), "", False) for index in range(pieces)]
    counts = dict.fromkeys(SPLITS, 0)
    with new_folder(Path(out_folder)) as folder:
        writers = {split: ShardWriter(folder / split, SCHEMA, SHARD_CLIPS) for split in SPLITS}
        for job, row in zip(jobs, composed(jobs, workers), strict=True):
            if row is not None:
                writers[job.split].add_row(row)
                counts[job.split] += 1
        for writer in writers.values():
            writer.close()
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


def composed(jobs: "list[Job]", workers: int) -> Any:
    """The rows of jobs, in order; None for a piece that could not be had."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from tqdm import tqdm

    if workers == 1:
        yield from tqdm(map(plan_row, jobs), total=len(jobs), unit="piece", disable=None)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        rows = pool.map(plan_row, jobs, chunksize=32)
        yield from tqdm(rows, total=len(jobs), unit="piece", disable=None)


def plan_row(job: "Job") -> dict[str, Any] | None:
    """Compose one piece: a row of ``tokens.SCHEMA``, or None where that failed."""
    from codec.seeds import derive_seed
    from pipelines.data.scores.score_dataset import write_score
    from pipelines.data.scores.score_sound import RenderError, clip_labels

    try:
        score = write_score(job)
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
    """Captions as a prior reads them, and others in which moods and speeds are more than ornament.

    Where the key is named, nobody need know that "woeful" is minor; where the tempo is, that
    "sluggish" is slow. So nine of fifteen name no key, and six of those are short.
    """
    from codec.seeds import derive_seed
    from pipelines.data.scores.captions import LONG, MEDIUM, SHORT, captions

    keyless = labels | {"key": None, "mode": None}
    return [
        *captions(labels, seed),
        *captions(keyless, derive_seed(seed, "keyless"), 3, (MEDIUM, LONG, MEDIUM)),
        *captions(keyless, derive_seed(seed, "short"), 6, (SHORT,)),
    ]


def encoded(score: "Score", labels: dict[str, Any]) -> dict[str, Any]:
    """The columns that hold a plan's codes."""
    from pipelines.data.plans import plan_of_labels
    from prior.plan_codes import HEAD_FRAMES, encode_plan
    from prior.planner import MAX_CHORDS

    plan = plan_of_labels(labels)
    assert plan is not None
    codes = encode_plan(plan, score.num_beats)
    cut = codes[:, : HEAD_FRAMES + MAX_CHORDS]
    return {
        "is_end": cut.shape == codes.shape,
        "num_frames": cut.shape[1],
        "codes": cut.numpy().astype("<i2").tobytes(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita prepare plans``."""
    from pipelines.data.scores.score_dataset import DEFAULT_SOURCES, SOURCES

    parser.add_argument("--output", "--out", required=True, help="folder of the token cache")
    parser.add_argument("--pieces", type=int, default=20_000, help="to compose (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal caches")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose")
    parser.add_argument(
        "--sources", nargs="+", choices=list(SOURCES), default=list(DEFAULT_SOURCES)
    )


def run(args: argparse.Namespace) -> int:
    """Run ``partita prepare plans`` and print what came of it."""
    started = time.monotonic()
    sources = tuple(sorted(args.sources))
    counts = build_plan_cache(args.output, args.pieces, args.seed, sources, args.workers)
    told = ", ".join(f"{split} {count}" for split, count in counts.items())
    print(f"{args.output}: {told} plans, made in {time.monotonic() - started:.0f} s")
    return 0
