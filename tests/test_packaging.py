"""What a user gets: every command's help, a wheel that is whole, configs that build."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from pipelines import cli
from pipelines.commands.info import trainer_parts
from pipelines.training.configuration import configure

ROOT = Path(__file__).parents[1]
PACKAGES = ("codec", "prior", "decoder", "pipelines")
HEAVY = ("torch", "diffusers", "transformers", "datasets", "torchaudio", "jsonargparse")
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("configs/*/*.yaml")
    if path.parent.name not in ("accelerate", "recipes")  # the others are of a trainer
)


def run_python(*arguments: str, cwd: Path = ROOT, path: Path = ROOT) -> str:
    environment = os.environ | {"PYTHONPATH": str(path)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("command", [*cli.COMMANDS, *cli.TRAINERS, *cli.GROUPS, ""])
def test_every_command_explains_itself(command, capsys):
    try:
        code = cli.main([*command.split(), "--help"])
    except SystemExit as end:  # argparse leaves this way
        code = end.code
    assert code in (0, None)
    assert "usage:" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from pipelines.cli import main; main(['--help']);"
        "print('heavy:', *sorted(set(sys.modules) & set(sys.argv[1:])))"
    )
    assert run_python("-c", program, *HEAVY).splitlines()[-1] == "heavy:"


def test_a_wheel_is_whole_and_imports_elsewhere(tmp_path):
    """Built without isolation and unpacked: what `pip install` would put into an empty venv."""
    program = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    source = copy_sources(tmp_path / "source")
    run_python("-c", program, str(tmp_path), cwd=source)
    wheel = next(tmp_path.glob("partita-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    found = files_below(tmp_path / "site")
    assert sources() <= found
    assert not [name for name in found if name.split("/")[0] in ("tests", "configs", "docs")]
    modules = sorted(
        re.sub(r"(/__init__)?\.py$", "", name).replace("/", ".")
        for name in sources()
        if name.endswith(".py") and "__main__" not in name
    )
    program = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    run_python("-c", program, *modules, cwd=tmp_path, path=tmp_path / "site")


def sources() -> set[str]:
    """Every file of the packages: all of them belong into a wheel."""
    return {name for package in PACKAGES for name in files_below(ROOT, package)}


def files_below(root: Path, folder: str = ".") -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def copy_sources(target: Path) -> Path:
    """Links to the sources, so that building leaves nothing behind in the checkout."""
    for name in sources() | {"pyproject.toml", "setup.py", "README.md", "LICENSE"}:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(ROOT / name)
    return target


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_parses_and_builds(name):
    parts = trainer_parts(Path(name).parts[1])
    with torch.device("meta"):
        built = configure("test", parts, ["--config", str(ROOT / name)])
    assert sum(weight.numel() for weight in built["model"].parameters()) > 0


def test_there_are_configs_for_every_part():
    assert {Path(name).parts[1] for name in CONFIGS} == {"codec", "prior", "decoder"}


def test_no_file_names_a_place_of_its_authors():
    """A path of one machine in a file is a promise broken on every other."""
    homes = re.compile(r"(?<![\w.$}~-])/(?:root|home|work|mnt|opt|Users)/\w")
    folders = (*PACKAGES, "tests", "configs", "docs", "requirements", ".ci")
    files = [ROOT / name for folder in folders for name in files_below(ROOT, folder)]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    guilty = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".txt", ".json", "") and is_text(path)
        for line in path.read_text().splitlines()
        if homes.search(line)
    ]
    assert not guilty


def is_text(path: Path) -> bool:
    return b"\0" not in path.read_bytes()[:1024]
