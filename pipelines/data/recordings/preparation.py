"""Audio files to a prepared dataset: cut, described, without silence and without duplicates.

The work goes in two stages. Every track is cut by itself, in any order and by any number of
processes, into a staged file that stays when the run is killed. Then duplicates are found, splits
are drawn and the staged clips are joined into shards in the order of the tracks. So a run that was
stopped anywhere and started again gives the same bytes as one that was not.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.recordings.prepare_config import PrepareConfig

if TYPE_CHECKING:
    from pipelines.data.recordings.tracks import Track

WORK_NAME = ".work"
NOT_PART_OF_THE_RESULT = ("output", "workers", "quiet")


@dataclass(frozen=True)
class PrepareReport:
    """What ``prepare`` did.

    Attributes:
        folder: the prepared dataset.
        info: the content of its ``dataset.json``.
        report: the content of its ``report.json``.
        seconds: time this call took; 0 when there was nothing left to do.
    """

    folder: Path
    info: dict[str, Any]
    report: dict[str, Any]
    seconds: float

    @property
    def hours(self) -> float:
        """Audio in all splits (hours)."""
        return sum(split["hours"] for split in self.info["splits"].values())


def prepare(config: PrepareConfig) -> PrepareReport:
    """Turn a folder, an archive or a list of audio files into a prepared dataset.

    Args:
        config: see ``PrepareConfig``.

    Returns:
        The report; the dataset opens with ``pipelines.data.prepared.open_prepared``.

    Raises:
        ValueError: there is nothing usable in the input, or the output folder holds a dataset made
            from other files or with other settings.
    """
    from pipelines.data.recordings.tracks import find_tracks

    return prepare_tracks(find_tracks(config.input), config)


def prepare_tracks(tracks: "list[Track]", config: PrepareConfig) -> PrepareReport:
    """As ``prepare``, from tracks that are already listed; ``config.input`` only names them."""
    from pipelines.data.prepared import finish_dataset
    from pipelines.data.recordings.cut_processes import cut_tracks
    from pipelines.data.recordings.joining import join_clips
    from pipelines.data.recordings.recordings_report import write_report
    from pipelines.data.recordings.track_selection import draw_splits, select, write_fingerprints

    started = time.monotonic()
    folder = Path(config.output)
    settings = result_settings(tracks, config)
    finished = read_finished(folder, settings)
    if finished is not None:
        return finished
    work = open_work(folder, settings)
    records = cut_tracks(tracks, config, work)
    selection = select(records, config)
    if not selection.kept:
        write_report(folder, records, selection, {"splits": {}, "sources": []})
        shutil.rmtree(work)
        raise ValueError(
            f"no usable audio file in {config.input}: {len(records)} files skipped "
            f"(see {folder / 'report.md'})"
        )
    draw_splits([records[index] for index in selection.kept], config)
    join_clips(folder, records, selection, config.shard_clips, work)
    write_fingerprints(folder, [records[index] for index in selection.kept])
    info = finish_dataset(folder, settings)
    report = write_report(folder, records, selection, info)
    shutil.rmtree(work)
    return PrepareReport(folder, info, report, time.monotonic() - started)


def result_settings(tracks: "list[Track]", config: PrepareConfig) -> dict[str, Any]:
    """Everything that the result depends on, the files' sizes and times included."""
    settings = {
        key: value for key, value in asdict(config).items() if key not in NOT_PART_OF_THE_RESULT
    }
    settings["validation_source"] = list(config.validation_source)
    described = [
        [*track.stamp(), track.source, track.split, track.metadata, track.labels]
        for track in tracks
    ]
    text = json.dumps(described, sort_keys=True, default=str)
    settings["tracks"] = len(tracks)
    settings["tracks_digest"] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return settings


def read_finished(folder: Path, settings: dict[str, Any]) -> PrepareReport | None:
    """The report of a dataset that these settings have already made, or None."""
    from pipelines.data.prepared import INFO_NAME, read_info

    if not (folder / INFO_NAME).is_file():
        return None
    info = read_info(folder)
    refuse_other_settings(folder, info["settings"], settings, "a prepared dataset")
    if not (folder / "report.json").is_file() or (folder / WORK_NAME).is_dir():
        return None
    return PrepareReport(folder, info, json.loads((folder / "report.json").read_text()), 0.0)


def open_work(folder: Path, settings: dict[str, Any]) -> Path:
    """Make or find the folder of staged tracks."""
    from codec.whole_file import write_json
    from pipelines.data.prepared import SPLITS
    from pipelines.data.shards import list_shards

    work = folder / WORK_NAME
    remembered = work / "settings.json"
    if remembered.is_file():
        found = json.loads(remembered.read_text())
        refuse_other_settings(folder, found, settings, "an unfinished preparation")
    else:
        if any(list_shards(folder / split) for split in SPLITS):
            raise ValueError(
                f"{folder} already holds shards of another origin: "
                "choose another --output or delete it"
            )
        work.mkdir(parents=True, exist_ok=True)
        write_json(remembered, settings)
    return work


