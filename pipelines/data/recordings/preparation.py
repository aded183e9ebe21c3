"""Turn audio files into a prepared dataset without silence and duplicates.

First every track is cut into a staged file, in any order and by any number of processes; a killed
run keeps those. Then duplicates are dropped, splits are drawn and the staged clips are joined into
shards in the order of the tracks. So a run that was killed and resumed gives the bytes of a whole
one.
"""

import json
import shutil
import time
from collections import deque
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from codec.whole_file import write_json
from pipelines.data.prepared import (
    INFO_NAME,
    SPLITS,
    PreparedWriter,
    finish_dataset,
    iterate_clips,
    read_info,
)
from pipelines.data.recordings.cutting import TrackRecord, cut_track
from pipelines.data.recordings.prepare_config import PrepareConfig
from pipelines.data.recordings.recordings_report import write_report
from pipelines.data.recordings.track import Track
from pipelines.data.recordings.track_selection import (
    Selection,
    draw_splits,
    select,
    write_fingerprints,
)
from pipelines.data.recordings.tracks import TrackList, find_tracks
from pipelines.data.shards import begin_or_resume, refuse_other
from pipelines.data.tokens import hash_text
from pipelines.data.worker_processes import map_in_order

WORK_NAME = ".work"
NOT_PART_OF_THE_RESULT = ("output", "workers", "scheduler", "quiet")


@dataclass(frozen=True)
class PrepareReport:
    """Hold what came of a preparation."""

    folder: Path  # the prepared dataset
    info: dict[str, Any]  # the content of its ``dataset.json``
    report: dict[str, Any]  # the content of its ``report.json``
    seconds: float  # time this call took; 0 when there was nothing left to do

    @property
    def hours(self) -> float:
        """Return the hours of audio in all splits."""
        return sum(split["hours"] for split in self.info["splits"].values())


def prepare(config: PrepareConfig) -> PrepareReport:
    """Turn a folder, an archive or a list of audio files into a prepared dataset.

    Raises:
        ValueError: there is nothing usable in the input, or the output folder holds a dataset made
            from other files or with other settings. A bad file, row or name ends nothing: the
            report names it.
    """
    return prepare_tracks(find_tracks(config.input), config)


def prepare_tracks(found: TrackList, config: PrepareConfig) -> PrepareReport:
    """Prepare listed tracks; ``config.input`` only names them in messages."""
    started = time.monotonic()
    folder, tracks = Path(config.output), found.tracks
    check_sources(tracks, config)
    settings = result_settings(tracks, config)
    finished = read_finished(folder, settings)
    if finished is not None:
        return finished
    work = folder / WORK_NAME
    begin(folder, work / "settings.json", settings)
    staged = [work / f"{digest(described(track))}.arrow" for track in tracks]
    records = cut_tracks(tracks, config, staged)
    selection = select(records, config)
    if not selection.kept:
        write_report(folder, records, selection, {"splits": {}, "sources": []}, found)
        shutil.rmtree(work)
        raise ValueError(
            f"no usable audio file in {config.input}: {len(records)} files skipped "
            f"(see {folder / 'report.md'})"
        )
    draw_splits([records[index] for index in selection.kept], config)
    join_clips(folder, records, selection, config.shard_clips, staged)
    write_fingerprints(folder, [records[index] for index in selection.kept])
    info = finish_dataset(folder, settings)
    report = write_report(folder, records, selection, info, found)
    shutil.rmtree(work)
    return PrepareReport(folder, info, report, time.monotonic() - started)


def check_sources(tracks: list[Track], config: PrepareConfig) -> None:
    """Raise ValueError for a ``validation_source`` that no track has, before anything is cut."""
    there = {track.metadata.get("source") or config.source or track.source for track in tracks}
    unknown = sorted(set(config.validation_source) - there)
    if unknown:
        raise ValueError(
            f"validation_source must name sources of the input, got {unknown[0]!r}; "
            f"there are {sorted(there)}"
        )


def begin(folder: Path, path: Path, settings: dict[str, Any]) -> None:
    """Store the settings of a preparation, or go on with one; only changed files are cut anew.

    Raises:
        ValueError: the folder was begun with other settings, or holds shards of unknown ones.
    """
    if path.is_file():
        found = json.loads(path.read_text())
        ours = {name: settings[name] for name in ("tracks", "tracks_digest")}
        if found | ours == settings != found:  # other files or metadata, cut in the same way
            for split in SPLITS:
                shutil.rmtree(folder / split, ignore_errors=True)
            write_json(path, settings)
    begin_or_resume(folder, path, settings, "an unfinished preparation")


def described(track: Track) -> list[Any]:
    """List all that the clips of a track depend on beside the settings."""
    return [*track.stamp(), track.source, track.split, track.metadata, track.labels, track.fault]


def digest(facts: list[Any]) -> str:
    """Hash facts (BLAKE2b of their JSON)."""
    return hash_text(json.dumps(facts, sort_keys=True, default=str))


def cut_tracks(tracks: list[Track], config: PrepareConfig, staged: list[Path]) -> list[TrackRecord]:
    """Cut every track that is not staged yet; records come back in the order of the tracks."""
    jobs = [(track, config, path) for track, path in zip(tracks, staged, strict=True)]
    records: list[TrackRecord] = []
    with (
        closing(map_in_order(cut_one, jobs, config.workers, config.scheduler)) as results,
        tqdm(total=len(jobs), unit="track", disable=config.quiet or None) as bar,
    ):
        for record in results:
            records.append(record)
            bar.update()
            bar.set_postfix_str(record.name[-40:])
    return records


def cut_one(job: tuple[Track, PrepareConfig, Path]) -> TrackRecord:
    """Call ``cut_track`` with a job's values."""
    return cut_track(*job)


def join_clips(
    folder: Path,
    records: list[TrackRecord],
    selection: Selection,
    shard_clips: int,
    staged: list[Path],
) -> None:
    """Write the staged clips of each split in order, and delete those that whole shards hold."""
    for split in SPLITS:
        chosen = [index for index in selection.kept if records[index].split == split]
        if not chosen:
            continue
        with PreparedWriter(folder, split, shard_clips) as writer:
            done, end = writer.complete_rows, 0
            written: deque[tuple[Path, int]] = deque()
            for index in chosen:
                start, end = end, end + records[index].num_clips
                if end <= done:
                    continue
                for clip in islice(iterate_clips([staged[index]]), max(0, done - start), None):
                    writer.add(clip)
                written.append((staged[index], end))
                while written and written[0][1] <= writer.complete_rows:
                    written.popleft()[0].unlink()


def result_settings(tracks: list[Track], config: PrepareConfig) -> dict[str, Any]:
    """Collect all that the result depends on, including sizes and times of the files."""
    settings = {k: v for k, v in asdict(config).items() if k not in NOT_PART_OF_THE_RESULT}
    settings["validation_source"] = list(config.validation_source)
    settings["tracks"] = len(tracks)
    settings["tracks_digest"] = digest([described(track) for track in tracks])
    return settings


def read_finished(folder: Path, settings: dict[str, Any]) -> PrepareReport | None:
    """Read the report of a dataset that these settings have already made, or return None."""
    if not (folder / INFO_NAME).is_file():
        return None
    info = read_info(folder)
    refuse_other(folder, info["settings"], settings, "a prepared dataset")
    if not (folder / "report.json").is_file() or (folder / WORK_NAME).is_dir():
        return None
    return PrepareReport(folder, info, json.loads((folder / "report.json").read_text()), 0.0)
