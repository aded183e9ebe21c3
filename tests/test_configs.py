"""The YAML files in ``configs/``: they parse, fit one another, and say what they cost."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.commands.info import describe_config, read_config
from pipelines.data.notes.note_tokenizer import NoteTokenizer
from pipelines.training.cost import HARDWARE, build_on_meta, estimate

ROOT = Path(__file__).parents[1]
PARTS = ("codec", "prior", "decoder")
SIZES = ("smoke", "tiny", "base", "large")
LADDER = ("notes-lstm-plain", "notes-lstm", "notes-transformer")
CONFIGS = [f"configs/{part}/{size}.yaml" for part in PARTS for size in SIZES]
CONFIGS += [f"configs/prior/{name}.yaml" for name in (*LADDER, "planner")]
CONFIGS += ["configs/decoder/tokens-smoke.yaml"]
COMMAND = re.compile(r"# partita info --config (\S+?)(?: --processes (\d+))?\n")


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch):
    """The paths in the heads are relative to it."""
    monkeypatch.chdir(ROOT)


def settings(part: str, size: str) -> dict[str, Any]:
    found, sections = read_config(f"configs/{part}/{size}.yaml")
    assert found == part
    return sections


def count_parameters(part: str, size: str) -> int:
    model = build_on_meta(part, settings(part, size)["model"])
    return sum(parameter.numel() for parameter in model.parameters())


def test_nothing_else_is_there():
    found = {str(path) for path in Path("configs").rglob("*.yaml")}
    for folder in ("accelerate", "recipes"):
        found -= {str(path) for path in Path("configs", folder).iterdir()}
    assert found == {*CONFIGS, "configs/compare.yaml"}


@pytest.mark.parametrize("path", CONFIGS)
def test_the_head_is_what_info_prints(path):
    text = Path(path).read_text()
    command = COMMAND.match(text)
    assert command is not None
    assert command[1] == path
    lines = describe_config(path, int(command[2] or 1))
    head = "".join(f"# {line}\n" for line in lines)
    assert text[command.end() :].startswith(head), f"paste what this prints:\n{command[0]}{head}"


@pytest.mark.parametrize("size", SIZES)
def test_the_parts_of_a_size_fit_together(size):
    codec, prior, decoder = (settings(part, size) for part in PARTS)
    assert decoder["model"]["channels"] == 1  # of the total power
    assert codec["model"]["stereo_bands"] == 32
    for name in ("num_mels", "patch_frames", "latent_dim", "num_codebooks"):
        assert decoder["model"][name] == codec["model"][name], name
    assert prior["model"]["codebook_size"] == codec["model"]["codebook_size"]
    assert prior["model"]["num_codebooks"] <= codec["model"]["num_codebooks"]
    assert prior["model"]["num_codebooks"] == decoder["data"]["focus_books"]
    frames = codec["model"]["hop_length"] * codec["model"]["patch_frames"]
    assert prior["model"]["frame_rate"] == codec["model"]["sample_rate"] / frames
    trained = f"{codec['training']['output_dir']}/model"
    assert prior["data"]["codec"] == decoder["data"]["codec"] == trained


def test_the_models_of_the_ladder_are_equally_large_and_trained_alike():
    trained = [settings("prior", name) for name in LADDER]
    counts = [count_parameters("prior", name) for name in LADDER]
    assert max(counts) < 1.025 * min(counts)
    for one in trained:
        assert one["model"]["codebook_size"] == NoteTokenizer.codebook_size
        assert one["model"]["num_codebooks"] <= NoteTokenizer.num_codebooks
        (tokens,) = one["data"]["tokens"]
        assert one["data"]["codec"] == f"{tokens}/codec"
        assert one["training"] | {"output_dir": ""} == trained[0]["training"] | {"output_dir": ""}


@pytest.mark.parametrize("part", PARTS)
def test_sizes_grow(part):
    counts = [count_parameters(part, size) for size in SIZES]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)


@pytest.mark.parametrize("part", PARTS)
def test_base_fits_one_gpu_of_24_gb_and_large_one_of_80(part):
    _, gpu, accelerator = HARDWARE
    assert gpu.memory == 24e9
    assert estimate(part, settings(part, "base")).fits(gpu)
    assert estimate(part, settings(part, "large"), processes=64).fits(accelerator)


@pytest.mark.parametrize("part", PARTS)
def test_what_ships_is_tiny(part):
    assert count_parameters(part, "tiny") < 16e6
