"""From logits to codes: pure functions of logits and of noise drawn per item and frame."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from codec.seeds import generator

COARSE_BOOKS = 2  # codebooks that are drawn at the full temperature, the first ones


@dataclass(frozen=True)
class Sampling:
    """Set how codes are drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest code.
        top_k: draw from this many likeliest codes; None for all.
        top_p: draw from the fewest codes that hold this probability; None for all.
        guidance: scale of classifier-free guidance; 1 for none (and half the work).
        fine_temperature: factor on the temperature of the third and later codebooks, which are
            hard to foresee and say little.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = 250
    top_p: float | None = None
    guidance: float = 3.0
    fine_temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be finite and at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"guidance must be finite and at least 0, got {self.guidance}")
        if not 0 < self.fine_temperature < math.inf:
            raise ValueError(
                f"fine_temperature must be finite and positive, got {self.fine_temperature}"
            )

    def by_book(self, num_codebooks: int) -> "tuple[Sampling, ...]":
        """Return the settings of each codebook, the fine temperature applied."""
        fine = replace(self, temperature=self.temperature * self.fine_temperature)
        return tuple(self if book < COARSE_BOOKS else fine for book in range(num_codebooks))


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Apply classifier-free guidance (arXiv 2207.12598): ``u + guidance * (c - u)`` on logits."""
    return torch.lerp(unconditional, conditional, guidance)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by a positive temperature."""
    return logits / temperature


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Set all but the ``top_k`` largest of (B, V) to -inf; ties with the last one stay."""
    if top_k >= logits.shape[-1]:
        return logits
    smallest = logits.topk(top_k).values[:, -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Set to -inf all of (B, V) but the fewest largest that hold probability ``top_p``."""
    values, order = logits.sort(dim=-1, descending=True)
    probabilities = values.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    dropped = (before >= top_p).scatter(-1, order, before >= top_p)  # back in the logits' order
    dropped = dropped.scatter(-1, order[:, :1], False)  # the likeliest always stays
    return logits.masked_fill(dropped, -math.inf)


def choose_code(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Draw one code per row, (B,), by the Gumbel-max trick, after temperature, top-k and top-p.

    ``logits`` (B, V) are guided already; ``uniform`` (B, V) in [0, 1) has a number per code.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = apply_temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    uniform = uniform.clamp(min=torch.finfo(uniform.dtype).tiny)  # a zero would drop its code
    return (logits - uniform.log().neg().log()).argmax(dim=-1)


def draw_uniform(seeds: list[int], frame: int, num_codebooks: int, codebook_size: int) -> Tensor:
    """Return the noise of one frame: V + 1 numbers for codebook 0, V for each later one.

    Every row's come from its own generator, keyed by ``(seed, "prior", frame)``: they depend
    neither on the rows beside it, nor on the settings, nor on where generation started.

    Args:
        seeds: one per row.
        frame: counted from the start of the piece, a prompt included.
        num_codebooks: K.
        codebook_size: V.

    Returns:
        (B, K * V + 1) float32 in [0, 1) on the CPU.
    """
    count = num_codebooks * codebook_size + 1
    rows = [torch.rand(count, generator=generator(seed, "prior", frame)) for seed in seeds]
    return torch.stack(rows)


def uniform_of_book(uniform: Tensor, book: int, codebook_size: int) -> Tensor:
    """Return the noise of one codebook: (B, V + 1) for codebook 0, (B, V) for the others."""
    if book == 0:
        return uniform[:, : codebook_size + 1]
    start = 1 + book * codebook_size
    return uniform[:, start : start + codebook_size]
