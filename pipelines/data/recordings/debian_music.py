"""Real recordings from Debian packages to a prepared dataset, each file under its own license.

Which license holds for which file was read in the packages' own copyright files (Debian 12); where
such a file lists the music one by one, it is read again here. What ships is trained on free
recordings only (public domain, MIT, CC-BY, CC-BY-SA): files under the GPL are left out of training
unless ``include_gpl`` asks for them.
"""

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.recordings.preparation import (
    PrepareConfig,
    PrepareReport,
    add_output_arguments,
    config_values,
    prepare_tracks,
    print_result,
    run_reporting,
)

if TYPE_CHECKING:
    from pipelines.data.recordings.tracks import Track

GAMES = Path("/usr/share/games")
DOCUMENTS = Path("/usr/share/doc")
MIN_TRACK_S = 25.0
"""Shorter files of these packages are jingles and sound effects."""


@dataclass(frozen=True)
class Rule:
    """What holds for the files of a package whose path below its folder fits a pattern.

    Args:
        pattern: for ``fnmatch``; the first rule that fits counts.
        license: "" looks it up in the package's copyright file.
        attribution: whom to credit.
        words: genre and mood, as a caption says them.
        prefix: what to take off the file's name to get a title.
        title: False where file names are no titles.
    """

    pattern: str
    license: str
    attribution: str
    words: str
    prefix: str = ""
    title: bool = True


@dataclass(frozen=True)
class Package:
    """A Debian package of music.

    Args:
        name: of the package, and of the source in the dataset.
        path: folder or archive below ``/usr/share/games``.
        rules: see ``Rule``; a file that fits none is not music.
        split: "train" or "validation"; packages are split whole.
        copyright_prefix: from the path below ``path`` to that in the copyright file.
        stem: name of a file beside each track that is added to it.
    """

    name: str
    path: str
    rules: tuple[Rule, ...]
    split: str = "train"
    copyright_prefix: str = ""
    stem: str = ""


BY_SA = "CC-BY-SA-3.0"
MAXSTACK = "Max McCracken (Maxstack), Endgame: Singularity"
OBSIDIAN_SHELL = Rule("*", BY_SA, "Obsidian Shell", "melodic metal band with a female singer")
UFO = "UFO: Alien Invasion"
CRYSTAN = f'Christian "Crystan" Hoffmann, {UFO}'
MARINE = f'"Marine" Baklund, {UFO}'
VANETHIAN = f'Manuel "Vanethian" Marino (www.manuelmarino.com), {UFO}'
GOLGOTHA = Rule("", "", f"Independent.nu and Golgotha, {UFO}", "game soundtrack", title=False)
UFO_TEAM = f'"Marine" Baklund, Gren, Christian Hoffmann, Slippycurb and the {UFO} team'
UFO_RULES = (
    Rule("*/David*", "", f"David Reeves (Destructavator), {UFO}", "game soundtrack", "David"),
    Rule("*/azrael*", "", f"azrael1322, {UFO}", "game soundtrack", title=False),
    Rule("*/karlmacklin_*", "", f"Karl Macklin, {UFO}", "game soundtrack", "karlmacklin_"),
    Rule("*/van_mission*", "", VANETHIAN, "tense game soundtrack", "van_"),
    Rule("*/van_*", "", VANETHIAN, "game soundtrack", "van_"),
    Rule("*/Crystan-Battlescape*", "", CRYSTAN, "battle soundtrack", "Crystan-"),
    Rule("*/Crystan-IntroSad*", "", CRYSTAN, "sad game soundtrack", "Crystan-"),
    Rule("*/Crystan-*", "", CRYSTAN, "game soundtrack", "Crystan-"),
    Rule("*/MarineIndustrial*", "", MARINE, "industrial game soundtrack", "Marine"),
    Rule("*/Marine*", "", MARINE, "game soundtrack", "Marine"),
    Rule("*/TheThings-*", "", f"Slippycurb, {UFO}", "game soundtrack", title=False),
    replace(GOLGOTHA, pattern="*/alBasrahM*"),
    replace(GOLGOTHA, pattern="*/greecei*"),
    replace(GOLGOTHA, pattern="*/turinItalyM*"),
    Rule("*/dynamictest-*", "", UFO_TEAM, "game soundtrack", title=False),
    Rule("*/Psymong*", "", f"Simon Green (Psymong), {UFO}", "game soundtrack", title=False),
    Rule("*", "", UFO_TEAM, "game soundtrack"),
)
LUPUS = "LupusMechanicus, Warzone 2100"
SEVERN = "Martin Severn, Warzone 2100"
WARZONE_RULES = (
    Rule("albums/*/track3_enhanced.opus", "GPL-2+", f"{SEVERN}; LupusMechanicus", "electronic"),
    Rule("albums/aftermath_*", BY_SA, f"{LUPUS} - Aftermath Soundtrack", "techno, drums"),
    Rule("albums/legacy_*", BY_SA, f"{LUPUS} - Legacy Soundtrack", "techno, drums"),
    Rule("*", "GPL-2+", SEVERN, "electronic"),
)
PACKAGES = (
    Package(
        "singularity-music",
        "singularity/music",
        (
            Rule("lose/*", BY_SA, MAXSTACK, "dark ambient electronic"),
            Rule("*", BY_SA, MAXSTACK, "ambient electronic"),
        ),
    ),
    Package(
        "marsshooter-data",
        "marsshooter/audio",
        tuple(replace(OBSIDIAN_SHELL, pattern=p) for p in ("music/*", "menu.ogg", "tutorial.ogg")),
    ),
    Package("ufoai-music", "ufoai/base/0music.pk3", UFO_RULES, copyright_prefix="base/"),
    Package("warzone2100-music", "warzone2100/music", WARZONE_RULES),
    Package(
        "fretsonfire-songs-sectoid",
        "fretsonfire/data/songs/sectoid",
        (Rule("*/song.ogg", "MIT", "Carlos Viola Iborra (Sectoid)", "instrumental rock, guitar"),),
        split="validation",
        stem="guitar.ogg",
    ),
    Package(
        "wizznic-data",
        "wizznic",
        (
            Rule("packs/*/music/*", "GPL-3", "Sean Hawk, Wizznic Soundtrack", "fast techno"),
            Rule("data/menu-music.ogg", "GPL-3", "Sean Hawk, Wizznic Soundtrack", "techno"),
        ),
        split="validation",
    ),
)


