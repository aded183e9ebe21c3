"""Open audio files whose header belies their length, and read them to their end."""

import io
import os
import warnings
from typing import Any, BinaryIO

from codec.mp3_frames import with_true_length
from codec.ogg import count_joined
from codec.sample_reader import SampleReader


def open_whole(handle: Any, name: str) -> SampleReader:
    """Open a file; where its header belies its length, open it with a true one."""
    if read_content(handle, 4) in (b"RIFF", b"RF64"):
        data, notes = with_data_size(handle)
    else:
        data, notes = None, ""
    reader = SampleReader(handle if data is None else data, name)
    if reader.file.format == "MP3":
        found = with_true_length(read_content(handle), reader.file.frames)
        if found is not None:
            notes = f"its header tells of {reader.file.frames} samples, {found[1]} are there"
            reader.file.close()
            reader = SampleReader(io.BytesIO(found[0]), name)
    elif reader.file.format == "OGG" and (joined := count_joined(read_content(handle))) > 1:
        raise ValueError(
            f"{name} holds {joined} Ogg streams one after the other, of which only the first can "
            "be read: decode it to WAV with another program"
        )
    if notes:
        warnings.warn(f"{name}: {notes}", stacklevel=5)
        reader.notes = (notes,)
    return reader


def read_content(handle: Any, size: int = -1) -> bytes:
    """Read the beginning of a file, or all of it, and go back to where libsndfile reads on."""
    if isinstance(handle, str | os.PathLike):
        with open(handle, "rb") as stream:
            return stream.read(size)
    place = handle.tell()
    handle.seek(0)
    content = handle.read(size)
    handle.seek(place)
    return content


def with_data_size(handle: Any) -> tuple[BinaryIO | None, str]:
    """Give a WAV file its size where its recorder stopped before writing it; None: it has one."""
    head = read_content(handle, 1 << 16)
    place = 12
    while place + 8 <= len(head) and head[place : place + 4] != b"data":
        size = int.from_bytes(head[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    if head[:4] != b"RIFF" or head[place : place + 8] != b"data\0\0\0\0":
        return None, ""
    data = bytearray(read_content(handle))
    if int.from_bytes(head[4:8], "little") >= len(data) - 8:  # finished, and empty
        return None, ""
    size = len(data) - place - 8
    if size <= 0:
        return None, ""
    data[place + 4 : place + 8] = min(size, 2**32 - 1).to_bytes(4, "little")
    data[4:8] = min(len(data) - 8, 2**32 - 1).to_bytes(4, "little")
    return io.BytesIO(data), f"its header tells of no sound, {size} bytes of it are there"
