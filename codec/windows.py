"""Run a function of limited reach over a stream, window by window, as if over the whole."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def windowed(
    blocks: Iterable[Tensor],
    apply: Callable[[Tensor], Tensor],
    *,
    size: int,
    halo: int,
    units_in: int = 1,
    units_out: int = 1,
) -> Iterator[Tensor]:
    """Apply ``apply`` to windows of a stream and yield the parts that equal the whole's result.

    ``apply`` maps (..., n * units_in) to (..., n * units_out) and its output at one position
    depends on at most ``halo`` positions on either side; at the stream's own edges it sees the
    same edge as it would see on the whole. The last window may be ragged.

    Args:
        blocks: consecutive pieces of the stream, of any length along the last dimension.
        apply: the function.
        size: positions yielded per window.
        halo: positions of context on either side of a window.
        units_in: input elements per position (1764 samples per token frame, for example).
        units_out: output elements per position.
    """
    buffer: Tensor | None = None
    left = 0
    for block in blocks:
        buffer = block if buffer is None else torch.cat([buffer, block], dim=-1)
        while buffer.shape[-1] >= (left + size + halo + 1) * units_in:
            window = buffer[..., : (left + size + halo) * units_in]
            yield apply(window)[..., left * units_out : (left + size) * units_out]
            keep = min(halo, left + size)
            buffer = buffer[..., (left + size - keep) * units_in :]
            left = keep
    if buffer is not None and buffer.shape[-1] > left * units_in:
        yield apply(buffer)[..., left * units_out :]
