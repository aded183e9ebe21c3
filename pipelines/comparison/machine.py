"""What the figures depend on besides the settings: the machine, and how long it has worked."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState

from pipelines.bench import processor_name
from pipelines.shards import write_json


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Multiply float32 matrices as training does ("medium") or as writing does ("highest")."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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


def minutes_so_far(folder: Path, started: float) -> float:
    """Minutes of this run and of the earlier ones that it goes on from.

    Args:
        folder: of the study.
        started: ``time.monotonic()`` when this run began.
    """
    path = folder / "minutes.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    earlier = kept.get("earlier", 0.0)
    if kept.get("started") != started:  # another run wrote it: all of it is earlier
        earlier += kept.get("now", 0.0)
    now = (time.monotonic() - started) / 60
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"started": started, "earlier": earlier, "now": now})
    return earlier + now
