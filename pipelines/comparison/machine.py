"""What the figures depend on besides the settings: the machine, and how long it has worked."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState

from codec.whole_file import write_json
from pipelines.benchmarks.machine import processor_name


def describe_machine() -> list[str]:
    """Processor, threads, processes, device and versions, in lines."""
    state = PartialState()
    device = str(state.device)
    if state.device.type == "cuda":
        device = torch.cuda.get_device_name(state.device)
    return [
        f"Machine: {processor_name()}, {torch.get_num_threads()} threads, "
        f"{state.num_processes} process(es), {device}; torch {torch.__version__}."
    ]


@dataclass
class RunClock:
    """Minutes of every run of a study, those that were stopped or went on beside it included.

    Args:
        folder: of the study.
    """

    folder: Path
    started: float = field(default_factory=time.monotonic)
    name: str = field(default_factory=lambda: f"{time.time():.0f}-{os.getpid()}.json")

    def note(self) -> float:
        """Write down how long this run has worked; the minutes of all runs."""
        kept = self.folder / "minutes"
        kept.mkdir(parents=True, exist_ok=True)
        write_json(kept / self.name, {"minutes": (time.monotonic() - self.started) / 60})
        return sum(json.loads(path.read_text())["minutes"] for path in kept.glob("*.json"))
