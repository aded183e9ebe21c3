"""How many threads PyTorch computes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """PyTorch on so many threads of the CPU, for the thread that asks.

    One piece is written fastest on one: a frame is many small operators (docs/performance.md).
    And on two, how a row of a batch is rounded depends on its place.

    Raises:
        ValueError: the number is below 1.
    """
    if number < 1:
        raise ValueError(f"threads must be at least 1, got {number}")
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
