"""Describe what speed depends on besides the code, and print what was measured."""

import json
import platform
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any


def processor_name() -> str:
    """Name the processor; elsewhere than on Linux often only its architecture is known."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def print_rows(rows: Iterable[Any], head: str, facts: dict[str, Any], as_json: bool) -> int:
    """Print rows under a head as they come, or all of them with the facts as JSON."""
    if as_json:
        print(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=2))
        return 0
    print(head)
    for row in rows:
        print(row, flush=True)
    return 0


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
