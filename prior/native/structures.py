"""The structures of ``frame.c``, field by field."""

from ctypes import Structure, c_float, c_int32, c_void_p
from typing import Any, ClassVar


class Matrix(Structure):
    """A weight in tiles."""

    _fields_: ClassVar[Any] = [
        ("weights", c_void_p),
        ("outputs", c_int32),
        ("inputs", c_int32),
        ("is_half", c_int32),
    ]


class BlockPointers(Structure):
    """A layer of the backbone or of the depth head."""

    _fields_: ClassVar[Any] = [
        *((name, c_void_p) for name in ("attention_gain", "head_gain", "text_gain")),
        ("feed_forward_gain", c_void_p),
        *((name, Matrix) for name in ("qkv", "out", "text_query", "text_out", "gate_up", "down")),
    ]


class Model(Structure):
    """A prior."""

    _fields_: ClassVar[Any] = [
        *((name, c_int32) for name in ("width", "heads", "layers", "books", "size")),
        *((name, c_int32) for name in ("depth_width", "depth_heads", "depth_layers")),
        *((name, c_void_p) for name in ("embedding", "gain", "depth_gain", "depth_embeddings")),
        *((name, c_void_p) for name in ("blocks", "depth_blocks", "heads_of_books")),
        ("depth_frame", Matrix),
    ]


class Layer(Structure):
    """What one layer of the backbone remembers."""

    _fields_: ClassVar[Any] = [
        (name, c_void_p) for name in ("keys", "values", "text_keys", "text_values")
    ]


class Settings(Structure):
    """How a codebook is sampled."""

    _fields_: ClassVar[Any] = [
        *((name, c_float) for name in ("temperature", "guidance", "top_p")),
        ("top_k", c_int32),
    ]


class StateArguments(Structure):
    """What stays from frame to frame."""

    _fields_: ClassVar[Any] = [
        *((name, c_int32) for name in ("pieces", "rows", "slots", "slot_stride")),
        *((name, c_int32) for name in ("tokens", "token_stride")),
        *((name, c_void_p) for name in ("layers", "sampling", "text_mask", "workspace")),
    ]


class FrameArguments(Structure):
    """What changes from frame to frame."""

    _fields_: ClassVar[Any] = [
        *((name, c_int32) for name in ("slot", "seen", "may_end", "added_stride")),
        *((name, c_void_p) for name in ("cosines", "sines", "added", "uniform")),
        *((name, c_void_p) for name in ("last", "codes", "ended")),
    ]
