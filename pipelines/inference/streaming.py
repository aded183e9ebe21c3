"""A piece that sounds while it is generated: it can be steered, canceled, saved and continued."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import Tensor, nn

from codec.stages import PieceBuffer, Stage, pull
from pipelines.inference.call_arguments import check_prompt
from pipelines.inference.conditioning import Conditioner, PriorInput
from pipelines.inference.plan_schema import PlanFields, PlanSource, draft_plan
from pipelines.inference.stream_state import Piece, StreamState, below, nested
from prior.frame_generator import FrameGenerator
from prior.plan import Plan


@dataclass
class StreamParts:
    """What an unfinished stream computes with; a stream that has ended lets go of it."""

    conditioner: Conditioner  # for prompts that it is steered to
    generator: FrameGenerator  # of the prior's frames
    stages: list[Stage]  # from codes to pieces of audio
    device: torch.device  # of the stages
    # all that the samples depend on, by name; they identify the pipeline
    modules: Mapping[str, nn.Module | None]

    def with_state(self) -> dict[str, FrameGenerator | Stage]:
        """Return all that has a state, by name."""
        stages = {f"stage{index}": stage for index, stage in enumerate(self.stages)}
        return {"writer": self.generator, **stages}


class Stream:
    """Iterate over it for (C, s) float32 pieces of audio, each as soon as it is known.

    The pieces' concatenation equals the same call of the pipeline bit for bit. Nothing is computed
    between two pieces: whoever plays them should keep a few in store. ``steer``, ``cancel`` and
    ``state`` may be called between pieces, or from another thread. ``Pipeline.stream`` makes one.

    Args:
        piece: what to generate.
        plan: that is followed first.
        parts: to compute with, ready for the first frame.
        sample_rate: Hz.
        chunk_s: length of every piece but the last (s); None yields them as they come, short ones
            first.

    Attributes:
        piece: as given, with the negative prompt and the plan that were steered to.
        plan: what the prior reads now of tempo, key, chords and instruments.
        sample_rate: Hz.
        num_samples: of the whole piece.
        prompts: (frame, text) from which frame on each prompt is read.

    Raises:
        ValueError: ``chunk_s`` is out of its range.
    """

    def __init__(
        self,
        piece: Piece,
        plan: Plan | None,
        parts: StreamParts,
        sample_rate: int,
        chunk_s: float | None = None,
    ) -> None:
        self.piece = piece
        self.plan = plan
        self.sample_rate = sample_rate
        self.num_samples = round(piece.duration_s * sample_rate)
        self.prompts = [(0, piece.prompt)]
        self._no_codes = torch.zeros(1, parts.generator.prior.num_codebooks, 0, dtype=torch.int64)
        self._frames: list[Tensor] = []  # (1, K) each
        self._lock = threading.RLock()
        self._canceled = False
        parts.stages.append(Cut(self.num_samples, chunk_samples(chunk_s, sample_rate)))
        self._parts: StreamParts | None = parts

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        while not self.ended:
            piece = self.step()
            if piece is not None:
                return piece
        raise StopIteration

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come."""
        return self._parts is None

    def step(self) -> Tensor | None:
        """Compute a little, at most one frame: a (C, s) piece if one is ready, or None."""
        with self._lock:
            if self._parts is None:
                return None
            piece = self._advance(self._parts)
            if piece is None and self._parts.stages[0].input.ended:
                self._parts = None
        if piece is None or self._canceled:  # by another thread, while this one computed
            return None
        return piece[0]

    @property
    def codes(self) -> Tensor:
        """(1, K, T) int64, what the prior has generated so far."""
        return torch.stack(self._frames, dim=-1) if self._frames else self._no_codes

    def steer(
        self,
        prompt: str,
        negative_prompt: str | None = None,
        plan: PlanSource = None,
        **plan_fields: Unpack[PlanFields],
    ) -> None:
        """Let the prior follow another prompt from the next frame on.

        Args:
            prompt: the new text.
            negative_prompt: what to move away from; None keeps what it was.
            plan: a new plan or parts of one; without it and ``plan_fields`` what was given stays.
                What is not given, the planner writes from the new prompt.
            **plan_fields: as of ``Pipeline.stream``.

        Raises:
            ValueError: the prompt is empty or too long, the prior reads no plan, or the last frame
                has been generated.
        """
        check_prompt(prompt)
        with self._lock:
            parts = self._open()
            if parts.stages[0].input.ended:
                raise ValueError("the last frame has been written: there is nothing to steer")
            piece = replace(
                self.piece,
                negative_prompt=negative_prompt or self.piece.negative_prompt,
                plan=draft_plan(plan, plan_fields) or self.piece.plan,
            )
            num_frames = parts.generator.num_frames
            found = prior_input(parts.conditioner, replace(piece, prompt=prompt), num_frames)
            parts.generator.steer(found.condition, found.negative)
            self.piece, self.plan = piece, found.plans[0]
            self.prompts.append((len(self._frames), prompt))

    def cancel(self) -> None:
        """End the stream and let go of all that it holds; no further piece is delivered."""
        self._canceled = True
        with self._lock:  # another thread may be within a step
            self._parts = None

    def state(self) -> StreamState:
        """Return where the stream stands, to be continued with ``pipeline.stream(state=...)``.

        Raises:
            ValueError: the stream has ended.
        """
        with self._lock:
            parts = self._open()
            tensors = {"codes": self.codes.cpu()}
            for name, part in parts.with_state().items():
                tensors |= nested(name, part.state_dict())
            identity = fingerprint(parts.modules)
            return StreamState(self.piece, self.plan, list(self.prompts), identity, tensors)

    def load_state(self, state: StreamState) -> None:
        """Continue a saved stream of the same piece and pipeline as if it had never stopped."""
        parts = self._open()
        for name, part in parts.with_state().items():
            part.load_state_dict(below(name, state.tensors, parts.device))
        self.prompts = list(state.prompts)
        self._frames = list(state.tensors["codes"].to(parts.device).unbind(-1))

    @torch.no_grad()
    def _advance(self, parts: StreamParts) -> Tensor | None:
        """Go a step: to a piece of audio if one is ready, otherwise to the next frame."""
        piece = pull(parts.stages)
        if piece is not None or parts.stages[0].input.ended:
            return piece
        frame = next(parts.generator, None)
        if frame is None:
            parts.stages[0].input.end()
            return pull(parts.stages)
        self._frames.append(frame.codes)
        parts.stages[0].input.push(frame.codes[..., None].to(parts.device))
        return None

    def _open(self) -> StreamParts:
        if self._parts is None:
            raise ValueError("the stream has ended")
        return self._parts