@dataclass(frozen=True)
class MusicConfig:
    """What ``prepare music`` takes.

    Args:
        output: folder of the prepared dataset.
        packages: names out of ``PACKAGES``; empty means all of them, which must be installed.
        include_gpl: train on files under the GPL too.
        root: where the packages are installed.
        documents: where their copyright files are.
    """

    output: str
    packages: tuple[str, ...] = ()
    include_gpl: bool = False
    root: Path = GAMES
    documents: Path = DOCUMENTS


def prepare_music(config: MusicConfig, **options: Any) -> PrepareReport:
    """Prepare the recordings of the installed packages.

    Args:
        config: which packages, and where to.
        options: further settings of ``PrepareConfig``.

    Returns:
        The report.

    Raises:
        ValueError: a package is unknown or not installed.
    """
    packages = choose_packages(config)
    tracks, left_out = list_music(packages, config)
    if left_out:
        print(f"{left_out} files under the GPL left out of training (--include-gpl takes them)")
    has_validation = any(track.split == "validation" for track in tracks)
    if not has_validation:
        tracks = [replace(track, split="") for track in tracks]
    names = " ".join(package.name for package in packages)
    values = {"min_track_s": MIN_TRACK_S, **options}
    return prepare_tracks(tracks, PrepareConfig(names, config.output, **values))


def choose_packages(config: MusicConfig) -> list[Package]:
    """The packages asked for that are installed; a missing one is an error unless it was named."""
    known = {package.name: package for package in PACKAGES}
    unknown = [name for name in config.packages if name not in known]
    if unknown:
        raise ValueError(f"packages must be among {', '.join(known)}, got {unknown[0]!r}")
    wanted = [known[name] for name in config.packages or known]
    missing = [package.name for package in wanted if not (config.root / package.path).exists()]
    advice = f"not installed: apt-get install --no-install-recommends {' '.join(missing)}"
    if missing and (not config.packages or len(missing) == len(wanted)):
        raise ValueError(advice)
    if missing:
        print(f"{advice} (left out)", file=sys.stderr)
    return [package for package in wanted if package.name not in missing]


