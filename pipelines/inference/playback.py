"""Audio out of the process while it is made: to a player or into a pipe."""

import os
import queue
import shutil
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import BinaryIO

import torch
from torch import Tensor

from codec.audio_file import STREAMED_LENGTH

STORED_PIECES = 64
"""Pieces that wait for the player at most: about 25 s, so that a slow moment leaves no gap."""

PLAYERS = {
    "paplay": "paplay --raw --format=s16le --rate={rate} --channels={channels}",
    "aplay": "aplay -q -t raw -f S16_LE -r {rate} -c {channels} -",
    "play": "play -q -t raw -e signed -b 16 -r {rate} -c {channels} -",
    "ffplay": "ffplay -loglevel error -nodisp -autoexit -infbuf -i pipe:0",
}
"""Commands that play 16-bit samples from standard input; ffplay gets a WAV."""


class PipeWriter:
    """Writes samples to a binary stream, interleaved.

    Args:
        stream: open for writing.
        form: "wav" (16-bit with a header), "s16" (16-bit, no header) or "f32" (float, no header);
            what does not fit into 16 bits is clipped.
        sample_rate: Hz.
        channels: C.
        num_samples: of the whole piece, for the header; None where it is not known.
    """

    def __init__(
        self,
        stream: BinaryIO,
        form: str,
        sample_rate: int,
        channels: int,
        num_samples: int | None = None,
    ) -> None:
        self.stream = stream
        self.form = form
        if form == "wav":
            stream.write(wav_header(sample_rate, channels, num_samples))
            stream.flush()

    def write(self, piece: Tensor) -> None:
        """Write the next (C, s) float32 samples, and do not wait for more."""
        piece = piece.detach().cpu().float().t().contiguous()  # (s, C)
        if self.form != "f32":
            piece = (piece * 32768).round().clamp(-32768, 32767).to(torch.int16)
        self.stream.write(piece.numpy().tobytes())
        self.stream.flush()


class Player:
    """A program that plays what is written to it, fed from a thread so that nothing waits for it.

    Use it in a ``with`` statement, which waits until the last sample is played; an exception
    inside it, such as Ctrl-C, stops the player at once.

    Raises:
        FileNotFoundError: no known player is installed.
    """

    def __init__(self, sample_rate: int, channels: int, num_samples: int | None = None) -> None:
        self.name = find_player()
        command = PLAYERS[self.name].format(rate=sample_rate, channels=channels)
        self.process = subprocess.Popen(
            command.split(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        form = "wav" if self.name == "ffplay" else "s16"
        self.form = (form, sample_rate, channels, num_samples)
        self.waiting: queue.Queue[Tensor | None] = queue.Queue(STORED_PIECES)
        self.failed = threading.Event()
        self.thread = threading.Thread(target=self._feed, daemon=True)
        self.thread.start()

    def write(self, piece: Tensor) -> None:
        """Take the next (C, s) float32 samples.

        Raises:
            OSError: the player has stopped.
        """
        while True:
            if self.failed.is_set():
                raise OSError(self._complaint())
            try:
                return self.waiting.put(piece, timeout=0.2)
            except queue.Full:
                continue

    def __enter__(self) -> "Player":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self.failed.set()
            self.process.kill()
            self.process.wait()
            self.thread.join(timeout=5)

    def _finish(self) -> None:
        """Wait until all is played."""
        while self.thread.is_alive():  # in short waits, so that Ctrl-C gets through
            try:
                self.waiting.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        while self.thread.is_alive():
            self.thread.join(timeout=0.2)
        if self.failed.is_set() or self.process.wait() != 0:
            raise OSError(self._complaint())

    def _feed(self) -> None:
        """Hand over what waits, as fast as the player takes it; the thread runs this."""
        assert self.process.stdin is not None
        try:
            with self.process.stdin as stdin:
                writer = PipeWriter(stdin, *self.form)  # type: ignore[arg-type]
                while (piece := self._next()) is not None:
                    writer.write(piece)
        except OSError:  # the player is gone; write() or _finish() says why
            self.failed.set()

    def _next(self) -> Tensor | None:
        while not self.failed.is_set():
            try:
                return self.waiting.get(timeout=0.2)
            except queue.Empty:
                continue
        return None

    def _complaint(self) -> str:
        """Return what the player said before it stopped."""
        self.process.kill()
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode(errors="replace").split("\n")
        lines = [line.strip() for line in said if line.strip()]
        return f"{self.name} stopped: {lines[-1]}" if lines else f"{self.name} stopped"


def find_player() -> str:
    """Return the first known player that is installed.

    Raises:
        FileNotFoundError: there is none.
    """
    for name in PLAYERS:
        if shutil.which(name):
            return name
    raise FileNotFoundError(
        f"no player is installed: --play needs one of {', '.join(PLAYERS)} (or use --stdout)"
    )


def wav_header(sample_rate: int, channels: int, num_samples: int | None) -> bytes:
    """Make the 44 bytes before 16-bit samples; an unknown length is written as pipes do."""
    size = STREAMED_LENGTH if num_samples is None else 2 * channels * num_samples
    size = min(size, STREAMED_LENGTH)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, channels),
        *(sample_rate, 2 * channels * sample_rate, 2 * channels, 16, b"data", size),
    )


def open_stdout() -> BinaryIO:
    """Open standard output for samples.

    Raises:
        ValueError: it is a terminal, which could not show them.
    """
    if sys.stdout.isatty():
        raise ValueError("--stdout writes samples, not text: send them to a file or a program")
    return sys.stdout.buffer


def abandon_stdout() -> None:
    """Stop the interpreter from complaining, when it ends, that nobody reads its output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
