"""``make tiny`` and ``make demo``: run the commands of a recipe, ``configs/recipes/*.yaml``.

Each command continues where it was stopped and does nothing when it has finished, so a recipe may
be stopped and started at will. ``record.json`` beside the results holds the seconds of every step,
summed over all starts, the seed, the versions and the machine.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codec.whole_file import write_json
from pipelines.errors import one_line_errors
from pipelines.training.configuration import read_yaml

PACKAGES = ("torch", "torchaudio", "diffusers", "accelerate")
TINY = Path("configs/recipes/tiny.yaml")


@dataclass(frozen=True)
class RecipeStep:
    """One command of a recipe."""

    name: str  # what ``record.json`` calls it
    command: list[str]  # words after ``partita``
    # file or folder that is there when it has finished; None where the command itself finds out
    # that there is nothing left to do
    result: Path | None = None


def read_recipe(path: Path, folder: Path, **options: object) -> list[RecipeStep]:
    """Read the steps of a recipe.

    Args:
        path: YAML list of steps: ``name``, ``run`` and perhaps ``result``, a name in the folder.
        folder: of datasets, runs and results, ``{folder}`` in a command.
        options: what else the commands name in braces.
    """
    steps = []
    for row in read_yaml(path):
        words = [word.format(folder=folder, **options) for word in shlex.split(row["run"])]
        result = folder / row["result"] if "result" in row else None
        steps.append(RecipeStep(row["name"], words, result))
    return steps


def run_recipe(steps: list[RecipeStep], record_path: Path, seed: int) -> int:
    """Run what is not finished, and return the exit code of the first step that fails, or 0."""
    record = read_record(record_path, seed)
    for number, step in enumerate(steps, start=1):
        if step.result is not None and step.result.exists():
            continue
        print(f"[{number} of {len(steps)}] partita {shlex.join(step.command)}", flush=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "pipelines", *step.command]).returncode
        seconds = record["seconds"]
        seconds[step.name] = round(seconds.get(step.name, 0) + time.monotonic() - started, 3)
        record_path.parent.mkdir(parents=True, exist_ok=True)
        write_json(record_path, record)
        if code:
            print(f"partita: error: step {step.name!r} ended with code {code}", file=sys.stderr)
            return code
    hours = sum(record["seconds"].values()) / 3600
    print(f"{record_path.parent}: {hours:.1f} hours in all, see {record_path.name}")
    return 0


def read_record(path: Path, seed: int) -> dict[str, Any]:
    """Read what earlier starts left, or begin a record of seed, versions and machine."""
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text())
        if record["seed"] != seed:
            raise ValueError(f"{path} is of seed {record['seed']}, got seed={seed}")
        return record
    return {
        "seed": seed,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "cores": os.cpu_count(),
        "seconds": {},
    }


def main(argv: list[str] | None = None) -> int:
    """Run a recipe, or print its commands."""
    parser = argparse.ArgumentParser(
        prog="recipe",
        description="run the commands of a recipe",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("recipe", nargs="?", type=Path, default=TINY, help="YAML file")
    parser.add_argument("--folder", type=Path, default=Path("runs/tiny"), help="of all results")
    parser.add_argument("--hours", default="60", help="of rendered scores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that prepare")
    parser.add_argument("--print", action="store_true", help="the commands, without running them")
    args = parser.parse_args(argv)
    options = {"hours": args.hours, "seed": args.seed, "workers": args.workers}
    with one_line_errors("recipe"):
        steps = read_recipe(args.recipe, args.folder, **options)
        if args.print:
            for step in steps:
                print("partita", shlex.join(step.command))
            return 0
        return run_recipe(steps, args.folder / "record.json", args.seed)


if __name__ == "__main__":
    sys.exit(main())
