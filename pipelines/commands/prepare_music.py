"""``partita prepare music``: the music of Debian packages to a dataset."""

import argparse

from pipelines.commands.prepare_audio import add_output_arguments, config_values, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from pipelines.data.recordings.debian_music import MIN_TRACK_S, read_packages

    add_output_arguments(parser)
    parser.set_defaults(min_track_s=MIN_TRACK_S)
    parser.add_argument(
        "--packages",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help=f"of {', '.join(package.name for package in read_packages())} (default: all)",
    )
    parser.add_argument(
        "--include-gpl", action="store_true", help="train on files under the GPL too"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset and print what came of it."""
    from pipelines.data.recordings.debian_music import MusicConfig, prepare_music

    options = config_values(args)
    config = MusicConfig(options.pop("output"), tuple(args.packages), args.include_gpl)
    print_result(prepare_music(config, **options))
    return 0
