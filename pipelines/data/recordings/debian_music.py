"""Prepare the music of Debian packages, each file under its own license.

``debian_music.yaml`` lists the packages. Where it names no license, a file's license is read in the
package's copyright file. The released models are trained on free recordings only (public domain,
MIT, CC-BY, CC-BY-SA), so files under the GPL are left out unless ``include_gpl`` is set.
"""

import functools
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from pipelines.data.recordings.preparation import PrepareConfig, PrepareReport, prepare_tracks
from pipelines.data.recordings.track import Track
from pipelines.data.recordings.tracks import TrackList, is_audio
from pipelines.errors import check_names

GAMES = Path("/usr/share/games")
DOCUMENTS = Path("/usr/share/doc")
PACKAGES_FILE = Path(__file__).with_suffix(".yaml")
RULE_FIELDS = ("license", "attribution", "words")
MIN_TRACK_S = 25.0  # shorter files of these packages are jingles and sound effects


@dataclass(frozen=True)
class Rule:
    """Hold license and words of a package's files that match a pattern (``debian_music.yaml``)."""

    pattern: str
    attribution: str
    words: str
    license: str = ""
    prefix: str = ""
    title: bool = True


@dataclass(frozen=True)
class Package:
    """Describe a Debian package of music; ``debian_music.yaml`` explains the fields."""

    name: str
    path: str
    rules: tuple[Rule, ...]
    split: str = "train"
    copyright_prefix: str = ""
    stem: str = ""


@functools.cache
def read_packages() -> tuple[Package, ...]:
    """Read ``debian_music.yaml``; fields of a package apply to all its rules."""
    packages = []
    for row in yaml.safe_load(PACKAGES_FILE.read_text(encoding="utf-8")):
        shared = {name: row.pop(name) for name in RULE_FIELDS if name in row}
        rules = tuple(Rule(**(shared | rule)) for rule in row.pop("rules"))
        packages.append(Package(rules=rules, **row))
    return tuple(packages)


@dataclass(frozen=True)
class MusicConfig:
    """Hold the options of ``partita prepare music``."""

    output: str  # folder of the prepared dataset
    # names in ``debian_music.yaml``; by default all, which must be installed
    packages: tuple[str, ...] = ()
    include_gpl: bool = False  # train on files under the GPL too
    root: Path = GAMES  # where the packages are installed
    documents: Path = DOCUMENTS  # where their copyright files are


def prepare_music(config: MusicConfig, **options: Any) -> PrepareReport:
    """Prepare the recordings of the installed packages; ``options`` are of ``PrepareConfig``.

    Raises:
        ValueError: a package is unknown or not installed.
    """
    packages = choose_packages(config)
    tracks, left_out = list_music(packages, config)
    if left_out:
        print(f"{left_out} files under the GPL left out of training (--include-gpl takes them)")
    if not any(track.split == "validation" for track in tracks):  # draw the splits instead
        tracks = [replace(track, split="") for track in tracks]
    names = " ".join(package.name for package in packages)
    options = {"min_track_s": MIN_TRACK_S, **options}
    return prepare_tracks(TrackList(tracks), PrepareConfig(names, config.output, **options))


def choose_packages(config: MusicConfig) -> list[Package]:
    """Find the wanted packages that are installed; where none is named, all must be."""
    known = {package.name: package for package in read_packages()}
    check_names("packages", config.packages, known)
    wanted = [known[name] for name in config.packages or known]
    missing = [package.name for package in wanted if not (config.root / package.path).exists()]
    advice = f"not installed: apt-get install --no-install-recommends {' '.join(missing)}"
    if missing and (not config.packages or len(missing) == len(wanted)):
        raise ValueError(advice)
    if missing:
        print(f"{advice} (left out)", file=sys.stderr)
    return [package for package in wanted if package.name not in missing]


def list_music(packages: list[Package], config: MusicConfig) -> tuple[list[Track], int]:
    """List the tracks of the packages, and count those left out for their license."""
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


def list_package(package: Package, root: Path, licenses: list[tuple[str, str]]) -> Iterator[Track]:
    """List the tracks of one package with license, attribution, genre and title."""
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
    """List the audio files of a package, relative to its folder or archive."""
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    else:
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    return sorted(name for name in names if is_audio(name))


def title_by_rule(name: str, rule: Rule, package: Package) -> str:
    """Make a title from a file's name, or from its folder's where files are named by stem."""
    path = Path(name)
    if package.stem:
        return path.parent.name
    if not rule.prefix:
        return "" if rule.title else rule.words
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.stem.removeprefix(rule.prefix))
    title = re.sub(r"[_\d\s]+", " ", spaced).strip()
    return title or rule.words


def read_album_titles(path: Path) -> dict[str, str]:
    """Read titles from the ``album.json`` files of warzone2100-music, by path in the package."""
    titles: dict[str, str] = {}
    if path.is_dir():
        for album in sorted(path.rglob("album.json")):
            for track in json.loads(album.read_text())["tracks"]:
                name = (album.parent / track["filename"]).relative_to(path).as_posix()
                if not re.match(r"Track \d", track["title"]):
                    titles[name] = track["title"]
    return titles


def read_copyright(path: Path) -> list[tuple[str, str]]:
    """Read pattern and license of each ``Files`` paragraph of a Debian copyright file."""
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
    """Return the license of the last matching pattern, which takes precedence in Debian."""
    fitting = [license_name for pattern, license_name in rules if fnmatch(name, pattern)]
    if not fitting:
        raise ValueError(f"the copyright file names no license for {name}")
    return fitting[-1]
