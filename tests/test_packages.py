"""Music of Debian packages: titles, licenses, and packages that are missing."""

import zipfile
from dataclasses import replace

import pytest
from tiny_recordings import melody, save

from pipelines.data.prepared import open_prepared
from pipelines.data.recordings import debian_music as packaged
from pipelines.data.recordings.cutting import title_of
from pipelines.data.recordings.debian_music import MusicConfig, find_license, read_copyright


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("a/03_second_birth.ogg", "second birth"),
        ("12_-_Misanthropia.ogg", "Misanthropia"),
        ("track17.opus", ""),
        ("04.wav", ""),
        ("Sean Hawk - Imperia.ogg", "Sean Hawk - Imperia"),
    ],
)
def test_titles_from_file_names(name, title):
    assert title_of(name) == title


COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Game

Files: *
Copyright: 2002, The team
License: GPL-2+

Files:
 base/music/David01.ogg
 base/music/van_theme.ogg
Copyright:
 Someone
License: CC-BY-3.0

License: CC-BY-3.0
 The text.
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two small packages laid out like ufoai-music and wizznic-data."""
    root, documents = tmp_path / "games", tmp_path / "doc"
    save(root / "wizznic/packs/x/music/Sean Hawk - Imperia.ogg", melody(1, 3.0), title="Imperia")
    for seed, name in enumerate(("David01", "van_theme", "PsymongN1"), start=2):
        save(tmp_path / f"{name}.ogg", melody(seed, 3.0))
    (root / "ufoai/base").mkdir(parents=True)
    with zipfile.ZipFile(root / "ufoai/base/0music.pk3", "w") as archive:
        for name in ("David01", "van_theme", "PsymongN1"):
            archive.write(tmp_path / f"{name}.ogg", f"music/{name}.ogg")
    (documents / "ufoai-music").mkdir(parents=True)
    (documents / "ufoai-music/copyright").write_text(COPYRIGHT)
    names = ("ufoai-music", "wizznic-data")
    chosen = tuple(package for package in packaged.read_packages() if package.name in names)
    monkeypatch.setattr(packaged, "read_packages", lambda: chosen)
    return MusicConfig(str(tmp_path / "out"), root=root, documents=documents)


OPTIONS = {"clip_s": 2.0, "min_clip_s": 1.0, "min_track_s": 1.0, "quiet": True}


def test_packages_carry_their_licenses_and_are_split_whole(packages, capsys):
    result = packaged.prepare_music(packages, **OPTIONS)
    train = open_prepared(result.folder, "train")
    validation = open_prepared(result.folder, "validation")
    assert set(train["track"]) == {
        "ufoai-music/music/David01.ogg",
        "ufoai-music/music/van_theme.ogg",
    }
    assert set(train["license"]) == {"CC-BY-3.0"}
    assert set(validation["license"]) == {"GPL-3"}
    assert validation[0]["captions"] == ["Imperia, fast techno", "fast techno"]
    assert "Manuel" in train[2]["attribution"]
    assert "1 files under the GPL left out" in capsys.readouterr().out


def test_gpl_files_are_taken_when_asked_for(packages):
    result = packaged.prepare_music(replace(packages, include_gpl=True), **OPTIONS)
    assert "ufoai-music/music/PsymongN1.ogg" in set(open_prepared(result.folder)["track"])


def test_a_missing_package_is_named_with_the_command(packages, capsys, monkeypatch):
    (packages.root / "ufoai/base/0music.pk3").unlink()
    with pytest.raises(ValueError, match="apt-get install --no-install-recommends ufoai-music"):
        packaged.choose_packages(packages)
    named = replace(packages, packages=("ufoai-music", "wizznic-data"))
    assert [package.name for package in packaged.choose_packages(named)] == ["wizznic-data"]
    assert "apt-get install" in capsys.readouterr().err
    with pytest.raises(ValueError, match="packages must be among"):
        packaged.choose_packages(replace(packages, packages=("wesnoth",)))


def test_the_last_fitting_paragraph_of_a_copyright_file_counts(tmp_path):
    (tmp_path / "copyright").write_text(COPYRIGHT)
    rules = read_copyright(tmp_path / "copyright")
    assert find_license(rules, "base/music/David01.ogg") == "CC-BY-3.0"
    assert find_license(rules, "base/music/Other.ogg") == "GPL-2+"
    with pytest.raises(ValueError, match="names no license for x"):
        find_license([], "x")


def test_every_listed_package_says_what_holds_for_its_files():
    packages = packaged.read_packages()
    assert len({package.name for package in packages}) == len(packages) >= 6
    rules = [rule for package in packages for rule in package.rules]
    assert all(rule.pattern and rule.attribution and rule.words for rule in rules)
    assert {package.split for package in packages} == {"train", "validation"}
