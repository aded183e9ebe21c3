"""The sheet: every item, any prompt, nothing from the network; and in a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch

pytest.importorskip("matplotlib")

from codec.audio_file import write_audio
from codec.seeds import generator
from pipelines.cli import main
from pipelines.errors import MissingPackageError
from pipelines.rendering.manifest import ManifestEntry, write_manifest
from pipelines.rendering.sheet import write_sheet

EVIL = "</p><script>alert(1)</script> \"quoted\" & 'single' <img src=x onerror=alert(2)> $items"
PROMPTS = {
    "waltz": "a slow waltz\nin two lines",
    "évil #1": EVIL,
    "größe 音楽": "größe 音楽 🎹",
    "x10": "techno",
    "x9": "techno, faster",
}
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
SETTINGS = {"duration_s": 0.5, "guidance": 3.0, "temperature": 1.0, "top_p": None, "format": "wav"}


def entry(folder: Path, index: int, name: str) -> ManifestEntry:
    """A finished item of noise, of its own length and level, and its file."""
    file = f"{name}.{'flac' if index % 2 else 'wav'}"
    audio = 0.02 * (index + 1) * torch.randn(2, 4410 * (index + 1), generator=generator(index, "x"))
    write_audio(folder / file, audio, 44100)
    return ManifestEntry(
        id=name,
        status="done",
        prompt=PROMPTS[name],
        negative_prompt="<drums>" if index == 0 else None,
        seed=100 - index,
        decoder_seed=100 - index,
        settings=SETTINGS | {"temperature": 1.0 + index / 10},
        pipeline="partita-tiny",
        pipeline_hash="abc",
        license="Apache-2.0",
        audio=file,
        tokens=f"{name}.safetensors",
        audio_sha256=f"{index:064x}"[::-1],
        duration_s=0.1 * (index + 1),
        sample_rate=44100,
        channels=2,
        loudness_lufs=-30.0 - 3 * index,
        true_peak_db=-3.0,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five finished items and a failed one."""
    folder = tmp_path / "renders & <more>"
    folder.mkdir()
    entries = [entry(folder, index, name) for index, name in enumerate(PROMPTS)]
    failed = ManifestEntry(
        "broken", "failed", "a prompt", None, 1, 1, SETTINGS, "partita-tiny", "abc", error="<OOM>"
    )
    write_manifest(folder, [*entries, failed])
    return folder


class Page(HTMLParser):
    """Elements with their attributes, and the text of the paragraphs of a class."""

    VOID = ("meta", "input", "img", "link", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == [], "elements that are never closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            kind = dict(attrs).get("class") or tag
            self.open.append((tag, kind))
            self.texts.setdefault(kind, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1][1]][-1] += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [values[name] or "" for found, values in self.elements if found == tag]


def test_every_item_has_its_prompt_its_player_and_its_picture(folder):
    assert write_sheet(folder) == folder / "index.html"
    page = Page(folder / "index.html")
    assert page.attributes("article", "data-id") == [*PROMPTS, "broken"]
    assert page.texts["prompt"] == [*PROMPTS.values(), "a prompt"]
    assert page.attributes("article", "data-prompt") == [*PROMPTS.values(), "a prompt"]
    players, pictures = page.attributes("audio", "src"), page.attributes("img", "src")
    assert len(players) == len(pictures) == len(PROMPTS)
    for source in players + pictures:
        assert (folder / unquote(source)).is_file()
    details = [json.loads(text)["prompt"] for text in page.texts["pre"]]
    assert details == page.texts["prompt"]
    assert page.texts["error"] == ["<OOM>"]
    assert page.texts["title"] == ["renders & <more>"]


def test_nothing_comes_from_elsewhere_and_no_prompt_becomes_markup(folder):
    page = Page(write_sheet(folder))
    assert [tag for tag, _ in page.elements].count("script") == 1
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert not urlsplit(attributes.get(name) or "").netloc
            assert not urlsplit(attributes.get(name) or "").scheme
    assert "http" not in re.sub(r"<article.*</article>", "", page.rawdata, flags=re.DOTALL)


def test_settings_that_all_share_are_said_once(folder):
    page = Page(write_sheet(folder))
    head = " ".join(page.texts["p"])
    assert "5 items, 0 min 2 s of audio, 1 failed, median loudness -36.0 LUFS" in head
    assert "all items: wanted duration (s) 0.5, guidance 3, format wav" in head
    assert "temperature" not in head
    assert page.texts["dt"].count("temperature") == 6
    assert page.texts["dt"].count("guidance") == 0
    assert "<drums>" in page.texts["dd"]
    assert "license: Apache-2.0" in page.texts["p"]


def test_thumbnails_are_drawn_once_per_audio(folder):
    write_sheet(folder)
    pictures = sorted((folder / "thumbnails").iterdir())
    assert len(pictures) == len(PROMPTS)
    pictures[0].write_bytes(b"kept")
    first = (folder / "index.html").read_bytes()
    write_sheet(folder)
    assert pictures[0].read_bytes() == b"kept"
    assert (folder / "index.html").read_bytes() == first
    assert not list(folder.rglob("*.partial.*"))


