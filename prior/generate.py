"""Write codes frame by frame."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from prior.attention import Place
from prior.condition import Condition
from prior.model import Prior
from prior.plan import contrary_features
from prior.sampling import Sampling, by_book, choose_code, draw_uniform, guide, uniform_of_book
from prior.state import PriorState


@dataclass(frozen=True)
class Frame:
    """One frame of every row.

    Attributes:
        codes: (B, K) int64 in [0, V) on the prior's device; 0 where the row has ended.
        ended: (B,) bool, true where the row ended before this frame; it never restarts.
    """

    codes: Tensor
    ended: Tensor


def generate(
    prior: Prior,
    text: Condition,
    negative: Condition | None,
    num_frames: int,
    sampling: Sampling,
    seeds: list[int],
    prompt_codes: Tensor | None = None,
    min_frames: int | None = None,
) -> Iterator[Frame]:
    """Write up to ``num_frames`` frames after a prompt, one at a time; close the iterator to stop.

    A row's codes follow from its text, prompt, seed and the settings alone, whatever the other
    rows are; writing n frames and then m with the first n as the prompt equals writing n + m.

    Args:
        prior: the model, on any device.
        text: B prompts.
        negative: B texts to move away from; None for the unconditional prior. Read only when
            ``sampling.guidance`` is not 1.
        num_frames: the most new frames to write.
        sampling: temperature, top-k, top-p, guidance.
        seeds: one per row.
        prompt_codes: (B, K, P) int64 in [0, V), frames to continue; not yielded again.
        min_frames: new frames before which a piece may not end; None for ``num_frames``, which
            makes the duration exact.

    Yields:
        A ``Frame`` for every new frame, until all rows have ended.

    Raises:
        ValueError: an argument does not fit, named with its rule; raised by the call itself.
    """
    return _frames(
        Writer(prior, text, negative, num_frames, sampling, seeds, prompt_codes, min_frames)
    )


def _frames(writer: "Writer") -> Iterator[Frame]:
    while (frame := writer.write()) is not None:
        yield frame


class Writer:
    """Writes frames one by one; between two frames its text can be changed and its state saved.

    The arguments are those of :func:`generate`.
    """

    def __init__(
        self,
        prior: Prior,
        text: Condition,
        negative: Condition | None,
        num_frames: int,
        sampling: Sampling,
        seeds: list[int],
        prompt_codes: Tensor | None = None,
        min_frames: int | None = None,
    ) -> None:
        if prompt_codes is None:
            prompt_codes = torch.zeros(len(seeds), prior.num_codebooks, 0, dtype=torch.long)
        self.min_frames = num_frames if min_frames is None else min_frames
        check_frames(num_frames, self.min_frames)
        check_rows(prior, text, negative, prompt_codes, len(seeds))
        self.prior = prior
        self.num_frames = num_frames
        self.sampling = sampling
        self.of_books = by_book(sampling, prior.config["fine_temperature"], prior.num_codebooks)
        self.seeds = seeds
        self.prompt_codes = prompt_codes
        self.device = prior.device  # which diffusers looks for among all modules, every time
        self.next_frame = compiled_next_frame(self.device.type) if prior.is_compiled else next_frame
        self.text = self._with_guide(text, negative)
        self.index = 0  # frames written
        self.last: Tensor | None = None  # (B, K), the frame written last
        self.ended = torch.zeros(len(seeds), dtype=torch.bool, device=self.device)
        self.state: PriorState | None = None

    @torch.inference_mode()
    def write(self) -> Frame | None:
        """The next frame; None where ``num_frames`` are written or all rows have ended."""
        if self.index == self.num_frames or bool(self.ended.all()):
            return None
        prior, number = self.prior, self.prompt_codes.shape[-1] + self.index
        uniform = draw_uniform(self.seeds, number, prior.num_codebooks, prior.codebook_size)
        may_end = self.index >= self.min_frames
        how = uniform.to(self.device), self.of_books, self.ended, may_end
        if self.state is None:
            self.state = self._init_state()
            copies = self.text.text_states.shape[0] // len(self.seeds)
            prompt = self.prompt_codes.to(self.device).repeat(copies, 1, 1)
            frame = sample_frame(prior, prior.prefill(prompt, self.state), *how)
        else:
            assert self.last is not None
            added, place = prior.advance(self.state)
            frame = self.next_frame(prior, self.last, added, place, self.state, *how)
        self.ended, self.last = frame.ended, frame.codes
        if may_end and bool(frame.ended.all()):
            return None
        self.index += 1
        return frame

    @torch.inference_mode()
    def steer(self, text: Condition, negative: Condition | None) -> None:
        """Let the frames from the next one on read other texts; what was written stays.

        Args:
            text: one row per seed; its plan counts from the first frame of the piece.
            negative: as many, to move away from; None for the unconditional prior.

        Raises:
            ValueError: the text does not fit.
        """
        check_rows(self.prior, text, negative, self.prompt_codes, len(self.seeds))
        self.text = self._with_guide(text, negative)
        if self.state is not None:
            read_text(self.prior, self.text, self.state)

    @torch.inference_mode()
    def state_dict(self) -> dict[str, Tensor]:
        """What a writer of the same arguments needs to continue exactly; grows with the frames."""
        state = {
            "index": torch.tensor(self.index),
            "ended": self.ended,
            "text.states": self.text.text_states,
            "text.mask": self.text.text_mask,
        }
        if self.text.plan is not None:
            state["text.plan"] = self.text.plan
        if self.state is not None and self.last is not None:
            state |= {"last": self.last, **state_tensors(self.state)}
        return {name: tensor.clone() for name, tensor in state.items()}

    @torch.inference_mode()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        state = {name: tensor.to(self.device) for name, tensor in state.items()}
        self.index = int(state["index"])
        self.ended = state["ended"]
        self.text = Condition(state["text.states"], state["text.mask"], state.get("text.plan"))
        if "last" in state:
            self.last = state["last"]
            self.state = self._init_state()
            restore_state(self.state, state)
            read_text(self.prior, self.text, self.state)

    def _with_guide(self, text: Condition, negative: Condition | None) -> Condition:
        """The text and, where there is guidance, the rows to move away from under it.

        Beside the negative text these read the plan's contrary.
        """
        if self.sampling.guidance != 1:
            states = text.text_states
            away = negative or Condition.empty(len(self.seeds), states.shape[-1], states.device)
            if text.plan is not None:
                away = replace(away, plan=contrary_features(text.plan))
            text = Condition.joined([text, away])
        return text.to(self.device)

    def _init_state(self) -> PriorState:
        longest = self.prompt_codes.shape[-1] + self.num_frames
        return self.prior.init_state(self.text, longest)


def read_text(prior: Prior, text: Condition, state: PriorState) -> None:
    """Give a state in use another text; the history that it holds stays as it was heard."""
    fresh = prior.init_state(text, state.max_frames)
    state.text, state.frame_condition = fresh.text, fresh.frame_condition
    width = prior.config["width"]
    nothing = state.text.states.new_zeros(text.text_states.shape[0], 1, width)
    for block, layer in zip(prior.network.blocks, state.layers, strict=False):
        block.text_attention(nothing, state.text, layer.text)  # type: ignore[operator]  # fills it


def state_tensors(state: PriorState) -> dict[str, Tensor]:
    """A state's history as named tensors, without the text's."""
    tensors = {"position": torch.tensor(state.position)}
    for index, layer in enumerate(state.layers):
        if layer.history.keys.numel():
            seen = min(state.position, layer.history.capacity)
            tensors[f"{index}.keys"] = layer.history.keys[:, :, :seen].contiguous()
            tensors[f"{index}.values"] = layer.history.values[:, :, :seen].contiguous()
        for part, tensor in enumerate(layer.hidden or ()):
            tensors[f"{index}.hidden.{part}"] = tensor
    return tensors


def restore_state(state: PriorState, tensors: dict[str, Tensor]) -> None:
    """Fill a fresh state from what :func:`state_tensors` returned."""
    state.position = int(tensors["position"])
    for index, layer in enumerate(state.layers):
        if f"{index}.keys" in tensors:
            layer.history.fill(tensors[f"{index}.keys"], tensors[f"{index}.values"])
        if f"{index}.hidden.0" in tensors:
            layer.hidden = tensors[f"{index}.hidden.0"], tensors[f"{index}.hidden.1"]


def sample_frame(
    prior: Prior,
    hidden: Tensor,
    uniform: Tensor,
    of_books: Sequence[Sampling],
    ended: Tensor,
    may_end: bool,
) -> Frame:
    """Draw one frame of every row from the backbone's hidden states.

    Args:
        prior: the model.
        hidden: (B, D), or (2B, D) with the guiding rows after the conditional ones.
        uniform: (B, K * V + 1) from ``draw_uniform``.
        of_books: the settings of each book.
        ended: (B,) bool, rows that ended earlier.
        may_end: whether a row may end before this frame.
    """
    size = prior.codebook_size

    def choose(logits: Tensor, book: int) -> Tensor:
        nonlocal ended
        logits, sampling = logits.float(), of_books[book]
        if sampling.guidance != 1:
            conditional, unconditional = logits.chunk(2)
            logits = guide(conditional, unconditional, sampling.guidance)
        noise = uniform_of_book(uniform, book, size)
        if book == 0 and not may_end:
            logits, noise = logits[:, :size], noise[:, :size]
        codes = choose_code(logits, noise, sampling)
        if book == 0:
            ended = ended | (codes == size)
        codes = codes.masked_fill(ended, 0)
        copies = hidden.shape[0] // codes.shape[0]
        return torch.cat([codes] * copies)  # repeat takes six times as long

    codes = prior.sample_frame(hidden, choose)
    return Frame(codes[: uniform.shape[0]], ended)


def next_frame(
    prior: Prior,
    last: Tensor,
    added: Tensor,
    place: Place,
    state: PriorState,
    uniform: Tensor,
    of_books: Sequence[Sampling],
    ended: Tensor,
    may_end: bool,
) -> Frame:
    """Read the frame before and draw one, of every row.

    Args:
        last: (B, K) codes of the frame before.
        added: (B, D), or (2B, D) with guidance; this and ``place`` from ``Prior.advance``.
        state: of as many rows; changed in place.

    The other arguments are those of :func:`sample_frame`.
    """
    codes = torch.cat([last] * (added.shape[0] // last.shape[0]))
    hidden = prior.step(codes, added, place, state)
    return sample_frame(prior, hidden, uniform, of_books, ended, may_end)


@lru_cache
def compiled_next_frame(device_type: str) -> Callable[..., Frame]:
    """:func:`next_frame` for a prior whose step is compiled; what it returns stays as it is."""
    if device_type == "cpu":  # the loops are called from C++ and not from Python
        return torch.compile(next_frame, dynamic=False, options={"cpp_wrapper": True})
    replayed = torch.compile(next_frame, dynamic=False, mode="reduce-overhead")

    def kept(*arguments: Any) -> Frame:
        torch.compiler.cudagraph_mark_step_begin()
        frame = replayed(*arguments)
        return Frame(frame.codes.clone(), frame.ended.clone())  # a replay writes where it wrote

    return kept


def check_frames(num_frames: int, min_frames: int) -> None:
    """Raise a ``ValueError`` unless 0 <= min_frames <= num_frames and there is a frame to write."""
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if not 0 <= min_frames <= num_frames:
        raise ValueError(
            f"min_frames must lie in 0 to num_frames, got min_frames={min_frames} "
            f"and num_frames={num_frames}"
        )


def check_rows(
    prior: Prior,
    text: Condition,
    negative: Condition | None,
    prompt_codes: Tensor,
    num_rows: int,
) -> None:
    """Raise a ``ValueError`` unless seeds, texts and prompt are as many rows that fit the prior."""
    text_width = prior.config["text_width"]
    for name, condition in (("text", text), ("negative", negative)):
        if condition is None:
            continue
        B, _, width = condition.text_states.shape
        if num_rows != B:
            raise ValueError(f"{name} must have one row per seed, got {B} and {num_rows} seeds")
        if width != text_width:
            raise ValueError(f"{name} states must be {text_width} wide, got {width}")
        if condition.plan is not None and not prior.config["reads_plan"]:
            raise ValueError(f"{name} has a plan, which a prior with reads_plan=false cannot read")
    expected = (num_rows, prior.num_codebooks)
    if prompt_codes.ndim != 3 or prompt_codes.shape[:2] != expected:
        raise ValueError(
            f"prompt_codes must be {(*expected, 'P')}, got {tuple(prompt_codes.shape)}"
        )
    if ((prompt_codes < 0) | (prompt_codes >= prior.codebook_size)).any():
        raise ValueError(
            f"prompt_codes must lie in [0, {prior.codebook_size}), "
            f"got {int(prompt_codes.min())} to {int(prompt_codes.max())}"
        )
