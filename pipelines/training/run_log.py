"""Report a training run: ``metrics.jsonl``, a tracker, and the progress bar's text."""

import json
import time
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm


class RunLog:
    """Write ``metrics.jsonl``, the tracker if one is set, and the progress bar's text."""

    def __init__(self, accelerator: Accelerator, folder: Path, audio_s_per_step: float) -> None:
        self.accelerator = accelerator
        self.path = folder / "metrics.jsonl"
        self.audio_s_per_step = audio_s_per_step
        self.last: tuple[int, float, float] | None = None

    def training(self, step: int, metrics: dict[str, Tensor], rate: float, progress: tqdm) -> None:
        """Log a training step, with the processor's seconds that a step takes this process."""
        now, busy = time.perf_counter(), time.process_time()
        means = self.accelerator.reduce(metrics, "mean")  # over processes
        values = {name: float(value) for name, value in means.items()} | {"learning_rate": rate}
        if self.last:
            steps_per_s = (step - self.last[0]) / (now - self.last[1])
            values["steps_per_s"] = steps_per_s
            values["cpu_s_per_step"] = (busy - self.last[2]) / (step - self.last[0])
            if self.audio_s_per_step:
                values["audio_s_per_s"] = steps_per_s * self.audio_s_per_step
        self.last = (step, now, busy)
        shown = {
            name: f"{values[name]:.4g}" for name in ("loss", "audio_s_per_s") if name in values
        }
        progress.set_postfix(shown)
        self._write(step, values)

    def validation(self, step: int, figures: dict[str, float]) -> None:
        """Log held-out figures."""
        self.last = None
        if figures:
            text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            tqdm.write(f"step {step}: {text}")
            self._write(step, {f"validation/{name}": value for name, value in figures.items()})

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")
        self.accelerator.log(values, step=step)
