"""What a job costs on this machine: short runs of its own kinds of work, and lines through them."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from codec.process_settings import cpu_threads
from codec.seeds import generator
from pipelines.rendering.agenda import Failed, Finished, Task, Written, read_codes
from pipelines.rendering.item import RenderItem
from pipelines.rendering.making import Maker, encode_texts
from pipelines.rendering.memory import MemoryMeter
from prior.generate import generate
from prior.sampling import Sampling

NUM_FRAMES = 16  # written for a measurement, after one that does not count
MAX_POSITIONS = 8192  # read before the later measurement of a batch, over all of its rows
LONGEST_PIECE_S = 30.0  # decoded for a measurement

T = TypeVar("T")

PriorKey = tuple[int, bool]
PieceKey = tuple[int | None, bool, str]


@dataclass(frozen=True)
class Line:
    """A straight line through one point (level) or two.

    Attributes:
        points: (x, y), by x.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, x: float) -> float:
        """The line's y, never below zero."""
        (x0, y0), (x1, y1) = self.points[0], self.points[-1]
        slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
        return max(0.0, y0 + slope * (x - x0))


@dataclass(frozen=True)
class PriorCost:
    """Of batches of one width.

    Attributes:
        frame_s: of a frame (s) after so many others.
        reach: frames that are looked back on at most.
        text_s: of encoding one text.
        work_bytes: beside what it remembers.
        state_bytes: what it remembers, by frames.
    """

    frame_s: Line
    reach: int
    text_s: float
    work_bytes: int
    state_bytes: Line

    def seconds(self, task: Task) -> float:
        """Of writing a batch."""
        frames = max(task.frames)
        near = min(frames, self.reach)
        writing = near * self.frame_s.at(near / 2) + (frames - near) * self.frame_s.at(self.reach)
        prompts = {item.prompt for item in task.items}
        negatives = {item.negative_prompt or "" for item in task.items}
        return writing + self.text_s * (len(prompts) + len(negatives))

    def peak_bytes(self, task: Task) -> float:
        """Beside what the process holds anyway."""
        return self.work_bytes + self.state_bytes.at(max(task.frames))


@dataclass(frozen=True)
class PieceCost:
    """Of items of one way of decoding and one format, each by token frames.

    Attributes:
        seconds: from tokens to files on the disk.
        peak_bytes: beside what the process holds anyway.
        file_bytes: audio and tokens.
    """

    seconds: Line
    peak_bytes: Line
    file_bytes: Line


@dataclass
class Costs:
    """What every kind of work in a job costs.

    Attributes:
        base_bytes: what the process holds with nothing to do.
        loading_bytes: what it held at most before, while loading.
        prior: by rows and whether guidance doubles them.
        pieces: by decoder steps, preview and format.
    """

    base_bytes: int
    loading_bytes: int = 0
    prior: dict[PriorKey, PriorCost] = field(default_factory=dict)
    pieces: dict[PieceKey, PieceCost] = field(default_factory=dict)


def prior_key(task: Task) -> PriorKey:
    """Batches that cost the same."""
    return task.num_rows, task.items[0].settings.guidance != 1


def piece_key(item: RenderItem) -> PieceKey:
    """Items whose pieces cost the same per frame."""
    settings = item.settings
    return settings.num_inference_steps, settings.preview, settings.format


