"""Sample-exact reading of parts of an audio file, without trusting the decoders' seeking."""

import os
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

MP3_SLACK = 2 * 1152
"""Samples by which an MP3 may fall short of its header: encoders count their padding variously."""

SKIP_BLOCK = 1 << 20
LOSSY_CONTAINERS = ("OGG", "MP3")


class ForwardSoundFile(soundfile.SoundFile):
    """A ``SoundFile`` that does not seek to where it already is after every read.

    soundfile does so in each seekable file, which makes libsndfile's MP3 decoder forget its bit
    reservoir and spoil the next tenth of a second.
    """

    def seekable(self) -> bool:
        return False


class SampleReader:
    """Reads ascending, possibly overlapping parts of a file; each sample is decoded once.

    WAV, FLAC and other exact formats are sought in. Lossy ones are decoded from the start and the
    samples before a part dropped: libsndfile's Vorbis seeking misses by up to a block
    (libsndfile issue 885) and its MP3 seeking starts with wrong samples.

    Args:
        source: a path, or a binary file that can seek.
        name: what errors call it.

    Attributes:
        notes: what was put right in the file, one sentence each.

    Raises:
        soundfile.LibsndfileError: the file is not audio.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO, name: str):
        readable: Any = source
        if isinstance(source, str | os.PathLike) and os.name != "nt":
            readable = os.fsencode(source)  # a name need not be UTF-8
        self.file = ForwardSoundFile(readable)
        self.name = name
        self.notes: tuple[str, ...] = ()
        self.held = torch.zeros(self.file.channels, 0)
        self.held_from = 0

    def read(self, first: int, last: int) -> Tensor:
        """Read the samples ``[first, last)``, where ``first`` is not below that of the call before.

        Returns:
            (C, last - first) float32; a few samples fewer at the end of an MP3 whose header
            promises too many.

        Raises:
            ValueError: the file ends before ``last`` or holds NaN or infinite samples.
        """
        assert self.held_from <= first < last <= self.file.frames
        end = self.held_from + self.held.shape[1]
        if end < first:
            self._skip(end, first)
            self.held, self.held_from, end = self.held[:, :0], first, first
        if end < last:
            self.held = torch.cat([self.held, self._decode(end, last)], dim=1)
        self.held = self.held[:, first - self.held_from :]
        self.held_from = first
        return self.held[:, : last - first]

    def _skip(self, first: int, last: int) -> None:
        if self.file.format not in LOSSY_CONTAINERS:
            self.file.seek(last)
            return
        for start in range(first, last, SKIP_BLOCK):
            self._decode(start, min(last, start + SKIP_BLOCK))

    def _decode(self, first: int, last: int) -> Tensor:
        samples = self.file.read(last - first, dtype="float32", always_2d=True)  # (S, C)
        missing = last - first - len(samples)
        if missing > (MP3_SLACK if self.file.format == "MP3" else 0):
            raise ValueError(
                f"{self.name} is truncated: it promises {self.file.frames} samples "
                f"and ends at {first + len(samples)}"
            )
        if not np.isfinite(samples).all():
            raise ValueError(f"{self.name} holds NaN or infinite samples")
        return torch.from_numpy(np.ascontiguousarray(samples.T))  # (C, S)
