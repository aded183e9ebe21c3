"""Reading the tensors of a TensorFlow 1 checkpoint with numpy alone.

A checkpoint is ``.index``, a table of sorted keys (LevelDB's format) whose values are
``BundleEntryProto`` messages, and ``.data-00000-of-00001``, the tensors end to end
(tensorflow/core/util/tensor_bundle and tensorflow/core/lib/io/table_builder.cc).
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TABLE_MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
FLOAT32 = 1  # DT_FLOAT in tensorflow/core/framework/types.proto


def read_checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """All float32 tensors of the uncompressed one-shard checkpoint in a folder, by name.

    Raises:
        ValueError: the files are not such a checkpoint.
        FileNotFoundError: a file is missing.
    """
    index = (folder / ".index").read_bytes()
    data = (folder / ".data-00000-of-00001").read_bytes()
    if len(index) < FOOTER_BYTES or struct.unpack("<Q", index[-8:])[0] != TABLE_MAGIC:
        raise ValueError(f"{folder / '.index'} is not the index of a TensorFlow checkpoint")
    footer = index[-FOOTER_BYTES:]
    _, position = _handle(footer, 0)
    root, _ = _handle(footer, position)
    tensors = {}
    for _, handle in _entries(_block(index, root)):
        for key, value in _entries(_block(index, _handle(handle, 0)[0])):
            entry = _message(value)
            if key and entry.get(1) == FLOAT32:
                tensors[key.decode()] = _tensor(data, entry)
    return tensors


def _tensor(data: bytes, entry: dict[int, int | bytes]) -> np.ndarray:
    shape = [
        int(_message(bytes(dimension)).get(1, 0))
        for dimension in _repeated(bytes(entry.get(2, b"")), 2)
    ]
    offset, size = int(entry.get(4, 0)), int(entry.get(5, 0))
    if offset + size > len(data):
        raise ValueError(f"the checkpoint's data ends at {len(data)}, before {offset + size}")
    return np.frombuffer(data, "<f4", size // 4, offset).reshape(shape)


def _block(table: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    if table[offset + size] != 0:
        raise ValueError("the checkpoint's index is compressed, which is not supported")
    return table[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; each key shares a prefix with the one before it."""
    num_restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 * (num_restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _handle(buffer: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = _varint(buffer, position)
    size, position = _varint(buffer, position)
    return (offset, size), position


def _varint(buffer: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, position = _varint(message, position)
        elif kind == 2:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        elif kind == 5:
            value, position = message[position : position + 4], position + 4
        else:
            raise ValueError(f"unknown wire type {kind} in the checkpoint's index")
        yield tag >> 3, value


def _message(message: bytes) -> dict[int, int | bytes]:
    return dict(_fields(message))


def _repeated(message: bytes, number: int) -> list[int | bytes]:
    return [value for field, value in _fields(message) if field == number]
