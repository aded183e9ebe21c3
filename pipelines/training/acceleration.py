"""Start accelerate: processes, device and precision, and a stop at the same step everywhere."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration

from codec.process_settings import STOP_SIGNALS
from pipelines.training.training_config import TrainingConfig

BF16_FEATURES = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
"""Names in ``torch.cpu.get_capabilities``; without one of them a CPU emulates bfloat16."""
LOST = re.compile(r"connect|closed by peer|reset by peer|timed? ?out|broken pipe|NCCL", re.I)
"""What gloo and NCCL say where a process is not there any more."""
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}


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


def choose_precision(wanted: str, device: torch.device) -> str:
    """Resolve "auto": bf16 where the device computes in it, otherwise float32.

    On a CPU without bfloat16 instructions a bf16 product takes some sixty times as long as a
    float32 one (docs/experiments.md).
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if device.type == "cpu":
        # PyTorch before 2.10 does not tell
        features: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return "bf16" if any(features.get(name) for name in BF16_FEATURES) else "no"
    return "no"


@contextmanager
def lost_processes_named(accelerator: Accelerator) -> Iterator[None]:
    """Say in one line that another process of the run has ended, where an exchange fails.

    Raises:
        ConnectionError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if accelerator.num_processes == 1 or not LOST.search(reason):
            raise
        raise ConnectionError(
            f"another process of this run has ended or cannot be reached ({reason[-200:]}): "
            "start all of them again with --resume"
        ) from error


@contextmanager
def stop_on_signal(accelerator: Accelerator) -> Iterator[None]:
    """End the run on Ctrl-C or SIGTERM after the current step, on all processes at the same one."""

    def request(*_: Any) -> None:
        accelerator.set_trigger()

    before = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
