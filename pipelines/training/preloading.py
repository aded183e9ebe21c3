"""Settle what must be set before torch is imported: threads, allocator, garbage collection."""

import atexit
import ctypes.util
import gc
import os
import sys
from collections.abc import MutableMapping


def let_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP threads sleep where they wait, unless the user has decided.

    Spinning costs little on an idle machine. Where other processes want the cores too, the prior
    wrote 16 to 26 frames a second with two spinning threads and 150 to 157 with two sleeping ones.
    """
    environment.setdefault("OMP_WAIT_POLICY", "passive")


def collect_rarely() -> None:
    """Look for garbage after 50,000 new objects in place of 700, and not once more at the exit.

    torch, diffusers and transformers make a million objects that stay. Walking over them again and
    again took a quarter of the start-up, and once more at the end a second (docs/streaming.md).
    """
    gc.set_threshold(50_000, 50, 50)
    atexit.register(gc.freeze)


def preload_allocator() -> None:
    """Start this process again, once, with tcmalloc in front; return where that is not possible.

    glibc's allocator gives the large blocks of every training step back in between: with tcmalloc
    training measured 1.3 to 2 times faster on two cores.
    """
    if os.environ.get("LD_PRELOAD") or not sys.platform.startswith("linux"):
        return
    library = ctypes.util.find_library("tcmalloc_minimal")
    if library:
        os.execve(sys.executable, sys.orig_argv, os.environ | {"LD_PRELOAD": library})
