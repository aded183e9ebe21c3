"""Keeps takes in a folder: ``ID.wav`` in 32-bit floats, ``ID.safetensors`` with the tokens."""

import errno
import io
import json
import os
import re
import secrets
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codec.audio_file import read_audio, write_audio
from codec.protocols import Codec
from codec.whole_file import sync_and_rename
from pipelines.data.scores.lead_sheet import midi_sheet
from pipelines.evaluation.loudness import integrated_loudness
from pipelines.inference.plan_schema import read_plan
from pipelines.inference.playback import PipeWriter
from pipelines.inference.token_file import TokenFile, save_song_tokens, save_tokens
from pipelines.music_output import MusicOutput
from pipelines.serving.refusals import StorageError

ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
SPARE_BYTES = 64 << 20  # free space below which nothing is put on the shelf
SHOWN = ("prompt", "seed", "decoder_seed", "sample_rate", "num_samples", "settings")


class TakeRecorder:
    """Writes a take while it is made; it appears on the shelf when it is whole."""

    def __init__(self, shelf: "Shelf", id: str, sample_rate: int) -> None:
        self.final = shelf.path / f"{id}.wav"
        self.partial = shelf.path / f".{id}.partial.wav"
        self.sample_rate = sample_rate
        self.file: soundfile.SoundFile | None = None
        self.num_samples = 0

    def write(self, piece: Tensor) -> None:
        """Append (C, s) float32 samples.

        Raises:
            OSError: the disk is full, or the folder is gone or read-only.
        """
        try:
            if self.file is None:
                self.partial.touch()  # libsndfile hides why a file cannot be made
                form = (self.sample_rate, piece.shape[0], "FLOAT", None, "WAV")
                self.file = soundfile.SoundFile(self.partial, "w", *form)
            self.file.write(np.ascontiguousarray(piece.cpu().T.numpy()))
        except soundfile.LibsndfileError as error:
            raise OSError(errno.ENOSPC, "the disk of the takes is full") from error
        self.num_samples += piece.shape[-1]

    def finish(self, song: MusicOutput, codec: Codec) -> None:
        """Put the take on the shelf: sound first, since tokens are what is listed.

        Raises:
            OSError: the disk is full, or the folder is gone.
        """
        assert self.file is not None
        self.file.close()
        if soundfile.info(self.partial).frames != self.num_samples:  # libsndfile hides a full disk
            raise OSError(errno.ENOSPC, "the disk of the takes is full")
        sync_and_rename(self.partial, self.final)
        save_song_tokens(self.final.with_suffix(".safetensors"), song, codec)

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self.file is not None:
            self.file.close()
        self.file, self.num_samples = None, 0
        self.partial.unlink(missing_ok=True)


class Shelf:
    """Reads, lists and converts the takes of a folder, which is made if missing.

    Raises:
        OSError: it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob(".*.partial.*"):  # a killed server's
            left.unlink()

    def check_disk(self) -> None:
        """Raise a ``StorageError`` where the folder cannot be written to, or is nearly full."""
        try:
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise StorageError(f"the folder of takes cannot be used: {error}") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise StorageError("the folder of takes cannot be written to")
        if free < SPARE_BYTES:
            raise StorageError(f"the disk of the takes is full: {free >> 20} MB are free")

    def put(self, id: str, decoded: Path, tokens: TokenFile) -> None:
        """Put a file that was decoded and encoded on the shelf."""
        sync_and_rename(decoded, self.path / f"{id}.wav")
        save_tokens(self.path / f"{id}.safetensors", tokens)

    def file(self, id: str, suffix: str) -> Path:
        """Find a take's file.

        Raises:
            FileNotFoundError: there is no such take.
        """
        path = self.path / f"{id}.{suffix}"
        if not ID.fullmatch(id) or not path.is_file():
            raise FileNotFoundError(f"there is no take {id[:64]!r}")
        return path

    def describe(self, id: str) -> dict[str, Any]:
        """Say what a take was made from, and how loud it is (LUFS; None for silence)."""
        facts, path = self.facts(id), self.file(id, "wav")
        return facts | {"loudness_lufs": loudness(path, path.stat().st_mtime_ns)}

    def list(self, limit: int) -> list[dict[str, Any]]:
        """List the takes, newest first."""
        found = [path for path in self.path.glob("*.safetensors") if ID.fullmatch(path.stem)]
        found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        takes = []
        for path in found[:limit]:
            try:
                takes.append(self.facts(path.stem))
            except (ValueError, FileNotFoundError):  # another program's file, or deleted meanwhile
                continue
        return takes

    def delete(self, id: str) -> None:
        """Remove a take's files."""
        self.file(id, "safetensors").unlink()
        (self.path / f"{id}.wav").unlink(missing_ok=True)

    def lead_sheet(self, id: str) -> bytes:
        """Make the MIDI file of a take's plan: chords, tune, tempo and sections.

        Raises:
            FileNotFoundError: there is no such take, or it has no plan.
        """
        facts = self.facts(id)
        made = facts["settings"].get("plan")
        if not made:
            raise FileNotFoundError("the take has no plan")
        plan = read_plan(made).completed(None, 0.0)
        return midi_sheet(plan, facts["duration_s"] * plan.tempo_bpm / 60)

    def facts(self, id: str) -> dict[str, Any]:
        """Say what a take was made from."""
        path = self.file(id, "safetensors")
        self.file(id, "wav")
        facts = read_facts(path, path.stat().st_mtime_ns)
        created = path.stat().st_mtime
        duration_s = facts["num_samples"] / facts["sample_rate"]
        return {"id": id, "created": created, "duration_s": duration_s, **facts}


@lru_cache(maxsize=4096)
def read_facts(path: Path, changed_ns: int) -> dict[str, Any]:
    """Read what a token file says besides its tokens; a changed file is read anew."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return {name: json.loads(metadata[name]) for name in SHOWN}
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path.name} is not a token file") from error


@lru_cache(maxsize=1024)
def loudness(path: Path, changed_ns: int) -> float | None:
    """Measure a file's integrated loudness (LUFS); None where it is silent or too short."""
    clip = read_audio(path)
    try:
        return integrated_loudness(clip.audio, clip.sample_rate)
    except ValueError:
        return None


def audio_bytes(audio: Tensor, sample_rate: int, format: str) -> bytes:
    """Make the bytes of a file of (C, S) float32 audio; "pcm" is bare interleaved 16-bit ones."""
    if format == "pcm":
        return pcm_bytes(audio, "s16")
    stream = io.BytesIO()
    write_audio(stream, audio, sample_rate, format=format)
    return stream.getvalue()


def pcm_bytes(piece: Tensor, encoding: str) -> bytes:
    """Interleave (C, s) float32 samples as "s16" (clipped) or "f32"."""
    stream = io.BytesIO()
    PipeWriter(stream, encoding, 0, len(piece)).write(piece)
    return stream.getvalue()


def new_id(prompt: str) -> str:
    """Make a name that a person recognizes: the prompt's first words and five random letters."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "take"
    return f"{words}-{secrets.token_hex(3)}"
