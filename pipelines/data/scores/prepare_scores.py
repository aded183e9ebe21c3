"""``partita prepare scores``: render labeled music straight into a prepared dataset."""

import argparse
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.data.prepared import Clip, PreparedWriter
    from pipelines.data.scores.score import Score

VALIDATION_EVERY = 33
"""One piece in this many is for validation."""
SOURCES = {"generated": 0.66, "mma": 0.16, "bach": 0.12, "openttd": 0.1}
"""Shares of the sources; those asked for are scaled to one."""
DEFAULT_SOURCES = ("generated", "mma", "bach")
"""openttd-openmsx is GPL-2: fit for experiments, not for weights under another license."""
FREE_LEADS = 0.25
"""Share of the composed pieces whose tune any instrument may play, whatever their style."""
FREE_DRUMS = 0.5
"""Share of the composed pieces whose band has drums or none by a coin, if its style knows any."""
SETTINGS_NAME = "scores.json"
SKIPPED_NAME = "skipped.json"
MAX_FAILURE_RUN = 50


@dataclass(frozen=True)
class Job:
    """One piece to render: everything about it follows from the seed and the index."""

    seed: int
    index: int
    sources: tuple[str, ...]
    soundfont: str
    keep_audio: bool

    @property
    def track(self) -> str:
        """The piece's id."""
        return f"scores-{self.seed}-{self.index:07d}"

    @property
    def split(self) -> str:
        """ "validation" for every 33rd piece."""
        return "validation" if self.index % VALIDATION_EVERY == VALIDATION_EVERY - 1 else "train"


@dataclass
class Progress:
    """Counts of one run, for the report."""

    seconds: float = 0.0
    pieces: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``partita prepare scores``."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the prepared dataset")
    parser.add_argument("--hours", type=float, required=True, help="hours of music to render")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal datasets")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    parser.add_argument(
        "--sources",
        nargs="+",
        choices=list(SOURCES),
        default=list(DEFAULT_SOURCES),
        help="where scores come from (openttd is GPL-2 music)",
    )
    parser.add_argument(
        "--audio", choices=("none", "keep"), default="none", help="keep FLAC audio in the dataset"
    )
    parser.add_argument("--soundfont", type=Path, default=None, help="SF2 file, default FluidR3_GM")
    parser.add_argument("--shard-clips", type=int, default=256, help="clips per shard")


