"""Train an arm of the study: a prior's config, token caches, a budget and a seed."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

from codec.whole_file import write_json
from pipelines.comparison.comparison_settings import TOKEN_RATE, Budget, Optimization
from pipelines.data.row_files import read_rows
from pipelines.data.tokens import read_token_info, read_token_infos
from pipelines.train_prior import PriorTask
from pipelines.training.checkpoints import checkpoints
from pipelines.training.loop import train
from pipelines.training.prior_data import PriorData
from pipelines.training.training_config import TrainingConfig
from prior.model import Prior

RESULT_NAME = "arm.json"


@dataclass(frozen=True)
class Arm:
    """Holds what is trained, and everything that the result depends on."""

    name: str  # for people; two arms that differ in nothing else are the same arm
    model: dict[str, Any]  # every field of ``Prior``
    tokens: tuple[str, ...]  # folders of token caches
    budget: Budget
    seed: int  # of weights and data order
    start: "Arm | None" = None  # whose weights this one starts from

    def identity(self) -> dict[str, Any]:
        """List what the result follows from besides the settings that all arms share."""
        return {
            "model": self.model,
            "tokens": [asdict(read_token_info(folder)) for folder in self.tokens],
            "budget": asdict(self.budget),
            "seed": self.seed,
            "start": self.start.identity() if self.start else None,
        }

    def key(self, optimization: Optimization) -> str:
        """Hash all settings, for the name of the arm's folder."""
        return digest([self.identity(), asdict(optimization)])


def digest(values: Any) -> str:
    """Hash anything that JSON can write."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class TrainedArm:
    """Reads a finished arm from its folder."""

    arm: Arm
    folder: Path

    @cached_property
    def prior(self) -> Prior:
        """Load the averaged weights, in evaluation mode."""
        return Prior.from_pretrained(self.folder / "model").eval()

    @cached_property
    def curve(self) -> dict[str, np.ndarray]:
        """Read the held-out losses (:func:`read_curve`)."""
        return read_curve(self.folder)


class TimedPriorTask(PriorTask):
    """Adds to a prior's validation the seconds trained so far.

    The clock runs from a batch to the next validation. Checkpoints are written in between: for
    arms like these two per run, a fraction of a second each. ``wall_s`` and ``cpu_s`` are seconds
    and processor seconds of an earlier, interrupted run.
    """

    def __init__(
        self,
        prior: Prior,
        data: PriorData,
        training: TrainingConfig,
        wall_s: float = 0.0,
        cpu_s: float = 0.0,
    ) -> None:
        super().__init__(prior, data, training)
        self.wall_s = wall_s
        self.cpu_s = cpu_s
        self._since: tuple[float, float] | None = None

    def collate(self, items: list[Any]) -> Any:
        """Stack items; the clock starts here, because a step begins with its batch."""
        if self._since is None:
            self._since = (time.perf_counter(), time.process_time())
        return super().collate(items)

    def validate(self, model: Prior, folder: Path) -> dict[str, float]:
        """Stop the clock, validate, and add what it shows."""
        if self._since is not None:
            self.wall_s += time.perf_counter() - self._since[0]
            # every process is taken to work as hard as this one
            processes = PartialState().num_processes
            self.cpu_s += (time.process_time() - self._since[1]) * processes
            self._since = None
        figures = super().validate(model, folder)
        return figures | {"wall_s": self.wall_s, "cpu_s": self.cpu_s}


def train_arm(arm: Arm, folder: Path, optimization: Optimization) -> TrainedArm:
    """Train an arm in the folder of all arms, unless it has been trained.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; what has been trained is kept.
    """
    run = folder / arm.key(optimization)
    if not is_trained(run):
        with lock(run) if PartialState().num_processes == 1 else nullcontext():
            if not is_trained(run):  # another run of the study may have done so while this waited
                train_here(arm, run, folder, optimization)
    return TrainedArm(arm, run)


def lineage(arm: Arm) -> Iterator[Arm]:
    """Yield the arms that an arm starts from, the first one first, then the arm."""
    if arm.start is not None:
        yield from lineage(arm.start)
    yield arm


def is_trained(run: Path) -> bool:
    """Say whether an arm's folder holds a finished arm."""
    return (run / RESULT_NAME).is_file()


def lock(run: Path) -> FileLock:
    """Make the lock that a run holds while it trains an arm, so that other runs take other arms."""
    run.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(run.with_suffix(".lock"))


def is_held(run: Path) -> bool:
    """Say whether another run is training an arm."""
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
    train(TimedPriorTask(prior, data, config, *seconds_so_far(run)), config, resume=True)
    finish(arm, run, config.steps)


def reached_step(run: Path) -> int:
    """Read the step of the newest checkpoint, 0 where there is none."""
    found = checkpoints(run)
    return int(json.loads((found[-1] / "step.json").read_text())["step"]) if found else 0


def seconds_so_far(run: Path) -> tuple[float, float]:
    """Read the clock at the newest checkpoint: seconds and processor seconds."""
    curve, reached = read_curve(run), reached_step(run)
    wall_s, cpu_s = (curve[name][curve["step"] <= reached] for name in ("wall_s", "cpu_s"))
    return (float(wall_s[-1]), float(cpu_s[-1])) if len(wall_s) else (0.0, 0.0)


def finish(arm: Arm, run: Path, steps: int) -> None:
    """Mark a finished run as such and drop its checkpoints."""
    last = reached_step(run)
    if last < steps:
        raise KeyboardInterrupt(f"{arm.name} stopped at step {last} of {steps}")
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
    """Fill in the trainer's settings.

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
    """Fill in the trainer's data; a crop is counted in positions, whether frames or notes."""
    for info in read_token_infos(tokens):
        if info.frame_rate not in (None, TOKEN_RATE):
            raise ValueError(
                f"tokens of a comparison must have {TOKEN_RATE} frames a second, "
                f"got {info.frame_rate} in {tokens[0]}"
            )
    return PriorData(
        tokens=[*tokens],
        text_encoder=optimization.text_encoder,
        crop_frames=budget.crop_frames,
        text_dropout=optimization.text_dropout,
        end_share=0.0,
        depth_share=optimization.depth_share,
        validation_clips=optimization.validation_clips,
    )


def read_curve(run: Path) -> dict[str, np.ndarray]:
    """Read the validations of a run; one that a resumed run repeated counts once.

    Returns:
        Optimizer ``step``, ``loss`` in nats per code with captions, and seconds of training so far
        without validation: ``wall_s``, and ``cpu_s`` of the processors of all processes.
    """
    path = run / "metrics.jsonl"
    lines = list(read_rows(path).rows.values()) if path.is_file() else []
    found = {line["step"]: line for line in lines if "validation/loss" in line}
    names = {"step": "step"} | {name: f"validation/{name}" for name in ("loss", "wall_s", "cpu_s")}
    return {
        name: np.array([found[step][column] for step in sorted(found)])
        for name, column in names.items()
    }
