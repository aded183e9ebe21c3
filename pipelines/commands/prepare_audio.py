"""``partita prepare audio``: the audio files of a folder, an archive or a list to a dataset."""

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from pipelines.data.recordings.prepare_config import PrepareConfig

if TYPE_CHECKING:
    from pipelines.data.recordings.preparation import PrepareReport
SHOWN = 10  # lines of each kind in the terminal; the report has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        help="folder, .zip or .pk3 archive, metadata.jsonl or .csv, or text file listing paths",
    )
    add_output_arguments(parser)
    parser.add_argument("--source", default="", help="name of the collection")
    parser.add_argument("--license", default="", help="of files whose metadata name none")
    parser.add_argument("--attribution", default="", help="of files whose metadata name none")
    parser.add_argument("--validation-fraction", type=float, default=0.05, help="of the tracks")
    parser.add_argument(
        "--validation-source",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a source that goes to validation whole; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset and print what came of it."""
    from pipelines.data.recordings.preparation import prepare

    print_result(prepare(PrepareConfig(**config_values(args))))
    return 0


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that ``prepare audio`` and ``prepare music`` share."""
    parser.add_argument("--output", required=True, help="folder of the prepared dataset")
    parser.add_argument("--clip", dest="clip_s", type=float, default=20.0, help="clip length in s")
    parser.add_argument(
        "--min-clip",
        dest="min_clip_s",
        type=float,
        default=None,
        help="shortest last piece of a track that is kept, in s (default: 5, or the clip length)",
    )
    parser.add_argument(
        "--min-track", dest="min_track_s", type=float, default=5.0, help="skip shorter tracks, in s"
    )
    parser.add_argument(
        "--silence",
        dest="silence_db",
        type=float,
        default=-60.0,
        help="drop clips below this RMS, in dB of full scale",
    )
    parser.add_argument("--audio", choices=("keep", "none"), default="keep", help="store FLAC too")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    add_scheduler_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_scheduler_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--scheduler``, for what a dask cluster can prepare."""
    parser.add_argument(
        "--scheduler",
        metavar="URL",
        help="running dask scheduler, tcp://host:port, whose workers see the same folders",
    )


def config_values(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that are settings of ``PrepareConfig``."""
    names = PrepareConfig.__dataclass_fields__
    values = {name: value for name, value in vars(args).items() if name in names}
    if values["min_clip_s"] is None:
        values["min_clip_s"] = min(PrepareConfig.min_clip_s, args.clip_s)
    return values


def first_few(lines: list[str]) -> list[str]:
    """Return up to ten lines, and how many more there are."""
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]


def print_result(result: "PrepareReport") -> None:
    """Print hours per split and source, what was left out and how fast it went."""
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
    for text in first_few([f"{r['track']}: {r['detail']}" for r in result.report["skipped"]]):
        print(f"    skipped: {text}")
    for text in first_few(result.report.get("metadata", [])):
        print(f"    metadata: {text}")
    for text in first_few(
        [f"{r['track']}: {r['note']}" for r in result.report.get("put_right", [])]
    ):
        print(f"    put right: {text}")
    for warning in result.report["warnings"]:
        print(f"  warning: {warning}")
    if result.seconds:
        speed = result.hours / (result.seconds / 60)
        print(f"  {result.seconds:.0f} s, {speed:.2f} hours of audio a minute")
    else:
        print("  it was finished already; nothing was done")
