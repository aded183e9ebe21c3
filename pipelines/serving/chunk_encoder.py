"""Encodes audio, piece by piece, to the bytes of one growing file."""

import io

import numpy as np
import soundfile
import torch
from torch import Tensor

from codec.resampling import filter_radius, resample_part, resampled_length, steps
from pipelines.inference.playback import wav_header
from pipelines.serving.shelf import pcm_bytes

OPUS_RATE = 48_000
CONTENT_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg; codecs=opus",
    "pcm": "audio/pcm; rate={rate}; channels={channels}; bits=16",
}
STREAMED = ("wav", "pcm", "ogg", "opus")
"""Formats that can be sent while they are written; FLAC's header needs the end."""


class ChunkEncoder:
    """Encodes a piece of music in one of the formats of ``STREAMED``, while it grows."""

    def __init__(self, format: str, sample_rate: int, channels: int, num_samples: int) -> None:
        self.written = io.BytesIO()  # the Ogg stream, which libsndfile writes from front to back
        self.taken = 0  # bytes of it that were returned
        self.sample_rate = sample_rate  # of the pieces
        self.file: soundfile.SoundFile | None = None
        self.resampler: PieceResampler | None = None
        if format in ("wav", "pcm"):
            self.head = wav_header(sample_rate, channels, num_samples) if format == "wav" else b""
            return
        if format == "opus" and sample_rate != OPUS_RATE:
            self.resampler = PieceResampler(sample_rate, OPUS_RATE, num_samples)
            sample_rate = OPUS_RATE
        subtype = "OPUS" if format == "opus" else "VORBIS"
        self.file = soundfile.SoundFile(
            self.written, "w", sample_rate, channels, subtype, format="OGG"
        )

    def encode(self, piece: Tensor) -> bytes:
        """Turn the next (C, s) float32 samples into bytes, perhaps none."""
        if self.file is None:
            head, self.head = self.head, b""
            return head + pcm_bytes(piece, "s16")
        if self.resampler is not None:
            piece = self.resampler.push(piece)
        self.file.write(np.ascontiguousarray(piece.clamp(-1, 1).T.numpy()))
        return self._take()

    def finish(self) -> bytes:
        """Return what is left."""
        if self.file is None:
            return b""
        self.file.close()
        return self._take()

    def _take(self) -> bytes:
        data = bytes(self.written.getbuffer()[self.taken :])
        self.taken += len(data)
        return data


class PieceResampler:
    """Resamples pieces of one signal; joined they are the whole one resampled, but for rounding."""

    def __init__(self, source_rate: int, target_rate: int, num_samples: int) -> None:
        self.rates = source_rate, target_rate
        self.num_samples = num_samples
        self.start = self.done = 0  # samples of the source let go of, of the target given out
        self.kept: Tensor | None = None

    def push(self, piece: Tensor) -> Tensor:
        """Take (C, s) samples and return those of the target that follow from what is known."""
        self.kept = piece if self.kept is None else torch.cat([self.kept, piece], dim=-1)
        step_in, step_out = steps(*self.rates)
        margin = filter_radius(*self.rates) // step_in + 3  # steps that the filter reaches
        known = self.start + self.kept.shape[-1]
        if known >= self.num_samples:
            last = resampled_length(self.num_samples, *self.rates)
        else:
            last = max(self.done, (known // step_in - margin) * step_out)
        part = piece[:, :0]
        if last > self.done:
            part = resample_part(self._read, self.num_samples, self.done, last, self.rates)
        self.done = last
        first = max(self.start, (last // step_out - margin) * step_in)
        self.kept, self.start = self.kept[:, first - self.start :], first
        return part

    def _read(self, first: int, last: int) -> Tensor:
        assert self.kept is not None
        return self.kept[:, first - self.start : last - self.start]
