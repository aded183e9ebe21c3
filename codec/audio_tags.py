"""Title, artist, license and so on, as audio files hold them."""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import soundfile

RIFF_INFO = {
    b"INAM": "title",
    b"IART": "artist",
    b"IPRD": "album",
    b"ITRK": "tracknumber",
    b"ICRD": "date",
    b"IGNR": "genre",
    b"ICMT": "comment",
    b"ISFT": "software",
    b"ICOP": "copyright",
}


def read_tags(stream: BinaryIO) -> dict[str, str]:
    """Read the tags of a WAV, FLAC, Vorbis or Opus file that are not empty, named as in TAGS.

    libsndfile appends its own name to the software, and stops at a text of 2 kB in a WAV file that
    it wrote itself: there the texts are read here.

    Raises:
        soundfile.LibsndfileError: the file is not audio.
    """
    stream.seek(0)
    with soundfile.SoundFile(stream) as file:
        tags, is_wav = file.copy_metadata(), file.format == "WAV"
    return tags | dict(_info_texts(_info_chunk(stream))) if is_wav else tags


def _info_chunk(stream: BinaryIO) -> bytes:
    """Return the payload of a RIFF file's chunk of texts, empty if it has none."""
    size, position = stream.seek(0, os.SEEK_END), 12
    while position + 12 <= size:
        stream.seek(position)
        name, length, kind = struct.unpack("<4sI4s", stream.read(12))
        if (name, kind) == (b"LIST", b"INFO"):
            return stream.read(length - 4)
        position += 8 + length + length % 2
    return b""


def _info_texts(chunk: bytes) -> Iterator[tuple[str, str]]:
    position = 0
    while position + 8 <= len(chunk):
        name, length = struct.unpack_from("<4sI", chunk, position)
        text = chunk[position + 8 : position + 8 + length].rstrip(b"\0")
        if name in RIFF_INFO and text:
            yield RIFF_INFO[name], text.decode(errors="replace")
        position += 8 + length + length % 2
