"""How much memory rendering took at most."""

from contextlib import suppress
from pathlib import Path

import torch

from pipelines.benchmarks.machine import peak_memory


class MemoryMeter:
    """Peak memory of a device: of this process on a CPU, allocated by PyTorch on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def restart(self) -> None:
        """Forget earlier peaks, where the system can."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):  # elsewhere than on Linux the peak is that of the whole life
                Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes at most since the restart."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_memory()
