"""Every block of README.md and CONTRIBUTING.md runs, as a reader would type it."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import architecture_links
import numpy as np
import pytest
import soundfile

from pipelines.inference.text import PRETRAINED

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/how-to.md")
BLOCK = re.compile(
    r"(?P<slow><!-- slow -->\n)?```(?P<language>bash|python)\n(?P<text>.*?)^```", re.DOTALL | re.M
)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
needs_weights = pytest.mark.skipif(
    not (PRETRAINED / "model_index.json").is_file(),
    reason="the model that ships is not in this checkout (pipelines/pretrained/partita-tiny)",
)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``slow`` where the comment before it says so."""

    language: str
    text: str
    slow: bool


def read_blocks(document: str) -> list[Block]:
    found = BLOCK.finditer((ROOT / document).read_text())
    return [Block(match["language"], match["text"], bool(match["slow"])) for match in found]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a reader has before him: the checkout, an environment, and recordings of his own."""
    for name in ("codec", "prior", "decoder", "pipelines", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = {
        "make": f'exec /usr/bin/env PATH="$SYSTEM_PATH" make -n -C "{ROOT}" "$@"',
        "partita": f'exec "{sys.executable}" -m pipelines "$@"',
    }
    for name, line in commands.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
    write_recordings(tmp_path / "recordings")
    return tmp_path


def write_recordings(folder: Path) -> None:
    """Three tracks of 30 s: a chord each that swells, stereo, no two alike."""
    folder.mkdir()
    time_s = np.arange(30 * 44100) / 44100
    draws = np.random.default_rng(0)
    for index in range(3):
        pitches = 110 * 2 ** (draws.integers(0, 36, (2, 4)) / 12)
        chord = np.sin(2 * np.pi * pitches[:, :, None] * time_s).mean(axis=1)
        swell = 0.5 + 0.4 * np.sin(2 * np.pi * (0.3 + 0.2 * index) * time_s)
        soundfile.write(folder / f"track-{index}.flac", (chord * swell).T, 44100)


def run_block(block: Block, folder: Path) -> None:
    """Run a block in ``folder``; a config of the size ``tiny`` becomes the one for tests."""
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SYSTEM_PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    text = block.text.replace("/tiny.yaml", "/smoke.yaml")
    command = ["bash", "-euo", "pipefail", "-c", text]
    if block.language == "python":
        command = [sys.executable, "-c", text]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param("README.md", marks=needs_weights),
        "CONTRIBUTING.md",
        pytest.param("docs/how-to.md", marks=needs_weights),
    ],
)
def test_blocks_run(document, checkout):
    blocks = [block for block in read_blocks(document) if not block.slow]
    assert blocks
    for block in blocks:
        run_block(block, checkout)


@pytest.mark.slow
@needs_weights
def test_an_album_becomes_a_style(checkout):
    """With the sizes of the model that ships, for two steps."""
    (block,) = [block for block in read_blocks("docs/how-to.md") if block.slow]
    (checkout / "shipped.yaml").write_bytes((ROOT / "configs/prior/tiny.yaml").read_bytes())
    text = block.text.replace("configs/prior/tiny.yaml", "shipped.yaml")
    run_block(Block("bash", text.replace("steps 300", "steps 2"), True), checkout)
    assert (checkout / "album.wav").is_file()


@pytest.mark.slow
@needs_weights
def test_all_blocks_of_the_readme_run(checkout):
    for block in read_blocks("README.md"):
        run_block(block, checkout)
    assert (checkout / "my-pipeline" / "model_index.json").is_file()


@pytest.mark.parametrize(
    "document",
    [
        *("README.md", "CONTRIBUTING.md"),
        *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
    ],
)
def test_links_lead_somewhere(document):
    folder = (ROOT / document).parent
    for target in LINK.findall((ROOT / document).read_text()):
        assert (folder / target).exists(), f"{document}: {target}"


def test_make_targets_that_are_named_exist():
    """Also those named in a sentence."""
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z-]+)", (ROOT / document).read_text()))
        assert named <= targets


def test_links_of_the_architecture_lead_to_definitions():
    """``python tests/architecture_links.py`` renews the line numbers."""
    text = architecture_links.PAGE.read_text()
    assert architecture_links.renewed(text) == text