def refuse_other_settings(
    folder: Path, found: dict[str, Any], wanted: dict[str, Any], what: str
) -> None:
    """Raise unless the settings are equal, naming the first that is not."""
    for key in wanted:
        if found.get(key) != wanted[key]:
            changed = (
                "other or changed audio files"
                if key in ("tracks", "tracks_digest")
                else f"{key}={found.get(key)!r} (now {wanted[key]!r})"
            )
            raise ValueError(
                f"{folder} holds {what} made with {changed}: choose another --output or delete it"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita prepare``."""
    parser.add_argument(
        "input", help="folder, .zip or .pk3 archive, metadata.jsonl, or text file listing paths"
    )
    add_output_arguments(parser)
    parser.add_argument("--source", default="", help="name of the collection")
    parser.add_argument("--license", default="", help="of files whose metadata name none")
    parser.add_argument("--attribution", default="", help="of files whose metadata name none")
    parser.add_argument(
        "--validation-fraction", type=float, default=0.05, help="of the tracks (default: 0.05)"
    )
    parser.add_argument(
        "--validation-source",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a source that goes to validation whole; may be repeated",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every way to prepare recordings shares."""
    parser.add_argument("--output", "--out", required=True, help="folder of the prepared dataset")
    parser.add_argument(
        "--clip", dest="clip_s", type=float, default=20.0, help="clip length in s (default: 20)"
    )
    parser.add_argument(
        "--min-clip",
        dest="min_clip_s",
        type=float,
        default=None,
        help="shortest last piece of a track that is kept, in s (default: 5, or the clip length)",
    )
    parser.add_argument(
        "--min-track",
        dest="min_track_s",
        type=float,
        default=5.0,
        help="skip shorter tracks, in s (default: 5)",
    )
    parser.add_argument(
        "--silence",
        dest="silence_db",
        type=float,
        default=-60.0,
        help="drop clips below this RMS, in dB of full scale (default: -60)",
    )
    parser.add_argument(
        "--audio", choices=("keep", "none"), default="keep", help="store FLAC too (default: keep)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Run ``partita prepare`` and print what came of it."""
    values = config_values(args)
    values["validation_source"] = tuple(args.validation_source)
    print_result(prepare(PrepareConfig(**values)))
    return 0


def config_values(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that are settings of ``PrepareConfig``."""
    names = PrepareConfig.__dataclass_fields__
    values = {name: value for name, value in vars(args).items() if name in names}
    if values["min_clip_s"] is None:
        values["min_clip_s"] = min(PrepareConfig.min_clip_s, args.clip_s)
    return values


def print_result(result: PrepareReport) -> None:
    """A few lines: hours per split, what was left out, how fast it went."""
    splits = result.info["splits"]
    parts = [
        f"{split} {row['hours']:.2f} h in {row['clips']} clips" for split, row in splits.items()
    ]
    print(f"{result.folder}: {', '.join(parts)}")
    hours: Counter[tuple[str, str, str]] = Counter()
    for row in result.info["sources"]:
        hours[row["split"], row["source"], row["license"] or "no license"] += row["hours"]
    for (split, source, license_name), value in hours.items():
        print(f"  {value:7.2f} h  {split:10}  {source}  ({license_name})")
    skipped, duplicates = len(result.report["skipped"]), len(result.report["duplicates"])
    print(f"  {skipped} files skipped, {duplicates} duplicates dropped: see report.md")
    for warning in result.report["warnings"]:
        print(f"  warning: {warning}")
    if result.seconds:
        speed = result.hours / (result.seconds / 60)
        print(f"  {result.seconds:.0f} s, {speed:.2f} hours of audio a minute")
    else:
        print("  it was finished already; nothing was done")


def main(argv: list[str] | None = None) -> int:
    """``python pipelines/data/recordings/recordings.py``: the same as ``partita prepare``."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] in (["music"], ["tokens"]):
        module = (
            "pipelines.data.recordings.debian_music"
            if arguments[0] == "music"
            else "pipelines.data.token_cache"
        )
        return int(import_module(module).main(arguments[1:]))
    parser = argparse.ArgumentParser(prog="partita prepare", description=__doc__.splitlines()[0])
    add_arguments(parser)
    return run_reporting(run, parser.parse_args(arguments))


def run_reporting(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; a user's error is one line on standard error and exit code 2."""
    try:
        return command(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