def run(args: argparse.Namespace) -> int:
    """Run the command; a mistake of the user is one line on standard error and exit code 2."""
    try:
        prepare_scores(args)
    except (ValueError, OSError, BrokenExecutor) as error:
        print(f"partita prepare scores: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("partita prepare scores: stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


def prepare_scores(args: argparse.Namespace) -> dict[str, Any]:
    """Render until the dataset holds ``args.hours``, going on where an earlier run stopped.

    Returns:
        The content of ``dataset.json``.

    Raises:
        ValueError: a bad option, or the folder was begun with other settings.
        FileNotFoundError: a program or the soundfont is missing; names its Debian package.
    """
    from pipelines.data.prepared import SPLITS, PreparedWriter, finish_dataset
    from pipelines.data.scores.render import SOUNDFONT, check_programs

    check_arguments(args)
    soundfont = args.soundfont or SOUNDFONT
    needs_mma = ["mma"] if "mma" in args.sources else []
    check_programs(["fluidsynth", *needs_mma], soundfont)
    check_sources(args.sources)
    settings = open_folder(args)
    writers = {split: PreparedWriter(args.out, split, args.shard_clips) for split in SPLITS}
    progress = Progress(skipped=read_skipped(args.out))
    try:
        fill(args, str(soundfont), writers, progress)
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise
    for writer in writers.values():
        writer.close()
    info = finish_dataset(args.out, settings | {"hours": args.hours})
    write_report(args.out, info, progress)
    print(f"{progress.seconds / 3600:.2f} hours in {args.out}, {len(progress.skipped)} skipped")
    return info


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for a number out of range."""
    if not args.hours > 0:
        raise ValueError(f"hours must be positive, got {args.hours}")
    if args.workers < 1:
        raise ValueError(f"workers must be at least 1, got {args.workers}")
    if args.shard_clips < 1:
        raise ValueError(f"shard-clips must be at least 1, got {args.shard_clips}")


def check_sources(sources: list[str]) -> None:
    """Raise FileNotFoundError for a corpus that is not installed."""
    from pipelines.data.scores.corpus import check_bach, check_openttd

    if "bach" in sources:
        check_bach()
    if "openttd" in sources:
        check_openttd()


def open_folder(args: argparse.Namespace) -> dict[str, Any]:
    """Remember the settings in the folder, or make sure that they are those of the earlier run."""
    from codec.whole_file import write_json

    settings = {
        "command": "prepare scores",
        "seed": args.seed,
        "sources": sorted(args.sources),
        "audio": args.audio,
        "soundfont": args.soundfont.name if args.soundfont else "FluidR3_GM.sf2",
        "shard_clips": args.shard_clips,
    }
    path = args.out / SETTINGS_NAME
    if path.is_file():
        earlier = json.loads(path.read_text())
        for name, value in settings.items():
            if earlier.get(name) != value:
                raise ValueError(
                    f"{args.out} was begun with {name}={earlier.get(name)!r}, got {value!r}: "
                    "choose another folder or the same settings"
                )
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    return settings


def fill(
    args: argparse.Namespace,
    soundfont: str,
    writers: "dict[str, PreparedWriter]",
    progress: Progress,
) -> None:
    """Render piece after piece, in order, until there are enough seconds."""
    have = {split: stored_clips(args.out, split) for split in writers}
    progress.seconds = sum(sum(clips.values()) for clips in have.values())
    last = {split: max(map(piece_index, clips), default=-1) for split, clips in have.items()}
    everything = (
        Job(args.seed, index, tuple(sorted(args.sources)), soundfont, args.audio == "keep")
        for index in itertools.count(max(0, min(last.values())))
    )
    # clips are stored in order, so only a split's last piece can be there in part
    jobs = (job for job in everything if job.index >= last[job.split])
    failures = 0
    wanted = args.hours * 3600
    for job, clips, reason in render_in_order(
        jobs, args.workers, lambda: progress.seconds < wanted
    ):
        if reason:
            skip_piece(args.out, job, reason, progress)
            failures += 1
            if failures >= MAX_FAILURE_RUN:
                raise OSError(f"{failures} pieces in a row could not be rendered, last: {reason}")
            continue
        failures = 0
        add_piece(job, clips, writers[job.split], have[job.split], progress)
        if progress.seconds >= wanted:
            break


def read_skipped(folder: Path) -> dict[str, str]:
    """Pieces that earlier runs left out, with the reasons."""
    path = folder / SKIPPED_NAME
    return json.loads(path.read_text()) if path.is_file() else {}


def skip_piece(folder: Path, job: Job, reason: str, progress: Progress) -> None:
    """Say and remember that a piece was left out."""
    from codec.whole_file import write_json

    print(f"skipped {job.track}: {reason}", file=sys.stderr)
    progress.skipped[job.track] = reason
    write_json(folder / SKIPPED_NAME, progress.skipped)


def add_piece(
    job: Job,
    clips: "list[Clip]",
    writer: "PreparedWriter",
    have: dict[str, float],
    progress: Progress,
) -> None:
    """Write the clips that are not in whole shards yet, and count them."""
    for clip in clips:
        if clip.id in have:
            continue
        writer.add(clip)
        progress.seconds += clip.duration_s
    progress.pieces += 1
    if progress.pieces % 100 == 0:
        print(f"{progress.seconds / 3600:.2f} hours, piece {job.index}", flush=True)


def stored_clips(folder: Path, split: str) -> dict[str, float]:
    """Ids and seconds of the clips in whole shards."""
    from pipelines.data.shards import list_shards, read_columns

    return {
        row["id"]: row["duration_s"]
        for path in list_shards(folder / split)
        for row in read_columns(path, ["id", "duration_s"])
    }


def piece_index(clip_id: str) -> int:
    """``scores-0-0000012-1`` -> 12."""
    return int(clip_id.split("-")[2])


Result = tuple[Job, "list[Clip]", str]


def render_in_order(
    jobs: Iterator[Job], workers: int, wanted: Callable[[], bool]
) -> Iterator[Result]:
    """Render jobs, in this process or in others, and give the results in the order of the jobs."""
    if workers == 1:
        for job in jobs:
            if not wanted():
                return
            yield render_job(job)
        return
    import multiprocessing

    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        queue: list[tuple[Job, Future[Result]]] = []
        for job in jobs:
            queue.append((job, pool.submit(render_job, job)))
            if len(queue) >= 3 * workers:
                yield queue.pop(0)[1].result()
            if not wanted():
                break
        for _, future in queue:
            if wanted():
                yield future.result()
            future.cancel()


def render_job(job: Job) -> Result:
    """Compose, play and cut one piece; a failure is a reason instead of clips."""
    from codec.process_settings import cpu_threads
    from codec.seeds import derive_seed
    from pipelines.data.scores.render import RenderError, cut_clips, render

    try:
        score = write_score(job)
        audio = render(score, Path(job.soundfont))
        seed = derive_seed(job.seed, "scores", job.index)
        with cpu_threads(1):
            clips = cut_clips(score, audio, job.track, seed, job.keep_audio)
    except (RenderError, ValueError, OSError) as error:
        return job, [], f"{type(error).__name__}: {error}"
    return job, clips, "" if clips else "shorter than a clip"


def write_score(job: Job) -> "Score":
    """Draw a source, then the piece."""
    from codec.seeds import derive_seed
    from pipelines.data.scores.arrange import arrange
    from pipelines.data.scores.compose import compose
    from pipelines.data.scores.corpus import bach, openttd

    rng = random.Random(derive_seed(job.seed, "scores", job.index))
    weights = [SOURCES[source] for source in job.sources]
    source = rng.choices(job.sources, weights)[0]
    writers: dict[str, Callable[..., Score]] = {
        "generated": partial(compose, lead=free_lead(job), drums=free_drums(job)),
        "bach": bach,
        "openttd": openttd,
        "mma": arrange,
    }
    score = writers[source](rng, held_out=job.split == "validation")
    score.room = rng.uniform(0.2, 0.8)
    return score


def free_lead(job: Job) -> str | None:
    """Any instrument but a bass for some pieces, whatever their style; None for the others.

    No style's own leads are pizzicato strings, and those of styles with drums are neither an oboe
    nor a harpsichord; prompts ask for them all the same.
    """
    from codec.seeds import derive_seed
    from pipelines.data.scores.instruments import BASSES, INSTRUMENTS

    rng = random.Random(derive_seed(job.seed, "lead", job.index))
    if rng.random() >= FREE_LEADS:
        return None
    return rng.choice([name for name in INSTRUMENTS if name not in BASSES])


def free_drums(job: Job) -> bool | None:
    """Drums or none by a coin for some pieces, whatever their style; None for the others.

    All bands of techno and of funk have drums, and nearly all of rock; prompts ask for none all
    the same.
    """
    from codec.seeds import derive_seed

    rng = random.Random(derive_seed(job.seed, "drums", job.index))
    return rng.random() < 0.5 if rng.random() < FREE_DRUMS else None


def label_histograms(folder: Path) -> dict[str, dict[str, int]]:
    """How many clips carry each label; tempi in bins of ten."""
    from pipelines.data.prepared import SPLITS
    from pipelines.data.shards import list_shards, read_columns

    counts: dict[str, Counter[str]] = {}
    for path in [path for split in SPLITS for path in list_shards(folder / split)]:
        for row in read_columns(path, ["labels"]):
            labels = json.loads(row["labels"])
            del labels["plan"]  # a place and a list of chords are no labels to count
            labels["tempo_bpm"] = f"{labels['tempo_bpm'] // 10 * 10:.0f}-"
            for name, value in labels.items():
                for item in value if isinstance(value, list) else [value]:
                    counts.setdefault(name, Counter())[str(item)] += 1
    return {name: dict(sorted(counter.items())) for name, counter in counts.items()}


def write_report(folder: Path, info: dict[str, Any], progress: Progress) -> None:
    """Write ``report.json`` and ``report.md``: hours, sources, labels, skipped pieces."""
    from codec.whole_file import write_json

    report = {
        "splits": info["splits"],
        "sources": info["sources"],
        "labels": label_histograms(folder),
        "skipped": progress.skipped,
    }
    write_json(folder / "report.json", report)
    lines = ["# Rendered scores", "", "| source | split | hours | license |", "|---|---|---|---|"]
    for row in info["sources"]:
        lines.append(f"| {row['source']} | {row['split']} | {row['hours']} | {row['license']} |")
    lines += ["", f"Skipped: {len(progress.skipped)}", ""]
    lines += [f"- {track}: {reason}" for track, reason in progress.skipped.items()]
    (folder / "report.md").write_text("\n".join(lines) + "\n")
