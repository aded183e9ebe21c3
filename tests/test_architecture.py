"""The layout of the packages: what may import what, and names that mean one thing only."""

import ast
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

grimp = pytest.importorskip("grimp")  # comes with import-linter

ROOT = Path(__file__).parents[1]
PACKAGES = ("codec", "prior", "decoder", "pipelines")
SOURCES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "pretrained" not in path.parts  # what diffusers imports from a folder of weights
)
MOST_LOOSE_FILES = 10


def shared(names: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    """Names that more than one place has, with the places."""
    places = defaultdict(list)
    for name, path in names:
        places[name].append(path.relative_to(ROOT).as_posix())
    return {name: found for name, found in places.items() if len(found) > 1}


def test_nothing_imports_from_a_higher_floor_or_folder():
    program = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports())"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_module_imports_itself_through_others():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the modules


def test_a_modules_name_is_its_own():
    modules = (
        (path.stem, path)
        for path in SOURCES
        if not path.stem.startswith("__") and path.parent.name != "commands"
    )  # a command's file has the name that the command has
    assert not shared(modules)


def test_a_classs_name_is_its_own():
    classes = (
        (node.name, path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert not shared(classes)


def test_few_files_lie_loose_in_pipelines():
    loose = sorted(path.name for path in (ROOT / "pipelines").glob("*.py"))
    assert len(loose) <= MOST_LOOSE_FILES, loose
