"""Cut a track, read block by block, into clips in a staged file, and record what was found."""

import base64
import errno
import hashlib
import io
import json
import lzma
import math
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from codec.audio_file import describe_audio, read_blocks, write_audio
from codec.whole_file import whole_file, write_json
from pipelines.data.caption_length import shorten_caption
from pipelines.data.clip_levels import SAMPLE_RATE, analysis, analyze, pad_frames
from pipelines.data.prepared import SCHEMA, Clip
from pipelines.data.recordings.duplicates import NUM_BANDS, band_levels, fingerprint
from pipelines.data.recordings.prepare_config import PrepareConfig
from pipelines.data.recordings.track import Track
from pipelines.data.recordings.track_metadata import writable

CHANNELS = 2
CEILING = 1 - 2**-15  # the largest sample that 16-bit FLAC holds
UNREADABLE = (
    *(ValueError, RuntimeError, OSError, EOFError, ArithmeticError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, KeyError, NotImplementedError, TypeError),
)
"""What reading a bad file raises."""
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors that are no fault of the file
NUMBERED_NAME = re.compile(r"^(track|music|song|untitled|theme)?[ _-]*\d+$", re.IGNORECASE)


@dataclass
class TrackRecord:
    """Hold what is known about a track after it was cut."""

    name: str
    source: str = ""
    license: str = ""
    attribution: str = ""
    split: str = ""  # "train", "validation", or "" where it is not yet drawn
    # why it gave no clip: "" or "missing", "unreadable", "too short", "silent", "left out" (by its
    # metadata)
    reason: str = ""
    detail: str = ""  # the reason in words
    content: str = ""  # BLAKE2b of the file's bytes
    duration_s: float = 0.0
    sample_rate: int = 0  # Hz, of the file
    num_clips: int = 0  # clips in the staged file
    silent_clips: int = 0  # clips dropped for silence
    scaled_clips: int = 0  # clips with samples beyond full scale, scaled down as a whole
    # RMS of every kept clip (dB of full scale)
    loudness_db: list[float] = field(default_factory=list)
    words: str = ""  # fingerprint, little-endian uint32 in base64
    # what was put right in the file or its metadata, one sentence each
    notes: list[str] = field(default_factory=list)
    captioned: bool = False  # whether its metadata describes it

    @property
    def fingerprint(self) -> np.ndarray:
        """Return the acoustic fingerprint, (N,) uint32."""
        return np.frombuffer(base64.b64decode(self.words), dtype="<u4")


def cut_track(track: Track, config: PrepareConfig, staged: Path) -> TrackRecord:
    """Cut a track into clips in ``staged``.arrow, and write its record to ``staged``.json last.

    A track that cannot be read is no error: its record says why. Nothing is done again when the
    record is there already.
    """
    record_path = staged.with_suffix(".json")
    if record_path.is_file():
        return TrackRecord(**json.loads(record_path.read_text()))
    record = TrackRecord(track.name, config.source or track.source, split=track.split)
    record.notes = list(track.notes)
    record.captioned = bool(track.metadata.get("captions"))
    try:
        opened = track.open()
        record.content = hash_content(opened)
        tags = read_tags(opened, record)
        if track.fault:
            record.reason, record.detail = "left out", track.fault
        elif record.duration_s < config.min_track_s:
            record.reason = "too short"
            record.detail = f"{record.duration_s:.2f} s of at least {config.min_track_s:g} s"
        else:
            facts = clip_facts(track, tags, config)
            record.source, record.license = facts["source"], facts["license"]
            record.attribution = facts["attribution"]
            blocks = read_mix([opened, *track.stems], config.clip_s)
            stage_clips(blocks, facts, config, record, staged.with_suffix(".arrow"))
    except FileNotFoundError as error:
        record.reason, record.detail = "missing", str(error)
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise
        record.reason, record.detail = "unreadable", str(error) or type(error).__name__
    if not record.reason and record.num_clips == 0:
        record.reason = "silent"
        record.detail = f"no clip reaches {config.silence_db:g} dB"
    write_json(record_path, asdict(record))
    return record


def clip_facts(track: Track, tags: dict[str, str], config: PrepareConfig) -> dict[str, Any]:
    """Collect the fields that all clips of a track share.

    Metadata given with the track come first, then the options, then the file's tags.
    """
    given = track.metadata
    artist = given.get("artist") or tags.get("artist", "")
    return {
        "track": track.name,
        "captions": given.get("captions") or [*map(shorten_caption, compose_captions(track, tags))],
        "labels": json.dumps(track.labels, sort_keys=True, ensure_ascii=False),
        "source": given.get("source") or config.source or track.source,
        "license": given.get("license") or config.license or tags.get("license", ""),
        "attribution": given.get("attribution") or config.attribution or artist,
    }


def compose_captions(track: Track, tags: dict[str, str]) -> list[str]:
    """Caption a track that came without: its title and genre, and its genre alone.

    The title is the metadata's, the tag's or the file's name (numbers are no title); with neither
    title nor genre the folder's name has to do.
    """
    genre = (track.metadata.get("genre") or tags.get("genre", "")).strip().lower()
    title = (track.metadata.get("title") or tags.get("title", "")).strip()
    title = title or title_of(track.name)
    if title and genre and title.lower() != genre:
        return [f"{title}, {genre}", genre]
    folder = Path(track.name).parent.name.replace("_", " ").replace("-", " ").strip()
    caption = genre or title or folder
    return [caption] if caption else []


