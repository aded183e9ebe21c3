"""Apply a function with bounded context to a stream, window by window, as if to the whole."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from codec.stages import PieceBuffer, grown, run


class Windows:
    """A stage that applies a function to windows of a stream; its pieces join to the whole's.

    ``apply`` maps (..., n * units_in) to (..., n * units_out) and its output at one position
    depends on at most ``halo`` positions on either side; at the stream's own edges it sees the
    same edge as it would see on the whole. The last window may be ragged.

    Args:
        apply: the function.
        size: positions yielded per window.
        halo: positions of context on either side of a window.
        units_in: input elements per position (1764 samples per token frame, for example).
        units_out: output elements per position.
        cuts: whether ``apply`` also takes how many positions before and after a window are context
            alone, and leaves them out of its output, which costs less than cutting it off.
        first: positions in the first window, from which windows grow by half to ``size``; None for
            ``size``. A short first window lets a stream begin sooner; context costs most in it.
    """

    def __init__(
        self,
        apply: Callable[..., Tensor],
        *,
        size: int,
        halo: int,
        units_in: int = 1,
        units_out: int = 1,
        cuts: bool = False,
        first: int | None = None,
    ) -> None:
        self.apply = apply
        self.cuts = cuts
        self.size = size
        self.halo = halo
        self.units_in = units_in
        self.units_out = units_out
        self.first = size if first is None else first
        self.input = PieceBuffer()
        self.left = 0  # positions of context before the window
        self.index = 0  # of the window

    def pull(self) -> Tensor | None:
        """Return the output of the next window."""
        size = grown(self.first, self.size, self.index)
        stop = self.left + size
        if len(self.input) >= (stop + self.halo) * self.units_in:
            window = self.input.first((stop + self.halo) * self.units_in)
            output = self._apply(window, self.halo)
            keep = min(self.halo, stop)
            self.input.drop((stop - keep) * self.units_in)
            self.left, self.index = keep, self.index + 1
            return output
        if not self.input.ended or len(self.input) <= self.left * self.units_in:
            return None
        output = self._apply(self.input.first(len(self.input)), 0)
        self.input.drop(len(self.input))
        self.left = 0
        return output

    def _apply(self, window: Tensor, behind: int) -> Tensor:
        """Compute a window's output, without that of the context before and ``behind`` it."""
        if self.cuts:
            return self.apply(window, self.left, behind)
        output = self.apply(window)
        return output[..., self.left * self.units_out : output.shape[-1] - behind * self.units_out]

    def state_dict(self) -> dict[str, Tensor]:
        """Save what is buffered and where the window stands."""
        place = torch.tensor([self.left, self.index])
        return {**self.input.state_dict(), "place": place}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.input.load_state_dict(state)
        self.left, self.index = state["place"].tolist()


def windowed(
    blocks: Iterable[Tensor],
    apply: Callable[[Tensor], Tensor],
    *,
    size: int,
    halo: int,
    units_in: int = 1,
    units_out: int = 1,
) -> Iterator[Tensor]:
    """Lead consecutive pieces of a stream, of any length, through :class:`Windows` of one size."""
    stage = Windows(apply, size=size, halo=halo, units_in=units_in, units_out=units_out)
    return run([stage], blocks)
