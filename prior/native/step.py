"""The native step in the place of ``next_frame``: same arguments, same codes, same state."""

import ctypes
from contextlib import suppress
from ctypes import byref
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codec.native.library import Library, NativeError, load_library
from prior.attention import KeyValueCache, Place, TextMemory
from prior.model import Prior
from prior.native.packing import PackedPrior, check_modules, pack
from prior.native.structures import FrameArguments, Layer, Settings, StateArguments
from prior.next_frame import Draw, Frame, next_frame
from prior.sampling import Sampling
from prior.state import PriorState

SLOT_UNIT = 16  # slots are stored in multiples of it: whole vectors for every build


def describe_step(prior: Prior) -> str:
    """Name the step that generates with this prior, and why if it is not the native one."""
    try:
        check_modules(prior)
        return f"native ({load_library().name})"
    except NativeError as error:
        return f"PyTorch's ({error})"


class NativeStep:
    """A callable like ``next_frame``, for one generation.

    It computes in C where it can and calls ``next_frame`` where it cannot, frame by frame: weights
    may change on the way, and a state that either of them filled goes on with the other.
    """

    def __init__(self, prior: Prior, library: Library | None = None) -> None:
        self.memory: GenerationMemory | None = None
        self.packed: PackedPrior | None = None
        with suppress(NativeError):
            self.packed = pack(prior, library or load_library(), compare=True)

    def __call__(
        self, prior: Prior, last: Tensor, added: Tensor, place: Place, state: PriorState, draw: Draw
    ) -> Frame:
        """See ``next_frame``."""
        packed = self._follow_weights(prior)
        if packed is None:
            return next_frame(prior, last, added, place, state, draw)
        memory = self.memory
        if memory is None or not memory.belongs_to(state, draw.books):
            memory = self.memory = GenerationMemory(packed, state, draw)
        codes, ended = torch.empty_like(last), draw.ended.clone()
        added, last, uniform = added.float(), last.contiguous(), draw.uniform.contiguous()
        if added.stride(1) != 1:
            added = added.contiguous()
        frame = FrameArguments(
            int(place.slot),
            place.filled,
            draw.may_end,
            added.stride(0),
            *(
                tensor.data_ptr()
                for tensor in (*place.rotation, added, uniform, last, codes, ended)
            ),
        )
        run = packed.library.functions.partita_frame
        if run(byref(packed.model), byref(memory.arguments), byref(frame)):
            raise ValueError(
                f"the state does not fit: codes must lie in [0, {prior.codebook_size}) "
                f"and the position in [0, {state.max_frames})"
            )
        return Frame(codes, ended)

    def _follow_weights(self, prior: Prior) -> PackedPrior | None:
        """Pack weights anew that have changed; None where the native step does not apply."""
        if self.packed is None or torch.is_autocast_enabled("cpu"):
            return None
        if not self.packed.is_current():
            library, self.packed = self.packed.library, None
            with suppress(NativeError):
                self.packed = pack(prior, library)
        return self.packed


class GenerationMemory:
    """A state's keys and values as the native step reads them: shared, not copied.

    The state's keys are replaced by views of a storage by coordinate, which PyTorch's step can read
    and write as well.
    """

    def __init__(self, packed: PackedPrior, state: PriorState, draw: Draw) -> None:
        model, functions = packed.model, packed.library.functions
        pieces, self.books = draw.ended.shape[0], draw.books
        rows, _, _, mask_width = state.text.mask.shape
        self.histories = [keep_by_coordinate(layer.history) for layer in state.layers]
        self.texts = [layer.text for layer in state.layers]
        check_shapes(model, rows, state)
        keys = self.histories[0].keys
        text_keys = [by_coordinate(text.keys) for text in self.texts if text]
        text_values = [text.values.contiguous() for text in self.texts if text]
        self.kept: list[Any] = [text_keys, text_values]
        layers = [
            Layer(
                history.keys.data_ptr(),
                history.values.data_ptr(),
                text_keys[index].data_ptr(),
                text_values[index].data_ptr(),
            )
            for index, history in enumerate(self.histories)
        ]
        mask = state.text.mask.contiguous()
        self.arguments = StateArguments(
            pieces,
            rows,
            keys.shape[2],
            keys.stride(3),
            mask_width,
            text_keys[0].stride(3),
            self._array(Layer, layers),
            self._array(Settings, [settings_of(book) for book in draw.books]),
            mask.data_ptr(),
        )
        numbers = functions.partita_workspace(byref(model), byref(self.arguments))
        workspace = torch.zeros(numbers)
        self.arguments.workspace = workspace.data_ptr()
        self.kept += [mask, workspace]
        self.keys = [history.keys for history in self.histories]

    def belongs_to(self, state: PriorState, books: tuple[Sampling, ...]) -> bool:
        """Tell whether nothing in the state and the settings was replaced."""
        return books is self.books and all(
            layer.history.keys is keys and layer.text is text
            for layer, keys, text in zip(state.layers, self.keys, self.texts, strict=True)
        )

    def _array(self, kind: Any, items: list[Any]) -> int:
        array = (kind * len(items))(*items)
        self.kept.append(array)
        return ctypes.addressof(array)


def settings_of(sampling: Sampling) -> Settings:
    """Return a codebook's settings; 0 and 1 stand for no top-k and no top-p."""
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    return Settings(sampling.temperature, sampling.guidance, top_p, sampling.top_k or 0)


def by_coordinate(keys: Tensor) -> Tensor:
    """Copy (B, H, T, d) into a storage (B, H, d, T'), T' a multiple of the slots' unit."""
    missing = -keys.shape[2] % SLOT_UNIT
    stored = F.pad(keys.transpose(2, 3), (0, missing)).contiguous()
    return stored.transpose(2, 3)[:, :, : keys.shape[2]]


def keep_by_coordinate(history: KeyValueCache) -> KeyValueCache:
    """Store a cache's keys by coordinate, its values by slot, where they are not yet."""
    keys = history.keys
    if keys.ndim == 4 and not (keys.stride(2) == 1 and keys.stride(3) % SLOT_UNIT == 0):
        history.keys, history.values = by_coordinate(keys), history.values.contiguous()
    return history


def check_shapes(model: Any, rows: int, state: PriorState) -> None:
    """Raise a ``ValueError`` unless the state was made for such a model and number of rows."""
    head_width = model.width // model.heads
    for layer in state.layers:
        text: TextMemory | None = layer.text
        wanted = (rows, model.heads, layer.history.capacity, head_width)
        for tensor in (layer.history.keys, layer.history.values):
            if tuple(tensor.shape) != wanted or tensor.dtype != torch.float32:
                raise ValueError(f"keys and values must be {wanted}, got {tuple(tensor.shape)}")
        wanted = (rows, model.heads, state.text.mask.shape[-1], head_width)
        if text is None or tuple(text.keys.shape) != wanted or text.keys.dtype != torch.float32:
            raise ValueError(f"the text's keys must be {wanted}")