def list_music(packages: list[Package], config: MusicConfig) -> "tuple[list[Track], int]":
    """Tracks of the packages, and how many were left out for their license."""
    tracks, left_out = [], 0
    for package in packages:
        licenses = read_copyright(config.documents / package.name / "copyright")
        for track in list_package(package, config.root, licenses):
            is_gpl = "GPL" in track.metadata["license"]
            if is_gpl and package.split == "train" and not config.include_gpl:
                left_out += 1
            else:
                tracks.append(track)
    return sorted(tracks, key=lambda track: track.name), left_out


def list_package(
    package: Package, root: Path, licenses: list[tuple[str, str]]
) -> "Iterator[Track]":
    """The tracks of one package with license, attribution, genre and title."""
    from pipelines.data.recordings.tracks import Track

    path = root / package.path
    titles = read_album_titles(path)
    for name in list_names(path):
        rule = next((rule for rule in package.rules if fnmatch(name, rule.pattern)), None)
        if rule is None:
            continue
        metadata = {
            "genre": rule.words,
            "license": rule.license or find_license(licenses, package.copyright_prefix + name),
            "attribution": rule.attribution,
            "title": titles.get(name) or title_by_rule(name, rule, package),
        }
        metadata = {key: value for key, value in metadata.items() if value}
        in_archive = path.is_file()
        yield Track(
            f"{package.name}/{name}",
            path if in_archive else path / name,
            name if in_archive else "",
            package.name,
            package.split,
            metadata,
            stems=((path / name).with_name(package.stem),) if package.stem else (),
        )


def list_names(path: Path) -> list[str]:
    """Audio files of a package, relative to its folder or archive."""
    from pipelines.data.recordings.tracks import is_audio

    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    else:
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    return sorted(name for name in names if is_audio(name))


def title_by_rule(name: str, rule: Rule, package: Package) -> str:
    """A title from a file's name, from its folder when stems carry the file names, or ""."""
    path = Path(name)
    if package.stem:
        return path.parent.name
    if not rule.prefix:
        return "" if rule.title else rule.words
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.stem.removeprefix(rule.prefix))
    title = re.sub(r"[_\d\s]+", " ", spaced).strip()
    return title or rule.words


def read_album_titles(path: Path) -> dict[str, str]:
    """Titles from the ``album.json`` files of warzone2100-music, by path below the package."""
    titles: dict[str, str] = {}
    if path.is_dir():
        for album in sorted(path.rglob("album.json")):
            for track in json.loads(album.read_text())["tracks"]:
                name = (album.parent / track["filename"]).relative_to(path).as_posix()
                if not re.match(r"Track \d", track["title"]):
                    titles[name] = track["title"]
    return titles


def read_copyright(path: Path) -> list[tuple[str, str]]:
    """Pattern and license of every ``Files`` paragraph of a Debian copyright file, in order."""
    if not path.is_file():
        return []
    rules = []
    for paragraph in re.split(r"\n\s*\n", path.read_text(errors="replace")):
        found = re.match(r"\s*Files:(.*?)\n(?=\S)", paragraph, re.DOTALL)
        license_name = re.search(r"^License:[ \t]*(\S+)", paragraph, re.MULTILINE)
        if found and license_name:
            rules += [(pattern, license_name[1]) for pattern in found[1].split()]
    return rules


def find_license(rules: list[tuple[str, str]], name: str) -> str:
    """The license of the last pattern that fits, as the format of copyright files has it."""
    fitting = [license_name for pattern, license_name in rules if fnmatch(name, pattern)]
    if not fitting:
        raise ValueError(f"the copyright file names no license for {name}")
    return fitting[-1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita prepare music``."""
    add_output_arguments(parser)
    parser.set_defaults(min_track_s=MIN_TRACK_S)
    parser.add_argument(
        "--packages",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help=f"of {', '.join(package.name for package in PACKAGES)} (default: all)",
    )
    parser.add_argument(
        "--include-gpl", action="store_true", help="train on files under the GPL too"
    )


def run(args: argparse.Namespace) -> int:
    """Run ``partita prepare music`` and print what came of it."""
    options = config_values(args)
    config = MusicConfig(options.pop("output"), tuple(args.packages), args.include_gpl)
    print_result(prepare_music(config, **options))
    return 0


def main(argv: list[str] | None = None) -> int:
    """``python pipelines/data/recordings/music.py``: the same as ``partita prepare music``."""
    parser = argparse.ArgumentParser(
        prog="partita prepare music", description=__doc__.splitlines()[0]
    )
    add_arguments(parser)
    return run_reporting(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
