"""One training of the study: a prior's config, a token cache, a budget and a seed."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

from codec.whole_file import write_json
from pipelines.comparison.clock import ClockedTask
from pipelines.comparison.settings import Budget, Optimization
from pipelines.data.tokens import read_token_info
from pipelines.train_prior import PriorTask
from pipelines.training.checkpoints import checkpoints
from pipelines.training.loop import TrainingConfig, train
from pipelines.training.prior_data import TOKEN_RATE, PriorData
from prior.model import Prior

RESULT_NAME = "arm.json"


@dataclass(frozen=True)
class Arm:
    """What is trained, and everything that the result depends on.

    Args:
        name: for people; two arms that differ in nothing else are the same arm.
        model: every field of ``Prior``.
        tokens: folders of token caches.
        budget: steps, batch, crop.
        seed: of weights and data order.
        start: an arm whose weights this one goes on from.
    """

    name: str
    model: dict[str, Any]
    tokens: tuple[str, ...]
    budget: Budget
    seed: int
    start: "Arm | None" = None

    def identity(self) -> dict[str, Any]:
        """What the result follows from, the shared settings of the study aside."""
        return {
            "model": self.model,
            "tokens": [asdict(read_token_info(folder)) for folder in self.tokens],
            "budget": asdict(self.budget),
            "seed": self.seed,
            "start": self.start.identity() if self.start else None,
        }

    def key(self, optimization: Optimization) -> str:
        """A short hash of all settings: the name of the arm's folder."""
        text = json.dumps([self.identity(), asdict(optimization)], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Curve:
    """Held-out losses along a training.

    Attributes:
        step: updates so far.
        loss: nats per code, with captions.
        wall_s: seconds of training so far.
        cpu_s: processor seconds of it, all processes together.
    """

    step: list[int]
    loss: list[float]
    wall_s: list[float]
    cpu_s: list[float]


@dataclass(frozen=True)
class TrainedArm:
    """A finished arm in its folder."""

    arm: Arm
    folder: Path

    @cached_property
    def prior(self) -> Prior:
        """The averaged weights, in evaluation mode."""
        return Prior.from_pretrained(self.folder / "model").eval()

    @cached_property
    def curve(self) -> Curve:
        """Read from ``metrics.jsonl``."""
        return read_curve(self.folder)


class StoppedError(Exception):
    """Training was asked to stop; the same command goes on with it."""


def train_arm(arm: Arm, folder: Path, optimization: Optimization) -> TrainedArm:
    """Train an arm with the trainer of every prior, or find that it has been trained.

    Args:
        arm: what to train; what it starts from is trained first.
        folder: of all arms.
        optimization: what they share.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; what has been trained is kept.
    """
    run = folder / arm.key(optimization)
    if not is_trained(run):
        with lock(run) if PartialState().num_processes == 1 else nullcontext():
            if not is_trained(run):  # another run of the study may have done so while this waited
                train_here(arm, run, folder, optimization)
    return TrainedArm(arm, run)


def lineage(arm: Arm) -> Iterator[Arm]:
    """An arm after those that it starts from."""
    if arm.start is not None:
        yield from lineage(arm.start)
    yield arm


def is_trained(run: Path) -> bool:
    """Whether an arm's folder holds a finished arm."""
    return (run / RESULT_NAME).is_file()


def lock(run: Path) -> FileLock:
    """What a run holds while it trains an arm, so that others of the same study take other arms."""
    run.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(run.with_suffix(".lock"))


def is_held(run: Path) -> bool:
    """Whether another run is training an arm."""
    try:
        with lock(run).acquire(blocking=False):
            return False
    except Timeout:
        return True


def train_here(arm: Arm, run: Path, folder: Path, optimization: Optimization) -> None:
    """Train an arm in its folder, what it starts from first."""
    torch.manual_seed(arm.seed)
    if arm.start is None:
        prior = Prior(**arm.model)
    else:
        started = train_arm(arm.start, folder, optimization)
        prior = Prior.from_pretrained(started.folder / "model").train()
    config = training_config(arm.budget, arm.seed, optimization, run)
    data = prior_data(arm.tokens, arm.budget, optimization)
    wall_s, cpu_s = seconds_so_far(run)
    processes = PartialState().num_processes
    task = ClockedTask(PriorTask(prior, data, config), wall_s, cpu_s, processes)
    train(task, config, resume=True)
    finish(arm, run, config.steps)


def reached_step(run: Path) -> int:
    """The update of the newest checkpoint, 0 where there is none."""
    found = checkpoints(run)
    return int(json.loads((found[-1] / "step.json").read_text())["step"]) if found else 0


def seconds_so_far(run: Path) -> tuple[float, float]:
    """What the clock showed at the newest checkpoint: seconds and processor seconds."""
    curve, reached = read_curve(run), reached_step(run)
    known = [place for place, step in enumerate(curve.step) if step <= reached]
    return (curve.wall_s[known[-1]], curve.cpu_s[known[-1]]) if known else (0.0, 0.0)


def finish(arm: Arm, run: Path, steps: int) -> None:
    """Mark a whole run as such and drop its checkpoints."""
    last = reached_step(run)
    if last < steps:
        raise StoppedError(f"{arm.name} stopped at step {last} of {steps}")
    state = PartialState()
    state.wait_for_everyone()
    if state.is_main_process:
        write_json(run / RESULT_NAME, {"name": arm.name, **arm.identity()})
        for checkpoint in checkpoints(run):
            shutil.rmtree(checkpoint)
        shutil.rmtree(run / "samples", ignore_errors=True)
    state.wait_for_everyone()


def training_config(
    budget: Budget, seed: int, optimization: Optimization, run: Path
) -> TrainingConfig:
    """The trainer's settings.

    Raises:
        ValueError: the processes cannot share the batch evenly.
    """
    processes = PartialState().num_processes
    if budget.batch_size % processes:
        raise ValueError(
            f"batch_size must be a multiple of the processes, got batch_size={budget.batch_size} "
            f"and {processes} processes"
        )
    every = max(1, -(-budget.steps // optimization.validations))
    return TrainingConfig(
        output_dir=str(run),
        steps=budget.steps,
        batch_size=budget.batch_size // processes,
        learning_rate=budget.learning_rate or optimization.learning_rate,
        warmup_steps=max(1, round(optimization.warmup_share * budget.steps)),
        weight_decay=optimization.weight_decay,
        ema_decay=optimization.ema_decay,
        mixed_precision=optimization.mixed_precision,
        checkpoint_every=every * max(1, optimization.validations // 2),
        keep_checkpoints=1,
        validate_every=every,
        log_every=every,
        seed=seed,
    )


def prior_data(tokens: Sequence[str], budget: Budget, optimization: Optimization) -> PriorData:
    """The trainer's data; whatever a position stands for, a crop is counted in positions."""
    return PriorData(
        tokens=[*tokens],
        text_encoder=optimization.text_encoder,
        crop_s=budget.crop_frames / TOKEN_RATE,
        text_dropout=optimization.text_dropout,
        depth_share=optimization.depth_share,
        validation_clips=optimization.validation_clips,
    )


def read_curve(run: Path) -> Curve:
    """The validations in a run's log; those that a resumed run repeated count once."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    found = {line["step"]: line for line in lines if "validation/loss" in line}
    ordered = [found[step] for step in sorted(found)]
    return Curve(
        [line["step"] for line in ordered],
        [line["validation/loss"] for line in ordered],
        [line["validation/wall_s"] for line in ordered],
        [line["validation/cpu_s"] for line in ordered],
    )
