"""Speed of single frames: a compiled decoding step, and weights stored for products of few rows.

The model's own files hold the mathematics alone; whatever a compiler or a processor's library asks
for is in here, around them. What each piece buys is in docs/performance.md.
"""

import math
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from codec.component import Component
from prior.attention import Place
from prior.condition import Condition
from prior.state import PriorState

TEXT_SLOTS = 80
"""Text tokens that a compiled step reads, or a multiple of them; the empty ones are masked."""
FEW_ROWS = 8
"""Rows up to which a loop that the compiler writes is faster than a library's product."""


# -- the step -------------------------------------------------------------------------------


def compile_step(prior: Component) -> None:
    """Compile one decoding step, sampling included, for every generation from now on.

    A frame of one row is bound by dispatching small operators: on a GPU they are replayed as one
    CUDA graph; on a CPU they are fused, called from C++, and read a weight once for all rows.
    Compiling happens as the first frames are generated and takes a minute; torch keeps the result
    on disk, so the next process needs ten seconds. It happens again for another number of rows,
    other settings of the sampling and, without a sliding window, another length; after eight of
    these, what is new runs as it is. Equal seeds give equal codes, but not always those of the
    plain step: rounding differs.

    Raises:
        ValueError: the backbone holds an LSTM, which torch.compile does not trace.
        FileNotFoundError: on a CPU, no C++ compiler is installed.
    """
    if prior.config.backbone != "transformer":
        raise ValueError(
            f"compile_step needs backbone='transformer', got {prior.config.backbone!r}"
        )
    if prior.device.type == "cpu":
        compilers = (os.environ.get("CXX", "c++"), "c++", "g++", "clang++")
        if not any(map(shutil.which, compilers)):
            raise FileNotFoundError(
                "compile_step needs a C++ compiler on a CPU: apt-get install g++"
            )
        lay_out_by_row(prior)
    prior.is_compiled = True


@lru_cache
def compiled(step: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    """Compile a function that reads one frame and gives a NamedTuple of tensors."""
    if device_type == "cpu":

        def by_sums(*arguments: Any) -> Any:
            with SumsForProducts():
                return step(*arguments)

        # called from C++ and not from Python
        return torch.compile(by_sums, dynamic=False, options={"cpp_wrapper": True})
    replayed = torch.compile(step, dynamic=False, mode="reduce-overhead")

    def copied(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        output = replayed(*arguments)
        return type(output)(*(tensor.clone() for tensor in output))  # a replay overwrites them

    return copied


# -- shapes that stay, so that nothing is compiled twice --------------------------------------


def pad_text(condition: Condition) -> Condition:
    """Fill the text up to a multiple of ``TEXT_SLOTS`` tokens."""
    length = condition.text_mask.shape[1]
    return condition.padded(length + -length % TEXT_SLOTS)


def fix_shapes(state: PriorState, window: int | None) -> None:
    """Enlarge a prefilled state to shapes that follow from the sliding window alone.

    Without one they follow from ``max_frames``. A CUDA graph reads and writes at the addresses
    that the state then has.
    """
    capacity = window or state.max_frames
    for layer in state.layers:
        cache = layer.history
        # a slot too many: the case that all are read would be compiled on its own
        missing = (0, 0, 0, capacity + 1 - cache.keys.shape[2])
        cache.keys, cache.values = F.pad(cache.keys, missing), F.pad(cache.values, missing)
        cache.capacity = capacity
        if cache.keys.is_cuda:
            for tensor in (cache.keys, cache.values, *(layer.text or ())):
                torch._dynamo.mark_static_address(tensor, guard=False)


def masked_place(place: Place, capacity: int) -> Place:
    """Say which slots are read by a mask: a number would be compiled anew in every frame.

    On a CPU the mask covers the filled slots, its length marked as one that varies; on a GPU it
    covers all, the empty ones hidden, so that a graph can be replayed.
    """
    device = place.slot.device
    if device.type == "cpu":
        mask = torch.ones(1, place.filled, dtype=torch.bool)
        if place.filled > 1:  # a compiler takes lengths of one for constants
            torch._dynamo.mark_dynamic(mask, 1, min=2, max=capacity)
    else:
        mask = torch.arange(capacity, device=device)[None] < place.filled
    return place._replace(mask=mask)


# -- sums for products ------------------------------------------------------------------------


class SumsForProducts(TorchFunctionMode):
    """While it is entered, linear layers of few rows and attention are written out as sums.

    A compiler then makes loops of a whole frame, each of which reads a weight once for all rows,
    with no call to a library between them; that is what a product of few rows mostly costs.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the two functions; leave all others."""
        if func is F.linear and args[2] is None and has_few_rows(args[0]):
            return sum_products(*args[:2])
        if func is F.scaled_dot_product_attention:
            return sum_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def has_few_rows(x: Tensor) -> bool:
    """Whether (..., D) holds at most ``FEW_ROWS`` vectors."""
    return x.numel() <= FEW_ROWS * x.shape[-1]


def sum_products(x: Tensor, weight: Tensor) -> Tensor:
    """(..., D) and a weight (D', D) of any dtype, stored by row -> (..., D')."""
    rows = materialize(x.reshape(-1, x.shape[-1]))
    weight = weight.to(x.dtype)
    y = torch.stack([(weight * row).sum(dim=-1) for row in rows.unbind()])
    return y.view(*x.shape[:-1], weight.shape[0])


def sum_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Scaled dot-product attention of a few queries, arguments as PyTorch's."""
    query = materialize(query * query.shape[-1] ** -0.5)
    scores = (query[..., None, :] * keys[..., None, :, :]).sum(dim=-1)
    if is_causal:
        mask = torch.ones_like(scores, dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = materialize(scores.softmax(dim=-1))
    return (weights[..., None] * values[..., None, :, :]).sum(dim=-2)


def materialize(x: Tensor) -> Tensor:
    """Stop Inductor from computing ``x`` again in each of its readers."""
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


# -- how weights are stored -------------------------------------------------------------------


def lay_out_by_column(model: nn.Module) -> None:
    """Store every linear layer's weight column by column, in place; values and shapes stay.

    With MKL the product with one or two rows reads such a weight about 1.4 times as fast; on
    another processor library nothing is done. For inference: an optimizer would meet parameters
    whose strides differ from their gradients'.
    """
    if not torch.backends.mkl.is_available():
        return
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()


def lay_out_by_row(model: nn.Module) -> None:
    """Store every linear layer's weight by row, as PyTorch does and :func:`sum_products` wants."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.contiguous()