def title_of(name: str) -> str:
    """Make a readable title from a file name; "" for names that are only numbers."""
    stem = Path(name).stem
    if NUMBERED_NAME.match(stem):
        return ""
    stem = re.sub(r"^\d+[ ._-]+", "", stem)
    return re.sub(r"[_\s]+", " ", stem).strip(" -_.")


def read_tags(opened: Path | io.BytesIO, record: TrackRecord) -> dict[str, str]:
    """Read the file's text tags, and fill in duration and sample rate.

    Raises:
        ValueError: the file is not audio.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report says what was put right
        facts = describe_audio(opened)
    record.duration_s, record.sample_rate = round(facts.duration_s, 3), facts.sample_rate
    record.notes += facts.notes
    if isinstance(opened, io.BytesIO):
        opened.seek(0)
    return {key: writable(text, []) for key, text in facts.tags.items()}


def stage_clips(
    blocks: Iterator[Tensor],
    facts: dict[str, Any],
    config: PrepareConfig,
    record: TrackRecord,
    path: Path,
) -> None:
    """Write the clips of a track to ``path``, one in memory at a time."""
    bands = []
    with (
        whole_file(path) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_stream(sink, SCHEMA) as stream,
    ):
        for index, cut in enumerate(cut_windows(blocks)):
            levels, stereo = analyze(cut.window)
            bands.append(band_levels(levels))
            power = float(cut.audio.double().square().mean())
            loudness_db = 10 * math.log10(max(power, 1e-20))  # RMS; -200 for silence
            if cut.duration_s < config.min_clip_s and index > 0:
                continue
            if loudness_db < config.silence_db:
                record.silent_clips += 1
                continue
            audio = encode_flac(cut.audio) if config.audio == "keep" else b""
            clip = Clip(
                id=f"{record.name}#{index:04d}",
                start_s=cut.start_s,
                duration_s=cut.duration_s,
                spectrogram=pad_frames(levels),
                stereo=stereo,
                is_end=cut.is_end,
                audio=audio,
                **facts,
            )
            stream.write_batch(pa.RecordBatch.from_pylist([clip.to_row()], schema=SCHEMA))
            record.num_clips += 1
            record.scaled_clips += cut.is_scaled
            record.loudness_db.append(round(loudness_db, 1))
    words = fingerprint(np.concatenate(bands) if bands else np.zeros((0, NUM_BANDS)))
    record.words = base64.b64encode(words.astype("<u4").tobytes()).decode()


@dataclass(frozen=True)
class TrackSlice:
    """Hold a piece of a track with the samples around it."""

    window: Tensor  # (C, (F - 1) * hop + n_fft) samples for ``LogMel.of_padded``
    audio: Tensor  # (C, S) the piece itself
    start_s: float  # where it starts in the track (s)
    is_end: bool  # nothing of the track follows
    is_scaled: bool  # it was scaled down because samples lay beyond full scale

    @property
    def duration_s(self) -> float:
        """Return the length (s)."""
        return self.audio.shape[-1] / SAMPLE_RATE


def cut_windows(blocks: Iterator[Tensor]) -> Iterator[TrackSlice]:
    """Add context samples, so that clips' spectrograms equal the whole track's."""
    log_mel = analysis().log_mel
    left = torch.zeros(CHANNELS, log_mel.padding)
    start = 0
    for block, following in pairwise(chain(blocks, [None])):
        assert block is not None
        num_samples = block.shape[-1]
        num_frames = -(-num_samples // log_mel.hop_length)
        width = (num_frames - 1) * log_mel.hop_length + log_mel.n_fft
        pieces = [left, block] if following is None else [left, block, following]
        window = torch.cat(pieces, dim=-1)[:, :width]
        window = torch.nn.functional.pad(window, (0, width - window.shape[-1]))
        peak = float(block.abs().max())
        window = window * min(1.0, CEILING / max(peak, CEILING))
        audio = window[:, log_mel.padding : log_mel.padding + num_samples]
        yield TrackSlice(window, audio, start / SAMPLE_RATE, following is None, peak > 1.0)
        left = torch.cat([left, block], dim=-1)[:, -log_mel.padding :]
        start += num_samples


def read_stereo(opened: Path | io.BytesIO, block_s: float) -> Iterator[Tensor]:
    """Read blocks of a file as (2, S) float32 at 44.1 kHz."""
    blocks = read_blocks(opened, block_s, sample_rate=SAMPLE_RATE, channels=CHANNELS)
    while True:
        with warnings.catch_warnings():  # not around the yield: the caller's filters stay its own
            warnings.simplefilter("ignore")  # the report says which rates were converted
            clip = next(blocks, None)
        if clip is None:
            return
        yield clip.audio


def read_mix(parts: Sequence[Path | io.BytesIO], block_s: float) -> Iterator[Tensor]:
    """Add files, which must be equally long, block by block."""
    for blocks in zip_longest(*(read_stereo(part, block_s) for part in parts)):
        if len({None if block is None else block.shape[-1] for block in blocks}) > 1:
            raise ValueError("the stems of a track must be equally long")
        yield torch.stack(blocks).sum(0)


def encode_flac(audio: Tensor) -> bytes:
    """Encode (C, S) float32 at 44.1 kHz as 16-bit FLAC."""
    stream = io.BytesIO()
    write_audio(stream, audio, SAMPLE_RATE, format="flac", subtype="PCM_16")
    return stream.getvalue()


def hash_content(opened: Path | io.BytesIO) -> str:
    """Hash a file's bytes (BLAKE2b)."""
    with opened.open("rb") if isinstance(opened, Path) else nullcontext(opened) as file:
        return hashlib.file_digest(file, hashlib.blake2b).hexdigest()[:32]
