"""A piece that sounds while it is written: it can be steered, canceled, saved and continued."""

import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codec.stages import Feed, take
from pipelines.inference.arguments import check_prompt
from pipelines.inference.stream_state import Piece, StreamState, below, nested
from prior.condition import Condition
from prior.generate import Writer
from prior.sampling import Sampling

if TYPE_CHECKING:
    from codec.stages import Stage
    from pipelines.pipeline import Pipeline


@dataclass
class Work:
    """What an unfinished stream holds; a stream that has ended lets go of it.

    Attributes:
        pipeline: that writes and decodes.
        writer: the prior at work.
        stages: from codes to pieces of audio.
    """

    pipeline: "Pipeline"
    writer: Writer
    stages: "list[Stage]"

    def parts(self) -> "dict[str, Writer | Stage]":
        """All that has a state, by name."""
        stages = {f"stage{index}": stage for index, stage in enumerate(self.stages)}
        return {"writer": self.writer, **stages}


class Stream:
    """Iterate over it for (C, s) float32 pieces of audio, each as soon as it is known.

    The pieces' concatenation equals the same call of the pipeline bit for bit. Nothing is computed
    between two pieces: whoever plays them should keep a few in store. ``steer``, ``cancel`` and
    ``state`` may be called between pieces, or from another thread.

    Args:
        pipeline: that writes and decodes.
        piece: what to write.
        chunk_s: length of every piece but the last (s); None yields them as they come, short ones
            first.

    Attributes:
        piece: the same, with the negative prompt that is read now.
        sample_rate: Hz.
        num_samples: of the whole piece.
        prompts: (frame, text) from which frame on each prompt is read.

    Raises:
        ValueError: an argument is out of its range, named with its rule.
    """

    def __init__(self, pipeline: "Pipeline", piece: Piece, chunk_s: float | None = None) -> None:
        codec = pipeline.codec
        self.piece = piece
        self.sample_rate = codec.sample_rate
        self.num_samples = round(piece.duration_s * codec.sample_rate)
        self.prompts = [(0, piece.prompt)]
        self._frames: list[Tensor] = []  # (1, K) each
        self._lock = threading.RLock()
        self._canceled = False
        writer = make_writer(pipeline, piece)
        stages: list[Stage] = [
            *pipeline.decode_stages([piece.decoder_seed], piece.num_inference_steps),
            Cut(self.num_samples, chunk_samples(chunk_s, codec.sample_rate)),
        ]
        self._work: Work | None = Work(pipeline, writer, stages)

    @classmethod
    def resume(
        cls, pipeline: "Pipeline", state: StreamState, chunk_s: float | None = None
    ) -> "Stream":
        """Continue a saved stream exactly as if it had never stopped.

        Raises:
            ValueError: the state is another pipeline's.
        """
        if state.fingerprint != fingerprint(pipeline):
            raise ValueError("the state was saved by another pipeline, which alone can continue it")
        stream = cls(pipeline, state.piece, chunk_s)
        device = pipeline.codec.device
        for name, part in stream._open().parts().items():
            part.load_state_dict(below(name, state.tensors, device))
        stream.prompts = list(state.prompts)
        stream._frames = list(state.tensors["codes"].to(device).unbind(-1))
        return stream

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        while True:
            with self._lock:
                if self._work is None:
                    raise StopIteration
                piece = self._advance(self._work)
                if piece is None and self._work.stages[0].ended:
                    self._work = None
            if self._canceled:  # by another thread, while this one computed
                raise StopIteration
            if piece is not None:
                return piece[0]

    @property
    def codes(self) -> Tensor:
        """(1, K, T) int64, what the prior has written so far."""
        if not self._frames:
            return torch.zeros(1, 0, 0, dtype=torch.int64)
        return torch.stack(self._frames, dim=-1)

    def steer(self, prompt: str, negative_prompt: str | None = None) -> None:
        """Let the prior follow another prompt from the next frame on.

        Args:
            prompt: the new text.
            negative_prompt: what to move away from; None keeps what it was.

        Raises:
            ValueError: the prompt is empty or too long, or the last frame has been written.
        """
        check_prompt(prompt)
        with self._lock:
            work = self._open()
            if work.stages[0].ended:
                raise ValueError("the last frame has been written: there is nothing to steer")
            if negative_prompt:
                self.piece = replace(self.piece, negative_prompt=negative_prompt)
            piece = replace(self.piece, prompt=prompt)
            work.writer.steer(*told(work.pipeline, piece, work.writer.num_frames))
            self.prompts.append((len(self._frames), prompt))

    def cancel(self) -> None:
        """End the stream and let go of all that it holds; no further piece is delivered."""
        self._canceled = True
        with self._lock:  # another thread may be within a step
            self._work = None

    def state(self) -> StreamState:
        """Where the stream stands, to be continued with ``pipeline.stream(state=...)``.

        Raises:
            ValueError: the stream has ended.
        """
        with self._lock:
            work = self._open()
            tensors = {"codes": self.codes.cpu()}
            for name, part in work.parts().items():
                tensors |= nested(name, part.state_dict())
            identity = fingerprint(work.pipeline)
            return StreamState(self.piece, list(self.prompts), identity, tensors)

    @torch.no_grad()
    def _advance(self, work: Work) -> Tensor | None:
        """One step: a piece of audio if one is ready, otherwise the next frame."""
        piece = take(work.stages)
        if piece is not None or work.stages[0].ended:
            return piece
        frame = work.writer.write()
        if frame is None:
            work.stages[0].end()
            return take(work.stages)
        self._frames.append(frame.codes)
        work.stages[0].feed(frame.codes[..., None].to(work.pipeline.codec.device))
        return None

    def _open(self) -> Work:
        if self._work is None:
            raise ValueError("the stream has ended")
        return self._work


