"""Settings of the whole process, changed for a while and put back.

PyTorch, accelerate and Python keep them once per process, so a function that leaves one changed
changes what the caller computes next.
"""

import ctypes
import gc
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEPT_SIZES = {-1: 512 << 20, -3: 32 << 20}
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3), bytes; the latter is glibc's largest."""


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Let PyTorch compute on so many threads of the CPU; None leaves the number as it is.

    One piece is written fastest on one thread: a frame is many small operators
    (docs/performance.md). On two, how a row of a batch is rounded depends on its place.

    Raises:
        ValueError: the number is below 1.
    """
    if number is not None and number < 1:
        raise ValueError(f"threads must be at least 1, got {number}")
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next tensors, until the process ends; False elsewhere.

    Otherwise a training step gives back and asks for tens of thousands of pages, each of which the
    kernel fills with zeros first (docs/performance.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:  # another C library
        return False
    return all(set_option(option, size) for option, size in KEPT_SIZES.items())


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Multiply float32 matrices with "highest", "high" or "medium" precision.

    With "medium" a processor that has bfloat16 tiles (AMX) rounds every factor to bfloat16.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def hidden_progress_bars() -> Iterator[None]:
    """Hide the bars that diffusers and transformers, if imported, show while they load weights."""
    with ExitStack() as shown_again:
        for library in ("diffusers", "transformers"):
            logging = sys.modules.get(f"{library}.utils.logging")
            if logging is not None and logging.is_progress_bar_enabled():
                logging.disable_progress_bar()
                shown_again.callback(logging.enable_progress_bar)
        yield


@contextmanager
def kept_process_settings() -> Iterator[None]:
    """Restore on leaving whatever the body changes for the whole process.

    Covered are matmul precision and threads of PyTorch, the global generators of PyTorch, NumPy
    and ``random``, warning filters, garbage-collection thresholds, the handlers of SIGINT and
    SIGTERM, and the environment.
    """
    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    thresholds, environment = gc.get_threshold(), dict(os.environ)
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with (
        matmul_precision(torch.get_float32_matmul_precision()),
        cpu_threads(None),
        warnings.catch_warnings(),
    ):
        try:
            yield
        finally:
            torch.set_rng_state(generators[0])
            np.random.set_state(generators[1])  # noqa: NPY002
            random.setstate(generators[2])
            gc.set_threshold(*thresholds)
            if in_main_thread:  # Python lets no other thread set a handler
                for number, handler in handlers.items():
                    signal.signal(number, handler)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)
