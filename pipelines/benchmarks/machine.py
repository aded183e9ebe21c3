"""Describe what speed depends on besides the code: the processor, and a process's memory."""

import platform
import resource
import sys
from contextlib import suppress
from pathlib import Path


def processor_name() -> str:
    """Name the processor; elsewhere than on Linux often only its architecture is known."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory() -> int:
    """Return the most main memory that this process has held (bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def resident_memory(pid: int | None = None) -> int:
    """Return the main memory that a process (this one) and its descendants hold now (bytes).

    Pages that processes share are counted in each of them.
    """
    import psutil

    total = 0
    with suppress(psutil.Error):  # one of them has just ended
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    return total