def prior_input(conditioner: Conditioner, piece: Piece, num_frames: int) -> PriorInput:
    """Return what the prior reads of a piece."""
    return conditioner(
        [piece.prompt],
        [piece.negative_prompt],
        [piece.plan],
        [piece.seed],
        piece.duration_s,
        num_frames,
    )


class Cut:
    """The last stage: ends the audio at ``num_samples``, in pieces of ``size`` or as they come."""

    def __init__(self, num_samples: int, size: int | None) -> None:
        self.remaining = num_samples
        self.size = size
        self.input = PieceBuffer()

    def pull(self) -> Tensor | None:
        """Return the next (B, C, s) samples."""
        ready = min(len(self.input), self.remaining)
        complete = self.input.ended or ready == self.remaining
        if ready == 0 or (self.size is not None and ready < self.size and not complete):
            return None
        piece = self.input.first(ready if self.size is None else min(ready, self.size))
        self.input.drop(piece.shape[-1])
        self.remaining -= piece.shape[-1]
        return piece

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was not let through yet."""
        return {**self.input.state_dict(), "remaining": torch.tensor(self.remaining)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.input.load_state_dict(state)
        self.remaining = int(state["remaining"])


def chunk_samples(chunk_s: float | None, sample_rate: int) -> int | None:
    """Return a length in seconds as a number of samples."""
    if chunk_s is None:
        return None
    if not 1 <= chunk_s * sample_rate < float("inf"):
        raise ValueError(f"chunk_s must hold at least one sample, got {chunk_s}")
    return round(chunk_s * sample_rate)


def fingerprint(parts: Mapping[str, nn.Module | None]) -> str:
    """Hash what a stream's samples depend on, settings and weights of named parts (BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=16)
    for name, part in parts.items():
        digest.update(f"{name} {type(part).__name__}".encode())
        if part is None:
            continue
        if name != "text_encoder":  # transformers' config tells where and when it was saved
            config = {key: value for key, value in part.config.items() if key[0] != "_"}  # type: ignore[union-attr,operator]
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for key, tensor in sorted(part.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