class Calibration:
    """Measures the costs of a job's batches and pieces.

    Each kind of work is done by all lanes at once, so that a task costs what it does in a job whose
    lanes are in each other's way.

    Args:
        maker: that would render them.
        folder: on the disk that the files would be written to.
        lanes: tasks that the job performs at once.
    """

    def __init__(self, maker: Maker, folder: Path, lanes: int = 1) -> None:
        self.maker = maker
        self.folder = folder
        self.lanes = lanes
        self.meter = MemoryMeter(maker.pipeline.device)
        self.codes: np.ndarray | None = None  # (K, NUM_FRAMES) that the prior wrote

    def measure(self, batches: Iterable[Task], pieces: Iterable[tuple[RenderItem, int]]) -> Costs:
        """Run every kind of work for a moment.

        Args:
            batches: whose tokens are to be written.
            pieces: items with their token frames.

        Raises:
            ValueError: a piece of work failed.
        """
        loading_bytes = self.meter.peak()
        self.meter.restart()
        costs = Costs(self.meter.peak(), loading_bytes)
        longest: dict[PriorKey, Task] = {}
        for task in batches:
            key = prior_key(task)
            if key not in longest or max(task.frames) > max(longest[key].frames):
                longest[key] = task
        for key, task in longest.items():
            costs.prior[key] = self.measure_prior(task, costs.base_bytes)
        kinds: dict[PieceKey, tuple[RenderItem, list[int]]] = {}
        for item, frames in pieces:
            kinds.setdefault(piece_key(item), (item, []))[1].append(frames)
        for kind, (item, lengths) in kinds.items():
            costs.pieces[kind] = self.measure_piece(item, lengths, costs.base_bytes)
        return costs

    def measure_prior(self, task: Task, base: int) -> PriorCost:
        """Write a few frames at the start, and a few after many others."""
        frames = max(task.frames)
        text_s = fmean(self.on_every_lane(partial(self.time_text, task.items[0])))
        rows = task.num_rows * (2 if prior_key(task)[1] else 1)
        state_bytes, reach = self.state_of_one_row(task.items[0], frames)
        self.meter.restart()
        self.time_frames(task, 0, 1)
        points = [(NUM_FRAMES / 2, self.time_frames(task, 0, NUM_FRAMES))]
        work_bytes = (self.meter.peak() - base) // self.lanes
        position = min(frames, reach, MAX_POSITIONS // rows) - NUM_FRAMES
        if position >= 2 * NUM_FRAMES:
            later = self.time_frames(task, position, NUM_FRAMES)
            points.append((position + NUM_FRAMES / 2, later))
        state = Line(((0, 0), (frames, rows * state_bytes)))
        return PriorCost(Line(tuple(points)), reach, text_s, max(0, work_bytes), state)

    def time_text(self, item: RenderItem) -> float:
        """Seconds of encoding a text, once it is warm."""
        for _ in range(2):
            start = time.perf_counter()
            encode_texts(self.maker.pipeline, [item.prompt])
            self.finish_device()
        return time.perf_counter() - start

    def on_every_lane(self, work: Callable[[], T]) -> list[T]:
        """What a piece of work returns on all lanes at once, each on one thread of PyTorch."""

        def alone(_: int) -> T:
            with cpu_threads(1):
                return work()

        with ThreadPoolExecutor(self.lanes) as pool:
            return list(pool.map(alone, range(self.lanes)))

    def time_frames(self, task: Task, position: int, num_frames: int) -> float:
        """Seconds per frame of a batch of this width after ``position`` frames."""
        work = partial(self._time_frames, task, position, num_frames)
        return fmean(self.on_every_lane(work))

    def _time_frames(self, task: Task, position: int, num_frames: int) -> float:
        pipeline, item, rows = self.maker.pipeline, task.items[0], task.num_rows
        settings = item.settings
        sampling = Sampling(
            settings.temperature, settings.top_k, settings.top_p, guidance=settings.guidance
        )
        text = encode_texts(pipeline, [item.prompt] * rows)
        negative = encode_texts(pipeline, [item.negative_prompt or ""] * rows)
        prior = pipeline.prior
        heard = torch.randint(
            prior.codebook_size,
            (rows, prior.num_codebooks, position),
            generator=generator(0, "calibration"),
        )
        seeds = list(range(rows))
        frames = generate(prior, text, negative, num_frames + 1, sampling, seeds, heard)
        codes = [next(frames).codes]
        self.finish_device()
        start = time.perf_counter()
        codes += [frame.codes for frame in frames]
        self.finish_device()
        seconds = time.perf_counter() - start
        self.codes = torch.stack(codes, dim=-1)[0].cpu().numpy()
        return seconds / num_frames

    @torch.no_grad()
    def state_of_one_row(self, item: RenderItem, num_frames: int) -> tuple[int, int]:
        """What the prior remembers of one row (bytes), and on how many frames it looks back."""
        prior = self.maker.pipeline.prior
        text = encode_texts(self.maker.pipeline, [item.prompt]).to(prior.device)
        state = prior.init_state(text, num_frames)
        nothing = torch.zeros(1, prior.num_codebooks, 0, dtype=torch.long, device=prior.device)
        prior.prefill(nothing, state)  # allocates
        tensors: list[Tensor] = []
        for layer in state.layers:
            tensors += [layer.history.keys, layer.history.values, layer.text.keys]
            tensors += [layer.text.values, *(layer.hidden or ())]
        return sum(tensor.nbytes for tensor in tensors), state.capacity

    def measure_piece(self, item: RenderItem, lengths: list[int], base: int) -> PieceCost:
        """Make files of the shortest and the longest of some lengths, or of shorter ones."""
        frame_rate = self.maker.pipeline.codec.frame_rate
        cap = max(1, round(LONGEST_PIECE_S * frame_rate))
        shortest, longest = min(lengths), max(lengths)
        low, high = min(shortest, cap), min(longest, cap)
        if longest > high == low:
            low = max(1, high // 2)
        self.make(item, low)  # does not count
        seconds, peaks, sizes = [], [], []
        for frames in sorted({low, high}):
            self.meter.restart()
            made = self.on_every_lane(partial(self.make, item, frames))
            seconds.append((frames, fmean(took for took, _ in made)))
            peaks.append((frames, max(0, self.meter.peak() - base) / self.lanes))
            sizes.append((frames, made[0][1]))
        return PieceCost(Line(tuple(seconds)), Line(tuple(peaks)), Line(tuple(sizes)))

    def make(self, item: RenderItem, num_frames: int) -> tuple[float, int]:
        """Seconds and bytes of an item cut or lengthened to ``num_frames``, files and all."""
        codes = read_codes(item) if item.codes_path is not None else self.codes
        assert codes is not None
        codes = np.tile(codes, -(-num_frames // codes.shape[-1]))[:, :num_frames]
        duration_s = num_frames / self.maker.pipeline.codec.frame_rate
        item = replace(item, settings=replace(item.settings, duration_s=duration_s))
        start = time.perf_counter()
        made = self.maker.perform(Task((item,), 1, (num_frames,), codes))
        if not isinstance(made, Finished):
            raise ValueError(f"the calibration failed: {reason(made)}")
        with tempfile.TemporaryFile(dir=self.folder) as file:
            for content in (made.audio, made.tokens):
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        return time.perf_counter() - start, len(made.audio) + len(made.tokens)

    def finish_device(self) -> None:
        """Wait until a GPU has done what it was given."""
        if self.meter.device.type == "cuda":
            torch.cuda.synchronize(self.meter.device)


def reason(made: Written | Failed) -> str:
    """Why there is no file."""
    return made.error if isinstance(made, Failed) else "no file came of it"
