"""Render composed pieces straight into a prepared dataset that can be stopped and grown."""

import itertools
import json
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.seeds import derive_seed
from codec.whole_file import write_json
from pipelines.data.markdown import bullets, table, write_page
from pipelines.data.prepared import SPLITS, Clip, PreparedWriter, finish_dataset
from pipelines.data.recordings.recordings_report import label_histograms
from pipelines.data.scores import score_sound
from pipelines.data.scores.instruments import INSTRUMENTS
from pipelines.data.scores.score_jobs import ScoreJob, check_sources, compose_piece, piece_index
from pipelines.data.scores.score_sources import DEFAULT_SOURCES
from pipelines.data.shards import begin_or_resume, read_split
from pipelines.data.worker_processes import map_in_order
from pipelines.errors import check_fields, check_names

SETTINGS_NAME = "scores.json"
SKIPPED_NAME = "skipped.json"
MAX_FAILURE_RUN = 50


@dataclass(frozen=True)
class ScoreDataset:
    """Hold the options of ``partita prepare scores``.

    Raises:
        ValueError: a number is out of range.
    """

    output: Path  # folder of the prepared dataset
    hours: float  # hours of music to render in all
    seed: int = 0  # equal seeds give equal datasets
    workers: int = 1  # processes that render; the result does not depend on their number
    sources: tuple[str, ...] = DEFAULT_SOURCES  # names in ``score_sources.SOURCES``
    audio: str = "none"  # "keep" stores FLAC beside each spectrogram, "none" does not
    soundfont: Path = score_sound.SOUNDFONT  # an SF2 file with a General MIDI bank
    shard_clips: int = 256  # clips per Arrow shard
    # length of a clip (s); songs need long ones for a prior to see a section return
    clip_s: float = score_sound.CLIP_S
    # that lead the pieces of the source "generated"; () leaves it to chance and style
    leads: tuple[str, ...] = ()
    scheduler: str | None = None  # of a running dask cluster, tcp://host:port, to render on

    def __post_init__(self) -> None:
        check_fields(self, "hours", lambda hours: hours > 0, "be positive")
        if not 5 <= self.clip_s <= 600 or self.clip_s != int(self.clip_s):
            raise ValueError(f"clip must be whole seconds from 5 to 600, got {self.clip_s}")
        check_fields(self, "workers shard_clips", lambda count: count >= 1, "be at least 1")
        check_names("leads", self.leads, INSTRUMENTS)
        if self.leads and "generated" not in self.sources:
            raise ValueError('leads needs the source "generated": others choose their own')


def prepare_scores(wanted: ScoreDataset) -> dict[str, Any]:
    """Render until the dataset holds the wanted hours, resuming an earlier run.

    Returns:
        The content of ``dataset.json``.

    Raises:
        ValueError: the folder was begun with other settings.
        FileNotFoundError: a program or the soundfont is missing; the message names its package.
        OSError: 50 pieces in a row could not be rendered, or a worker died.
    """
    score_sound.check_programs(["fluidsynth"], wanted.soundfont)
    check_sources(wanted.sources)
    settings = open_folder(wanted)
    with ExitStack() as stack:  # writers drop their unfinished shards when rendering fails
        writers = {
            split: stack.enter_context(PreparedWriter(wanted.output, split, wanted.shard_clips))
            for split in SPLITS
        }
        fill(wanted, writers)
    info = finish_dataset(wanted.output, settings | {"hours": wanted.hours})
    write_scores_report(wanted.output, info)
    return info


def open_folder(wanted: ScoreDataset) -> dict[str, Any]:
    """Store the settings in the folder, or make sure that they are those of the earlier run."""
    settings = {
        "command": "prepare scores",
        "seed": wanted.seed,
        "sources": sorted(wanted.sources),
        "audio": wanted.audio,
        "soundfont": wanted.soundfont.name,
        "shard_clips": wanted.shard_clips,
        **({} if wanted.clip_s == score_sound.CLIP_S else {"clip_s": wanted.clip_s}),
        **({"leads": sorted(wanted.leads)} if wanted.leads else {}),
    }
    begin_or_resume(wanted.output, wanted.output / SETTINGS_NAME, settings, "a dataset")
    return settings


