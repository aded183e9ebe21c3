"""Audio files in and out, through libsndfile: whole, in part, or block by block."""

import io
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from codec.audio_tags import read_tags
from codec.ogg import on_two_pages, with_serial
from codec.resampling import resample, resample_part, resampled_length
from codec.sample_reader import SampleReader
from codec.validation import check_audio
from codec.whole_audio import open_whole
from codec.whole_file import printable, write_whole

Source = str | os.PathLike[str] | bytes | BinaryIO
Target = str | os.PathLike[str] | BinaryIO

OTHER_SUFFIXES = (
    *(".m4a", ".m4b", ".mp4", ".aac", ".wma", ".ape"),
    *(".wv", ".mpc", ".tta", ".dsf", ".webm", ".mka"),
)
"""Suffixes of audio formats that libsndfile does not read."""

STREAMED_LENGTH = 0x7F000000
"""A WAV header that promises more bytes than this was written to a pipe and knows no length."""

LOSSY_CEILING = 10 ** (-1 / 20)
"""Peak allowed into a lossy file: its decoder overshoots, and 1 dB is the usual headroom."""

WRITE_BLOCK = 1 << 16
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
FORMATS = {
    "wav": ("WAV", ("PCM_24", "PCM_16", "FLOAT")),
    "flac": ("FLAC", ("PCM_24", "PCM_16")),
    "ogg": ("OGG", ("VORBIS",)),
    "opus": ("OGG", ("OPUS",)),
}
TAGS = (
    *("title", "artist", "album", "tracknumber", "date", "genre"),
    *("comment", "software", "license", "copyright"),
)


@dataclass(frozen=True)
class AudioClip:
    """Audio as read from a file.

    Attributes:
        audio: (C, S) float32. A lossy file may overshoot [-1, 1] a little.
        sample_rate: Hz.
        notes: what was done to the file's samples, one sentence each.
    """

    audio: Tensor
    sample_rate: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WriteReport:
    """Says what became of the audio on its way into a file.

    Attributes:
        peak: largest absolute sample before scaling.
        gain: factor that was applied to the whole file, 1 where it fitted as it was.
        sample_rate: Hz, as written.
        notes: what was done that was not asked for, one sentence each.
    """

    peak: float
    gain: float
    sample_rate: int
    notes: tuple[str, ...] = ()


