"""``make tiny``: run the commands that make the model that ships, from packages to figures.

Each command continues where it was stopped and does nothing when it has finished, so the recipe
may be stopped and started at will. ``record.json`` beside the results holds the seconds of every
step, summed over all starts, the seed, the versions and the machine.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codec.whole_file import write_json
from pipelines.errors import one_line_errors

PACKAGES = ("torch", "torchaudio", "diffusers", "accelerate", "vector-quantize-pytorch")


@dataclass(frozen=True)
class RecipeStep:
    """One command of the recipe.

    Attributes:
        name: what ``record.json`` calls it.
        command: words after ``partita``.
        result: file or folder that is there when it has finished; None where the command itself
            finds out that there is nothing left to do.
    """

    name: str
    command: list[str]
    result: Path | None = None


def tiny_recipe(folder: Path, hours: float, seed: int, workers: int) -> list[RecipeStep]:
    """List the steps that make partita-tiny.

    Args:
        folder: of datasets, runs and results.
        hours: of rendered scores.
        seed: of scores and training.
        workers: processes that render.
    """
    music, scores, plans = folder / "music", folder / "scores", folder / "plans"
    tokens = [folder / "music-tokens", folder / "scores-tokens"]
    assembled = ("codec", "decoder", "planner", "prior")
    runs = {run: folder / run for run in ("codec-regression", *assembled)}
    codec, pipeline = runs["codec"] / "model", folder / "pipeline"
    both, cached = as_list([music, scores]), as_list(tokens)

    def train(part: str, *options: str, config: str = "tiny", run: str = "") -> list[str]:
        output = str(runs[run or part])
        settings = ["--training.output_dir", output, "--training.seed", str(seed)]
        configs = ["--config", f"configs/{part}/{config}.yaml"]
        return ["train", part, *configs, *settings, *options, "--resume"]

    on_tokens = ["--data.tokens", cached, "--data.codec", str(codec)]
    parts = [word for part in assembled for word in (f"--{part}", str(runs[part] / "model"))]
    rendering = ["--hours", f"{hours:g}", "--seed", str(seed), "--workers", str(workers)]
    return [
        RecipeStep("music", ["prepare", "music", "--output", str(music)], music / "dataset.json"),
        RecipeStep("scores", ["prepare", "scores", "--output", str(scores), *rendering]),
        RecipeStep("codec", train("codec", "--data.prepared", both, run="codec-regression")),
        RecipeStep("codec, energy", train("codec", "--data.prepared", both, *ENERGY,
                                     "--training.start_from",
                                     str(runs["codec-regression"] / "model"))),
        *(
            RecipeStep(cache.name, ["prepare", "tokens", str(data), "--codec", str(codec),
                                    "--output", str(cache)])
            for data, cache in zip([music, scores], tokens, strict=True)
        ),
        RecipeStep("decoder", train("decoder", "--data.prepared", both, *on_tokens)),
        RecipeStep(plans.name, ["prepare", "plans", "--output", str(plans), "--seed", str(seed),
                           "--workers", str(workers)], plans),
        RecipeStep("planner", train("prior", "--data.tokens", as_list([plans]), config="planner",
                               run="planner")),
        RecipeStep("prior", train("prior", *on_tokens)),
        RecipeStep("prior, long clips", train("prior", *on_tokens, *LONG_CLIPS)),
        RecipeStep("pipeline", ["assemble", *parts, "--half", *DEFAULTS, "--output",
                           str(pipeline)]),
        RecipeStep("prompts", ["evaluate", "pipeline", "--pipeline", str(pipeline), "--output",
                          str(folder / "prompts")]),
    ]  # fmt: skip


DEFAULTS = ["--guidance", "4", "--temperature", "0.9", "--top-k", "30"]
DEFAULTS += ["--fine-temperature", "0.55"]
"""Default sampling settings of the saved pipeline, chosen on prompts (docs/experiments.md)."""
ENERGY = [
    *("--losses.decoder_alone", "true", "--losses.energy", "1.5"),
    *("--training.steps", "900", "--training.learning_rate", "0.0002"),
    *("--training.warmup_steps", "50", "--training.ema_decay", "0.999"),
]
"""Train the codec's decoder alone, to restore the power that an L1 loss takes from partials."""
LONG_CLIPS = ["--data.crop_s", "20", "--training.batch_size", "4", "--training.steps", "26000"]
"""The prior's last quarter: as much sound in each step, in clips four times as long."""


def as_list(folders: list[Path]) -> str:
    """Write folders as YAML on a command line."""
    return json.dumps([str(folder) for folder in folders])


def run_recipe(stages: list[RecipeStep], record_path: Path, seed: int) -> int:
    """Run what is not finished, and return the exit code of the first step that fails, or 0."""
    record = read_record(record_path, seed)
    for number, stage in enumerate(stages, start=1):
        if stage.result is not None and stage.result.exists():
            continue
        words = " ".join(stage.command)
        print(f"[{number} of {len(stages)}] partita {words}", flush=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "pipelines", *stage.command]).returncode
        seconds = record["seconds"]
        seconds[stage.name] = round(seconds.get(stage.name, 0) + time.monotonic() - started, 3)
        record_path.parent.mkdir(parents=True, exist_ok=True)
        write_json(record_path, record)
        if code:
            print(f"partita: error: stage {stage.name!r} ended with code {code}", file=sys.stderr)
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
    """Run the recipe, or print its commands."""
    parser = argparse.ArgumentParser(prog="recipe", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/tiny"), help="of all results")
    parser.add_argument("--hours", type=float, default=60.0, help="of rendered scores (60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that render (2)")
    parser.add_argument("--print", action="store_true", help="the commands, without running them")
    args = parser.parse_args(argv)
    stages = tiny_recipe(args.folder, args.hours, args.seed, args.workers)
    if args.print:
        for stage in stages:
            print("partita " + " ".join(f"'{w}'" if "[" in w else w for w in stage.command))
        return 0
    with one_line_errors("recipe"):
        return run_recipe(stages, args.folder / "record.json", args.seed)


if __name__ == "__main__":
    sys.exit(main())