def test_missing_and_damaged_files_are_said_in_their_place(folder):
    (folder / "waltz.wav").unlink()
    (folder / "x9.wav").write_bytes(b"RIFF")
    page = Page(write_sheet(folder))
    missing, damaged, failed = page.texts["error"]
    assert missing == "waltz.wav is missing"
    assert "x9.wav is not audio" in damaged
    assert failed == "<OOM>"
    assert len(page.attributes("audio", "src")) == len(PROMPTS) - 2


def test_small_and_silent_jobs(folder, tmp_path):
    write_manifest(folder, [])
    assert "0 items" in Page(write_sheet(folder)).texts["p"][0]
    one = replace(entry(folder, 0, "x9"), loudness_lufs=None, true_peak_db=None, notes=["<a>"])
    write_manifest(folder, [one])
    page = Page(write_sheet(folder))
    assert page.attributes("article", "data-loudness") == [""]
    assert page.texts["dd"].count("none (silent)") == 2
    assert page.texts["note"] == ["<a>"]
    with pytest.raises(FileNotFoundError, match="nothing was rendered there"):
        write_sheet(tmp_path)


def test_the_command_says_so_before_it_renders(tmp_path, pipeline_folder, monkeypatch, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    rows.write_text('{"id": "a", "prompt": "calm", "duration_s": 0.5}')
    command = ["render", str(rows), "--output", str(out), "--sheet", "--quiet"]
    command += ["--pipeline", str(pipeline_folder)]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingPackageError, match=r"partita\[plot\]"):
            write_sheet(tmp_path)
        assert main(command) == 2
    assert not out.exists()
    assert "pip install partita[plot]" in capsys.readouterr().err
    assert main(command) == 0
    assert Page(out / "index.html").texts["prompt"] == ["calm"]


ACTIONS = """<script>
const report = {};
const shown = () => Array.from(articles).sort((a, b) => a.compareDocumentPosition(b) & 2 ? 1 : -1)
  .filter(a => !a.hidden).map(a => a.dataset.id);
const look = (name, action) => { action(); report[name] = shown(); };
const type = text => { query.value = text; query.dispatchEvent(new Event("input")); };
const choose = name => { key.value = name; key.dispatchEvent(new Event("change")); };
look("all", () => {});
look("techno", () => type("TECHNO fast"));
look("markup", () => type("<script>"));
look("failed", () => type("failed"));
look("nothing", () => type("no such thing"));
report.count = document.getElementById("count").textContent;
type("");
look("id", () => choose("id"));
look("loudness", () => choose("loudness"));
look("descending", () => direction.click());
look("seed", () => { direction.click(); choose("seed"); });
const players = Array.from(document.querySelectorAll("audio"));
const loaded = players.map(player => new Promise(resolve => {
  player.onloadedmetadata = () => resolve(player.duration);
  player.onerror = () => resolve(player.error.message);
  player.preload = "metadata";
}));
const pictures = Array.from(document.images, image => {
  image.loading = "eager";
  return image.decode().then(() => image.naturalWidth, () => 0);
});
Promise.all([...loaded, ...pictures]).then(async found => {
  report.durations = found.slice(0, players.length);
  report.widths = found.slice(players.length);
  await players[0].play();
  report.first = !players[0].paused;
  await players[1].play();
  report.firstAfterSecond = !players[0].paused;
  report.alerts = window.alerts;
  const result = document.createElement("pre");
  result.id = "report";
  result.textContent = JSON.stringify(report);
  document.body.append(result);
});
</script></body>"""


def browse(page: Path, *options: str) -> str:
    """What a headless browser prints."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--autoplay-policy=no-user-gesture-required", "--host-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={page.parent.parent / 'browser'}", *options, page.as_uri()]
    environment = os.environ | {"HOME": str(page.parent.parent)}
    done = subprocess.run(command, capture_output=True, timeout=120, check=True, env=environment)
    return done.stdout.decode()


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="apt install chromium")
def test_a_browser_sorts_searches_and_plays_it_from_a_file(folder):
    text = write_sheet(folder).read_text()
    spy = "<head><script>window.alerts = []; window.alert = text => alerts.push(text)</script>"
    page = folder / "acted.html"
    page.write_text(text.replace("<head>", spy, 1).replace("</body>", ACTIONS))
    printed = browse(page, "--dump-dom", "--timeout=20000", "--virtual-time-budget=20000")
    report = json.loads(unescape(re.search(r'<pre id="report">(.*?)</pre>', printed)[1]))
    names = [*PROMPTS, "broken"]
    assert report["all"] == names
    assert report["techno"] == ["x9"]
    assert report["markup"] == ["évil #1"]
    assert report["failed"] == ["broken"]
    assert (report["nothing"], report["count"]) == ([], "0 of 6")
    assert report["id"] == ["broken", "évil #1", "größe 音楽", "waltz", "x9", "x10"]
    assert report["loudness"] == [*reversed(PROMPTS), "broken"]
    assert report["descending"] == names  # what has no loudness stays last
    assert report["seed"] == ["broken", *reversed(PROMPTS)]
    expected = sorted(0.1 * (index + 1) for index in range(len(PROMPTS)))
    assert sorted(report["durations"]) == pytest.approx(expected, abs=0.01)
    assert report["widths"] == [480] * len(PROMPTS)
    assert (report["first"], report["firstAfterSecond"]) == (True, False)
    assert report["alerts"] == []
