"""How many minutes every arm will take here, from timed updates of each kind of arm."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate.utils import send_to_device

from pipelines.commands.estimate import count_parameters
from pipelines.comparison import context, ladder, recall, scaling
from pipelines.comparison.arm import Arm, is_trained, lineage, prior_data, training_config
from pipelines.comparison.row import Table
from pipelines.comparison.study import Study, digest
from pipelines.comparison.throughput import finish
from pipelines.train_prior import PriorTask
from pipelines.training.loop import make_optimizer
from pipelines.training.precision import PRECISIONS, choose_precision
from prior.model import Prior


def rows_of_arms(study: Study) -> dict[str, list[Arm]]:
    """The arms of every row that trains, what they start from included."""
    makers: dict[str, Callable[[Study], dict]] = {
        "recall": recall.arms,
        "ladder": ladder.arms,
        "scaling": scaling.arms,
        "context": context.arms,
    }
    wanted = set(study.settings.rows)
    if wanted & {"speed", "complexity"}:
        wanted.add("ladder")
    return {
        name: [part for arms in maker(study).values() for arm in arms for part in lineage(arm)]
        for name, maker in makers.items()
        if name in wanted
    }


def plan(study: Study) -> tuple[Table, float]:
    """Minutes per arm and in all.

    Args:
        study: its arms are built, none is trained.

    Returns:
        A line per kind of arm, and the minutes that are left to train.
    """
    seen: dict[str, float] = {}
    done: set[str] = set()
    rows, total = [], 0.0
    for name, arms in rows_of_arms(study).items():
        groups: dict[str, list[Arm]] = defaultdict(list)
        for arm in arms:
            key = arm.key(study.settings.optimization)
            if key not in done:
                done.add(key)
                groups[arm.name.partition(", seed")[0]].append(arm)
        for label, group in groups.items():
            kind = digest([group[0].model, str(group[0].budget)])
            if kind not in seen:
                study.say(f"timing {label}")
                seen[kind] = minutes(study, group[0])
            waiting = [arm for arm in group if not is_trained(study.arm_folder(arm))]
            total += seen[kind] * len(waiting)
            rows.append(cells(name, label, group, len(waiting), seen[kind]))
    columns = ["row", "arm", "parameters", "updates", "positions", "minutes", "arms", "to train"]
    return Table(columns, rows), total


def cells(name: str, label: str, group: list[Arm], waiting: int, each: float) -> list[str]:
    """A line of the plan."""
    budget = group[0].budget
    return [
        name,
        label,
        f"{count_parameters('prior', group[0].model):,}",
        f"{budget.steps} x {budget.batch_size}",
        f"{budget.crop_frames}",
        f"{each:.1f}",
        f"{len(group)}",
        f"{waiting}",
    ]


def minutes(study: Study, arm: Arm) -> float:
    """What an arm takes, from its second update and its share of validation."""
    optimization = study.settings.optimization
    budget = replace(arm.budget, steps=2)
    config = training_config(budget, 0, optimization, study.folder / "plan")
    task = PriorTask(Prior(**arm.model), prior_data(arm.tokens, budget, optimization), config)
    task.model.to(study.device).train()
    optimizer = make_optimizer(task.model, config)
    for number in range(2):
        items = [task.dataset[number * config.batch_size + i] for i in range(config.batch_size)]
        batch = send_to_device(task.collate(items), study.device)
        task.before_step(task.model, batch, number)
        forward, whole = time_step(study, task, optimizer, batch)
    share = optimization.validation_clips / config.batch_size
    validation = 2 * forward * share * optimization.validations
    return (whole * arm.budget.steps + validation) / 60


def time_step(study: Study, task: PriorTask, optimizer: torch.optim.Optimizer, batch) -> tuple:
    """Seconds of a forward pass, and of a whole update."""
    wanted = study.settings.optimization.mixed_precision
    precision = PRECISIONS[choose_precision(wanted, study.device)]
    finish(study.device)
    start = time.perf_counter()
    with torch.autocast(study.device.type, precision, enabled=precision != torch.float32):
        loss, _ = task.loss(task.model, batch, 0)
    finish(study.device)
    middle = time.perf_counter()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    finish(study.device)
    return middle - start, time.perf_counter() - start
