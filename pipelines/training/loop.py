"""The training loop that the three trainers share: accelerate, averaging, exact resume.

Nothing random is carried between steps: batch number ``n`` is a function of ``(seed, n)`` and the
global generators are seeded anew at every step, so a run resumed at step s continues as the
uninterrupted run would, and W processes with batch b equal one with batch W * b.
"""

import json
import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import (
    GradientAccumulationPlugin,
    ProjectConfiguration,
    send_to_device,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from codec.component import Component
from codec.process_settings import STOP_SIGNALS, kept_process_settings, matmul_precision
from codec.seeds import derive_seed, generator
from codec.whole_file import new_folder
from pipelines.training.blocks import checkpoint_activations, compile_blocks
from pipelines.training.checkpoints import (
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    save_checkpoint,
)
from pipelines.training.distribution import ShardedWeights, WholeWeights, whole
from pipelines.training.precision import choose_precision
from pipelines.training.run_log import RunLog
from pipelines.training.weight_average import WeightAverage

SMALLEST_SCALE = 2.0**-20
"""Smallest scale of float16 losses; gradients that overflow below it are not finite."""


@dataclass(frozen=True)
class TrainingConfig:
    """Set what every trainer needs besides its model and its data.

    Args:
        output_dir: where checkpoints, logs, samples and the exported model go.
        steps: optimizer steps in all.
        batch_size: items per process and forward pass.
        gradient_accumulation_steps: forward passes per step.
        learning_rate: peak, reached after ``warmup_steps``, then decaying by a cosine to a tenth.
        warmup_steps: steps of linear warm-up.
        weight_decay: of AdamW, on matrices only.
        max_grad_norm: gradients are scaled down to this norm.
        ema_decay: of the averaged weights, which are what is validated and exported. From scratch
            it grows to this value; a run that goes on from a whole model has it from the start, so
            that N steps leave a share of ``ema_decay ** N`` to that model (weights between two
            models: WiSE-FT, arXiv 2109.01903).
        mixed_precision: "no", "bf16", "fp16", or "auto": bf16 where the processor computes in it
            (on a CPU without such instructions it is far slower than float32).
        start_from: folder of a trained model of the same sizes to go on from; a new optimizer and
            schedule. Tensors that it lacks start fresh.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the newest to keep.
        validate_every: steps between validations (and samples).
        log_every: steps between lines of ``metrics.jsonl``.
        log_with: "tensorboard" or "trackio" beside ``metrics.jsonl``, if installed.
        num_workers: data-loading processes.
        sharding: split parameters, gradients, optimizer and average over all processes (FSDP2), for
            a prior or a decoder that one device cannot hold; otherwise every process has them all.
        activation_checkpointing: compute activations inside blocks twice instead of keeping them.
        compile_blocks: compile the blocks of a prior or a decoder.
        seed: of everything random.
    """

    output_dir: str
    steps: int = 1000
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: str = "auto"
    start_from: str | None = None
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    validate_every: int = 500
    log_every: int = 20
    log_with: str | None = None
    num_workers: int = 0
    sharding: bool = False
    activation_checkpointing: bool = False
    compile_blocks: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "gradient_accumulation_steps", "checkpoint_every")
        for name in (*counts, "keep_checkpoints", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "num_workers"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        for name, known in (
            ("mixed_precision", ("auto", "no", "bf16", "fp16")),
            ("log_with", (None, "tensorboard", "trackio")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.sharding and self.mixed_precision == "fp16":
            raise ValueError("mixed_precision must be no, bf16 or auto with sharding, got 'fp16'")


class TrainingTask(Protocol):
    """Define what a trainer adds to the loop: its model and data, its loss, how it is judged."""

    @property
    def model(self) -> nn.Module:
        """Return what is trained; its forward is the only thing that the loss may call."""

    @property
    def dataset(self) -> Dataset:
        """Item n of an endless stream, a function of (seed, n)."""

    @property
    def audio_s_per_item(self) -> float:
        """Seconds of sound in an item, 0 where they are not known."""

    def collate(self, items: list[Any]) -> Any:
        """Stack items of ``dataset`` to a batch: a tensor or a named tuple."""

    def before_step(self, average: Any, batch: Any, step: int) -> None:
        """Change the model and its average before a step, or move what is frozen to a device."""

    def loss(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the scalar loss of the (wrapped) model, and what to log beside it."""

    def validate(self, model: Any, folder: Path) -> dict[str, float]:
        """Measure the averaged model on held-out data; write samples into ``folder``."""

    def component(self, model: Any) -> Component:
        """Return what of the model a pipeline loads and another training starts from."""


@kept_process_settings()
def train(task: TrainingTask, config: TrainingConfig, resume: bool = False) -> Path:
    """Train, and return the folder of the exported model.

    Args:
        task: the model with its data and loss.
        config: see :class:`TrainingConfig`.
        resume: continue from the newest whole checkpoint in ``output_dir``.

    Raises:
        ValueError: ``output_dir`` already holds a run and ``resume`` is not set.
        FloatingPointError: the loss or its gradients are not finite.
    """
    folder = Path(config.output_dir)
    accelerator = start_accelerator(config)
    checkpoint = newest_checkpoint(folder)
    if checkpoint and not resume:
        raise ValueError(f"{folder} already holds {checkpoint.name}: pass --resume or another one")

    torch.manual_seed(config.seed)
    least_decay = 0.0
    if config.start_from and not checkpoint:
        fresh = load_weights(task.component(task.model), config.start_from)
        accelerator.print(f"started from {config.start_from}; new: {', '.join(fresh) or 'nothing'}")
        least_decay = 0.0 if fresh else config.ema_decay
    # before `prepare`, which puts an autocasting forward over the model's own
    average = WeightAverage(task.model, config.ema_decay, least_decay).to(accelerator.device)
    weights = prepare_weights(task.model, average, config, accelerator)
    model, optimizer = weights.model, weights.optimizer
    step = 0
    if checkpoint:
        load_checkpoint(weights.load, checkpoint)
        # as the settings are now; learning rate and ema_decay are read at every step
        optimizer.param_groups[0]["weight_decay"] = config.weight_decay
        average.least_decay = config.ema_decay if average.least_decay else 0.0
        step = int(json.loads((checkpoint / "step.json").read_text())["step"])
        accelerator.print(f"resumed from {checkpoint} at step {step}")

    loader = iter(make_loader(task, config, accelerator, step))
    is_cpu, is_main = accelerator.device.type == "cpu", accelerator.is_main_process
    # validation, samples and export have the precision of inference
    precision = "medium" if is_cpu else torch.get_float32_matmul_precision()
    progress = tqdm(
        total=config.steps, initial=step, unit="step", disable=not is_main, dynamic_ncols=True
    )
    items_per_step = (
        config.batch_size * config.gradient_accumulation_steps * accelerator.num_processes
    )
    log = RunLog(accelerator, folder, task.audio_s_per_item * items_per_step)
    with stop_on_signal(accelerator):
        while step < config.steps:
            batches = [
                send_to_device(next(loader), accelerator.device)
                for _ in range(config.gradient_accumulation_steps)
            ]
            with matmul_precision(precision):
                task.before_step(average.module, batches[0], step)
                metrics = take_step(task, config, accelerator, model, optimizer, batches, step)
            average.update_parameters(task.model)
            step += 1
            progress.update()
            stopping = accelerator.check_trigger()
            if step % config.log_every == 0:
                log.training(step, metrics, optimizer.param_groups[0]["lr"], progress)
            if step % config.checkpoint_every == 0 or stopping or step == config.steps:
                save_checkpoint(accelerator, weights.save, folder, step, config.keep_checkpoints)
                averaged = weights.averaged()
                if is_main:
                    with new_folder(folder / "model") as unfinished:
                        task.component(averaged).save_pretrained(unfinished)
            if step % config.validate_every == 0 or step == config.steps:
                averaged = weights.averaged()
                if is_main:
                    samples = folder / "samples" / f"step-{step:08d}"
                    samples.mkdir(parents=True, exist_ok=True)
                    with torch.no_grad():
                        log.validation(step, task.validate(averaged, samples))
                accelerator.wait_for_everyone()
            if stopping:
                accelerator.print(f"stopped at step {step}; continue with --resume")
                break
    progress.close()
    accelerator.end_training()
    return folder / "model"


def take_step(
    task: TrainingTask,
    config: TrainingConfig,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[Any],
    step: int,
) -> dict[str, Tensor]:
    """Take one optimizer step on the mean gradient of the accumulated batches.

    Where float16 overflows, the optimizer leaves the weights alone and its scaler shrinks; the
    step is then repeated, so that batch number n belongs to step n.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    model.train()
    while True:
        torch.manual_seed(derive_seed(config.seed, "step", step, accelerator.process_index))
        totals: dict[str, Tensor] = {}
        for batch in batches:
            with accelerator.accumulate(model):
                loss, metrics = task.loss(model, batch, step)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss became {loss.item()} at step {step}")
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
                    totals["gradient_norm"] = torch.as_tensor(whole(norm))
                optimizer.step()
                optimizer.zero_grad()
            for name, value in {"loss": loss, **metrics}.items():
                share = value.detach() / len(batches)
                totals[name] = totals.get(name, torch.zeros_like(share)) + share
        # accelerate does not see that a fused optimizer skipped its step
        if torch.isfinite(totals["gradient_norm"]):
            return totals
        if accelerator.scaler is None or accelerator.scaler.get_scale() < SMALLEST_SCALE:
            raise FloatingPointError(f"the gradients became infinite or NaN at step {step}")


def prepare_weights(
    model: nn.Module, average: WeightAverage, config: TrainingConfig, accelerator: Accelerator
) -> WholeWeights | ShardedWeights:
    """Make the blocks what the settings ask for, and the model ready for all processes."""
    if config.activation_checkpointing:
        checkpoint_activations(model)
    if config.compile_blocks:
        compile_blocks(model)
    kind = ShardedWeights if config.sharding else WholeWeights
    return kind(model, average, partial(make_optimizer, config=config), accelerator)


def start_accelerator(config: TrainingConfig) -> Accelerator:
    """Let accelerate choose processes, device and precision.

    What ``accelerate launch`` sets in the environment counts where the config leaves the choice.

    Raises:
        ValueError: the launcher started several processes and they do not see one another, wants
            another precision than the config, or an engine that the loop was not made for.
    """
    launched_precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    precision = config.mixed_precision
    if launched_precision != "no" and precision not in ("auto", launched_precision):
        raise ValueError(
            f"mixed_precision is {precision} in the config and {launched_precision} by the launcher"
        )
    for engine in ("DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false") == "true":
            raise ValueError(f"accelerate's {engine} engine is not supported: launch without it")
    if precision == "auto" and launched_precision != "no":
        precision = launched_precision
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    accelerator = Accelerator(
        cpu=device.type == "cpu",  # otherwise torchrun on a CPU makes no group
        mixed_precision=choose_precision(precision, device),
        # a plugin, because the environment would override the bare number
        gradient_accumulation_plugin=GradientAccumulationPlugin(config.gradient_accumulation_steps),
        log_with=config.log_with,
        project_config=ProjectConfiguration(project_dir=config.output_dir),
    )
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != launched:
        raise ValueError(
            f"{launched} processes were launched, accelerate sees {accelerator.num_processes}"
        )
    if config.log_with:
        settings = {key: value for key, value in asdict(config).items() if value is not None}
        accelerator.init_trackers("partita", config=settings)
    return accelerator


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Fused AdamW; vectors (norms, biases, gains) are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine from the peak to a tenth of it."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, progress)))


class StepSampler(Sampler[int]):
    """The numbers of the items that one process sees, from one step on, without end.

    Item n of step s is the same whatever the number of processes: process r of W takes the
    r-th run of ``batch_size`` out of every W.
    """

    def __init__(self, config: TrainingConfig, rank: int, world: int, first_step: int) -> None:
        self.config = config
        self.rank = rank
        self.world = world
        self.first_step = first_step

    def __iter__(self) -> Iterator[int]:
        size = self.config.batch_size
        forward = self.first_step * self.config.gradient_accumulation_steps
        while True:
            start = (forward * self.world + self.rank) * size
            yield from range(start, start + size)
            forward += 1


class EpochOrder:
    """Row of item ``n``: every epoch is its own seeded permutation of all rows."""

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __call__(self, item: int) -> int:
        """Find the row that item ``item`` of the stream comes from."""
        epoch, position = divmod(item, self.num_rows)
        if epoch != self._epoch:
            draws = generator(self.seed, "epoch", epoch)
            self._order = torch.randperm(self.num_rows, generator=draws)
            self._epoch = epoch
        return int(self._order[position])


def make_loader(
    task: TrainingTask, config: TrainingConfig, accelerator: Accelerator, first_step: int
) -> DataLoader:
    """Load this process's batches, from ``first_step`` on."""
    sampler = StepSampler(config, accelerator.process_index, accelerator.num_processes, first_step)
    return DataLoader(
        task.dataset,
        batch_size=config.batch_size,
        sampler=sampler,
        collate_fn=task.collate,
        num_workers=config.num_workers,
        generator=torch.Generator().manual_seed(config.seed),
    )


@contextmanager
def stop_on_signal(accelerator: Accelerator) -> Iterator[None]:
    """Ctrl-C or SIGTERM ends the run after the current step, on all processes at the same one."""

    def request(*_: Any) -> None:
        accelerator.set_trigger()

    before = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