class Cut:
    """The last stage: ends the audio at its length and cuts it to the size that is asked for.

    Args:
        num_samples: to let through.
        size: samples per piece but the last; None lets pieces through as they come.
    """

    def __init__(self, num_samples: int, size: int | None) -> None:
        self.remaining = num_samples
        self.size = size
        self.input = Feed()

    @property
    def ended(self) -> bool:
        """Whether the last piece has been fed."""
        return self.input.ended

    def feed(self, piece: Tensor) -> None:
        """Hand over the next (B, C, s) samples."""
        self.input.append(piece)

    def end(self) -> None:
        """Say that the last sample has been fed."""
        self.input.ended = True

    def take(self) -> Tensor | None:
        """The next (B, C, s) samples."""
        ready = min(len(self.input), self.remaining)
        complete = self.ended or ready == self.remaining
        if ready == 0 or (self.size is not None and ready < self.size and not complete):
            return None
        piece = self.input.first(ready if self.size is None else min(ready, self.size))
        self.input.drop(piece.shape[-1])
        self.remaining -= piece.shape[-1]
        return piece

    def state_dict(self) -> dict[str, Tensor]:
        """What was not let through yet."""
        return {**self.input.state_dict(), "remaining": torch.tensor(self.remaining)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.input.load_state_dict(state)
        self.remaining = int(state["remaining"])


def chunk_samples(chunk_s: float | None, sample_rate: int) -> int | None:
    """A length in seconds as a number of samples."""
    if chunk_s is None:
        return None
    if not 1 <= chunk_s * sample_rate < float("inf"):
        raise ValueError(f"chunk_s must hold at least one sample, got {chunk_s}")
    return round(chunk_s * sample_rate)


def describe_piece(
    pipeline: "Pipeline",
    prompt: str | None,
    duration_s: float | None,
    seed: int | None,
    decoder_seed: int | None,
    num_inference_steps: int | None,
    preview: bool,
    **choices: Any,
) -> Piece:
    """Fill in the pipeline's defaults.

    Args:
        choices: ``negative_prompt``, ``guidance``, ``temperature``, ``top_k`` and ``top_p``, None
            where the pipeline's default is wanted.

    Raises:
        ValueError: an argument is out of its range, named with its rule.
    """
    prompt = check_prompt(prompt)
    duration_s = 10.0 if duration_s is None else duration_s
    pipeline.num_frames(duration_s)
    defaults = {
        name: pipeline.config[name]
        for name in ("guidance", "temperature", "top_k")
        if choices[name] is None
    }
    seed = secrets.randbelow(2**31) if seed is None else seed
    return Piece(
        prompt=prompt,
        duration_s=duration_s,
        seed=seed,
        decoder_seed=seed if decoder_seed is None else decoder_seed,
        num_inference_steps=pipeline.check_steps(num_inference_steps, preview),
        **(choices | defaults),
    )


def make_writer(pipeline: "Pipeline", piece: Piece) -> Writer:
    """The prior about to write a piece's first frame."""
    num_frames = pipeline.num_frames(piece.duration_s)
    return Writer(
        pipeline.prior,
        *told(pipeline, piece, num_frames),
        num_frames,
        Sampling(piece.temperature, piece.top_k, piece.top_p, piece.guidance),
        [piece.seed],
    )


def told(pipeline: "Pipeline", piece: Piece, num_frames: int) -> tuple[Condition, Condition | None]:
    """What the prior reads of a piece, and what guidance moves away from."""
    text = pipeline.encode_prompts([piece.prompt])
    plans = pipeline.plan_items([piece.prompt], text, piece.duration_s, [piece.seed])
    return pipeline.told(text, plans, num_frames, [piece.negative_prompt])


def fingerprint(pipeline: "Pipeline") -> str:
    """BLAKE2b of every part that a stream's samples depend on: settings and weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("text_encoder", "codec", "prior", "decoder", "planner"):
        part = getattr(pipeline, name)
        digest.update(f"{name} {type(part).__name__}".encode())
        if part is None:
            continue
        if name != "text_encoder":  # transformers' config tells where and when it was saved
            config = {key: value for key, value in part.config.items() if key[0] != "_"}
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for key, tensor in sorted(part.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
