"""Train: the loop that the three trainers share, with accelerate, averaging and exact resume.

Nothing random is carried between steps: batch number ``n`` is a function of ``(seed, n)`` and the
global generators are seeded anew at every step, so a run resumed at step s continues as the
uninterrupted run would, and W processes with batch b equal one with batch W * b.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from codec.component import Component
from codec.process_settings import keep_freed_memory, kept_process_settings, matmul_precision
from codec.seeds import derive_seed
from codec.whole_file import new_folder
from pipelines.training.acceleration import lost_processes_named, start_accelerator, stop_on_signal
from pipelines.training.blocks import checkpoint_activations, compile_blocks
from pipelines.training.checkpoints import (
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    read_step,
    save_checkpoint,
)
from pipelines.training.distribution import ShardedWeights, WholeWeights, whole
from pipelines.training.item_order import StepSampler
from pipelines.training.run_log import RunLog
from pipelines.training.training_config import TrainingConfig
from pipelines.training.weight_average import WeightAverage

SMALLEST_SCALE = 2.0**-20
"""Smallest scale of float16 losses; gradients that overflow below it are not finite."""


class TrainingTask(Protocol):
    """Define what a trainer adds to the loop: its model and data, its loss, how it is judged."""

    @property
    def model(self) -> nn.Module:
        """Return what is trained; its forward is the only thing that the loss may call."""

    @property
    def dataset(self) -> Dataset:
        """Return the items: number n of an endless stream is a function of (seed, n)."""

    @property
    def audio_s_per_item(self) -> float:
        """Return the seconds of sound in an item, 0 where they are not known."""

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

    Raises:
        ValueError: ``output_dir`` already holds a run and ``resume`` is not set, or one of another
            number of items a step.
        ConnectionError: another process of the run has ended.
        FloatingPointError: the loss or its gradients are not finite.
    """
    folder = Path(config.output_dir)
    accelerator = start_accelerator(config)
    processes = accelerator.num_processes
    items_per_step = config.batch_size * config.gradient_accumulation_steps * processes
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
        step = read_step(checkpoint, items_per_step, processes)
        load_checkpoint(weights.load, checkpoint)
        # as the settings are now; learning rate and ema_decay are read at every step
        optimizer.param_groups[0]["weight_decay"] = config.weight_decay
        average.least_decay = config.ema_decay if average.least_decay else 0.0
        accelerator.print(f"resumed from {checkpoint} at step {step}")

    loader = iter(make_loader(task, config, accelerator, step))
    is_cpu, is_main = accelerator.device.type == "cpu", accelerator.is_main_process
    if is_cpu:
        keep_freed_memory()
    # validation, samples and export have the precision of inference
    rounds = is_cpu and accelerator.mixed_precision != "no"
    precision = "medium" if rounds else torch.get_float32_matmul_precision()
    progress = tqdm(
        total=config.steps, initial=step, unit="step", disable=not is_main, dynamic_ncols=True
    )
    log = RunLog(accelerator, folder, task.audio_s_per_item * items_per_step)
    with lost_processes_named(accelerator), stop_on_signal(accelerator):
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
                keep = config.keep_checkpoints
                save_checkpoint(accelerator, weights.save, folder, step, keep, items_per_step)
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


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Make a fused AdamW; vectors (norms, biases, gains) are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Warm up linearly, then follow a cosine from the peak to a tenth of it."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, progress)))


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