def fill(wanted: ScoreDataset, writers: dict[str, PreparedWriter]) -> None:
    """Render piece after piece, in order, until there are enough seconds."""
    have = {split: stored_clips(wanted.output, split) for split in writers}
    seconds = sum(sum(clips.values()) for clips in have.values())
    last = {split: max(map(piece_index, clips), default=-1) for split, clips in have.items()}
    numbered = (
        ScoreJob(wanted.seed, index, tuple(sorted(wanted.sources)), tuple(sorted(wanted.leads)))
        for index in itertools.count(max(0, min(last.values())))
    )
    # clips are stored in order, so only a split's last piece can be there in part
    jobs = (
        (job, wanted.soundfont, wanted.audio == "keep", wanted.clip_s)
        for job in numbered
        if job.index >= last[job.split]
    )
    failures = 0
    with closing(map_in_order(render_piece, jobs, wanted.workers, wanted.scheduler)) as results:
        while seconds < wanted.hours * 3600:
            job, clips, reason = next(results)
            failures = failures + 1 if reason else 0
            if reason:
                print(f"skipped {job.track}: {reason}", file=sys.stderr)
                skipped = read_skipped(wanted.output) | {job.track: reason}
                write_json(wanted.output / SKIPPED_NAME, skipped)
            if failures >= MAX_FAILURE_RUN:
                raise OSError(f"{failures} pieces in a row could not be rendered, last: {reason}")
            for clip in clips:
                if clip.id not in have[job.split]:
                    writers[job.split].add(clip)
                    seconds += clip.duration_s
            if job.index % 100 == 99:
                print(f"{seconds / 3600:.2f} hours, piece {job.index}", flush=True)


def render_piece(job: tuple[ScoreJob, Path, bool, float]) -> tuple[ScoreJob, list[Clip], str]:
    """Compose, play and cut one piece; return its clips, or the reason why there are none."""
    piece, soundfont, keep_audio, clip_s = job
    try:
        score = compose_piece(piece)
        audio = score_sound.render(score, soundfont)
        seed = derive_seed(piece.seed, "scores", piece.index)
        clips = score_sound.cut_clips(score, audio, piece.track, seed, keep_audio, clip_s)
    except (score_sound.RenderError, ValueError, OSError) as error:
        return piece, [], f"{type(error).__name__}: {error}"
    return piece, clips, "" if clips else "shorter than a clip"


def read_skipped(folder: Path) -> dict[str, str]:
    """Read the skipped pieces and the reasons."""
    path = folder / SKIPPED_NAME
    return json.loads(path.read_text()) if path.is_file() else {}


def stored_clips(folder: Path, split: str) -> dict[str, float]:
    """Map the ids of the clips in whole shards to their duration (s)."""
    return {
        row["id"]: row["duration_s"] for row in read_split(folder / split, ["id", "duration_s"])
    }


def write_scores_report(folder: Path, info: dict[str, Any]) -> None:
    """Write ``report.json`` and ``report.md``: hours, sources, labels, skipped pieces."""
    skipped = read_skipped(folder)
    report = {
        "splits": info["splits"],
        "sources": info["sources"],
        "labels": label_histograms(folder),
        "skipped": skipped,
    }
    write_json(folder / "report.json", report)
    columns = ("source", "split", "hours", "license")
    write_page(
        folder / "report.md",
        [
            "# Rendered scores",
            table(columns, [[row[name] for name in columns] for row in info["sources"]]),
            f"Skipped: {len(skipped)}",
            bullets(f"{track}: {reason}" for track, reason in skipped.items()),
        ],
    )