def read_audio(
    source: Source,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> AudioClip:
    """Read WAV, FLAC, Ogg Vorbis, Opus, MP3 or what else libsndfile knows, whole or in part.

    Args:
        source: a path, the bytes of a file, or a binary file that can seek.
        sample_rate: wanted rate (Hz); None keeps the file's own.
        channels: 1 or 2 wanted channels; None keeps the file's own.
        start_s: where to start (s).
        duration_s: seconds to read at most; None reads to the end. A part of a lossy file is
            sample-exact, at the price of decoding all that lies before it.

    Returns:
        The clip. Resampling and mixing are noted in it and said in a warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, truncated, not audio, holds NaN or infinite samples, has
            no sample at ``start_s``, or its channels cannot be converted.
    """
    with _open_audio(source) as reader:
        rate, total = _rate_and_length(reader, sample_rate)
        first = round(start_s * rate)
        last = total if duration_s is None else min(total, first + round(duration_s * rate))
        if not 0 <= first < last:
            raise ValueError(
                f"{_name(source)}: start_s and duration_s must select samples of its "
                f"{total / rate:.3f} s, got start_s={start_s} and duration_s={duration_s}"
            )
        notes = _conversions(reader, rate, channels)
        rates = reader.file.samplerate, rate
        audio = resample_part(reader.read, reader.file.frames, first, last, rates)
    return AudioClip(_mix(audio, channels), rate, notes)


@dataclass(frozen=True)
class AudioFacts:
    """What is known of an audio file before its samples are read.

    Attributes:
        duration_s: its length (s).
        sample_rate: Hz.
        tags: title, artist and so on that are not empty (see ``TAGS``).
        notes: what was put right in it, one sentence each.
    """

    duration_s: float
    sample_rate: int
    tags: dict[str, str]
    notes: tuple[str, ...]


def describe_audio(source: Source) -> AudioFacts:
    """Read an audio file's length, rate and tags.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_audio`.
    """
    with _open_audio(source) as reader:
        file = reader.file
        tags = {key: value for key, value in file.copy_metadata().items() if value}
        return AudioFacts(file.frames / file.samplerate, file.samplerate, tags, reader.notes)


def read_blocks(
    source: Source,
    block_s: float,
    *,
    sample_rate: int | None = None,
    channels: int | None = None,
) -> Iterator[AudioClip]:
    """Read a file of any length block by block; the blocks joined equal the whole file read.

    Args:
        source, sample_rate, channels: as for :func:`read_audio`.
        block_s: length of a block (s); the last one is as long as what is left.

    Yields:
        One clip per block.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_audio`, when the block concerned is read.
    """
    with _open_audio(source) as reader:
        rate, total = _rate_and_length(reader, sample_rate)
        block = round(block_s * rate)
        if block < 1:
            raise ValueError(f"block_s must hold at least one sample at {rate} Hz, got {block_s}")
        notes = _conversions(reader, rate, channels)
        rates = reader.file.samplerate, rate
        for first in range(0, total, block):
            last = min(total, first + block)
            audio = resample_part(reader.read, reader.file.frames, first, last, rates)
            if audio.shape[1] > 0:  # an MP3 may end a little before its header says
                yield AudioClip(_mix(audio, channels), rate, notes)


def write_audio(
    target: Target,
    audio: Tensor,
    sample_rate: int,
    *,
    format: str | None = None,
    subtype: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> WriteReport:
    """Write a WAV, FLAC, Ogg Vorbis or Opus file in which no sample is clipped.

    Audio whose peak does not fit is scaled down as a whole, which the report and a warning say:
    above full scale, or above -1 dB for Vorbis and Opus, whose decoders overshoot. Opus takes 8,
    12, 16, 24 or 48 kHz; other rates become 48 kHz, and that is said too. The file appears under
    its name only when it is whole. Equal audio and tags give equal bytes, except in a WAV of
    "FLOAT", whose header holds the time.

    Args:
        target: a path, or a binary file open for writing.
        audio: (C, S) float32.
        sample_rate: Hz.
        format: "wav", "flac", "ogg" or "opus"; None takes it from the path's extension.
        subtype: "PCM_24" (the default), "PCM_16" or, in WAV, "FLOAT".
        tags: title, artist, album, comment, license and so on; see ``TAGS``.

    Raises:
        ValueError: unknown format, subtype or tag, or audio that is not (C, S), empty or holds
            NaN or infinite samples.
        OSError: the file cannot be written; nothing is left behind.
    """
    container, subtype = _choose_format(target, format, subtype)
    check_tags(tags or {})
    if audio.dim() != 2 or audio.shape[0] == 0:
        raise ValueError(f"audio must be (C, S), got shape {tuple(audio.shape)}")
    check_audio(audio[None], audio.shape[0])
    audio = audio.detach().cpu().float()
    notes = []
    if subtype == "OPUS" and sample_rate not in OPUS_RATES:
        audio = resample(audio, sample_rate, 48000)
        notes.append(f"resampled {sample_rate} -> 48000 Hz, as Opus requires")
        sample_rate = 48000
    peak, gain = float(audio.abs().max()), _fitting_gain(audio, subtype)
    if gain < 1:
        notes.append(
            f"peak {peak:.4f} does not fit into {subtype}: everything is scaled by {gain:.4f}"
        )
    data = _encode((audio.double() * gain).float(), sample_rate, container, subtype, tags or {})
    kept = read_tags(io.BytesIO(data)) if tags else {}
    lost = [tag for tag in tags or {} if not kept.get(tag)]
    notes += [f"{container} has no place for the tag {tag!r}" for tag in lost]
    for note in notes:
        warnings.warn(note, stacklevel=2)
    if isinstance(target, str | os.PathLike):
        write_whole(Path(target), data)
    else:
        target.write(data)
    return WriteReport(peak, gain, sample_rate, tuple(notes))


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise ValueError for a tag that no format can hold."""
    for tag in tags:
        if tag not in TAGS:
            raise ValueError(f"tags must be among {', '.join(TAGS)}, got {tag!r}")


def _name(source: Source | Target) -> str:
    if isinstance(source, bytes):
        return f"audio of {len(source)} bytes"
    if isinstance(source, str | os.PathLike):
        return printable(source)
    return str(getattr(source, "name", "audio stream"))


@contextmanager
def _open_audio(source: Source) -> Iterator[SampleReader]:
    """Open a file that holds audio to its end; libsndfile's errors become ours."""
    name = _name(source)
    handle = io.BytesIO(source) if isinstance(source, bytes) else source
    if isinstance(handle, str | os.PathLike):
        with open(handle, "rb") as stream:  # soundfile names no reason; this raises the right one
            empty = not stream.read(1)
    else:
        empty = handle.seek(0, os.SEEK_END) == 0
        handle.seek(0)
    if empty:
        raise ValueError(f"{name} is empty")
    if Path(name).suffix.lower() == ".raw":
        raise ValueError(f"{name} is headerless (raw) audio, which is not read")
    if Path(name).suffix.lower() in OTHER_SUFFIXES:
        raise ValueError(f"{name} is of a format that is not read: convert it to FLAC or WAV")
    try:
        reader = open_whole(handle, name)
        with reader.file:
            _check_whole(reader)
            yield reader
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip() or "a frame cannot be decoded"
        raise ValueError(f"{name} is not audio or is damaged: {reason}") from error


def _check_whole(reader: SampleReader) -> None:
    """Raise for a file without samples, and for a WAV or Ogg file that was cut short."""
    name, info = reader.name, reader.file.extra_info
    promise = re.search(r"^\s*data\s*: (\d+) \(should be (\d+)\)", info, re.MULTILINE)
    if promise and int(promise[2]) < int(promise[1]) < STREAMED_LENGTH:
        raise ValueError(
            f"{name} is truncated: it promises {promise[1]} bytes of audio and holds {promise[2]}"
        )
    if "Last page lacks an end-of-stream bit" in info:
        raise ValueError(f"{name} is truncated: its last Ogg page is missing")
    if reader.file.frames == 0:
        raise ValueError(f"{name} holds no samples")


def _rate_and_length(reader: SampleReader, sample_rate: int | None) -> tuple[int, int]:
    """Return the rate to deliver (Hz) and the file's length at that rate (samples)."""
    file = reader.file
    rate = file.samplerate if sample_rate is None else sample_rate
    if rate < 1:
        raise ValueError(f"sample_rate must be positive, got {rate}")
    return rate, resampled_length(file.frames, file.samplerate, rate)


def _conversions(reader: SampleReader, sample_rate: int, channels: int | None) -> tuple[str, ...]:
    """Say, in a warning too, what reading at this rate and with these channels will do."""
    notes, file = [*reader.notes], reader.file
    if sample_rate != file.samplerate:
        notes.append(f"resampled {file.samplerate} -> {sample_rate} Hz")
    if channels is not None and channels != file.channels:
        if {channels, file.channels} != {1, 2}:
            raise ValueError(
                f"{reader.name}: only mono and stereo are converted, "
                f"got {file.channels} channels and channels={channels}"
            )
        notes.append("mixed stereo to mono" if channels == 1 else "doubled mono to stereo")
    for note in notes[len(reader.notes) :]:
        warnings.warn(note, stacklevel=3)
    return tuple(notes)


def _mix(audio: Tensor, channels: int | None) -> Tensor:
    """Average or repeat channels: (C, S) to (channels, S)."""
    if channels is None or channels == audio.shape[0]:
        return audio
    return audio.mean(0, keepdim=True) if channels == 1 else audio.repeat(2, 1)


def _choose_format(target: Target, format: str | None, subtype: str | None) -> tuple[str, str]:
    """Return libsndfile's names of the container and of the encoding."""
    name = _name(target)
    extension = (format or Path(name).suffix.removeprefix(".")).lower()
    if extension not in FORMATS:
        raise ValueError(f"{name}: the format must be one of {list(FORMATS)}, got {extension!r}")
    container, subtypes = FORMATS[extension]
    chosen = subtypes[0] if subtype is None else subtype.upper()
    if chosen not in subtypes:
        raise ValueError(f"{name}: subtype must be one of {list(subtypes)}, got {subtype!r}")
    return container, chosen


def _fitting_gain(audio: Tensor, subtype: str) -> float:
    """Return the largest gain up to 1 at which no sample is clipped."""
    highest, lowest = 1.0, -1.0
    if subtype in ("VORBIS", "OPUS"):
        highest, lowest = LOSSY_CEILING, -LOSSY_CEILING
    elif subtype.startswith("PCM"):
        highest = 1 - 1 / _full_scale(subtype)
    high, low = float(audio.max()), float(audio.min())
    return min(highest / max(high, highest), lowest / min(low, lowest))


def _full_scale(subtype: str) -> int:
    return 1 << (int(subtype.removeprefix("PCM_")) - 1)


def _encode(
    audio: Tensor, sample_rate: int, container: str, subtype: str, tags: Mapping[str, str]
) -> bytes:
    """Make the bytes of the file; in memory, because libsndfile hides a full disk."""
    samples = _to_integers(audio, subtype) if subtype.startswith("PCM") else audio
    frames = np.ascontiguousarray(samples.T.numpy())  # (S, C)
    stream = io.BytesIO()
    with soundfile.SoundFile(
        stream, "w", sample_rate, audio.shape[0], subtype, format=container
    ) as file:
        for tag, text in tags.items():
            setattr(file, tag, text)
        for first in range(0, len(frames), WRITE_BLOCK):  # libvorbis overflows on long arrays
            file.write(frames[first : first + WRITE_BLOCK])
    data = stream.getvalue()
    if subtype == "VORBIS":
        data = on_two_pages(data)
    return with_serial(data, zlib.crc32(frames.tobytes())) if container == "OGG" else data


def _to_integers(audio: Tensor, subtype: str) -> Tensor:
    """Convert to what libsndfile reads back; its own conversion scales by one step less."""
    scaled = (audio.double() * _full_scale(subtype)).round()
    if subtype == "PCM_16":
        return scaled.to(torch.int16)
    return scaled.to(torch.int32) << 8  # libsndfile drops the low byte
