"""Autoregressive generation: codes frame by frame, under a condition that may change on the way."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from prior.condition import Condition
from prior.model import Prior
from prior.native.step import NativeStep
from prior.next_frame import Draw, Frame, draw_frame
from prior.plan import contrary_features
from prior.sampling import Sampling, draw_uniform
from prior.state import PriorState


class FrameGenerator:
    """Iterate over it for up to ``num_frames`` new frames, one at a time; just stop to cancel.

    A row's codes follow from its condition, prompt, seed and the settings alone, whatever the other
    rows are; n frames and then m with the first n as the prompt equal n + m. Between two frames the
    condition can be changed and the state saved.

    Args:
        prior: the model, on any device.
        condition: B rows; its plan counts from the first frame of the piece, a prompt included.
        negative: B texts to move away from; None for the unconditional prior. Read only when
            ``sampling.guidance`` is not 1; its rows read the plan's ``contrary_features``.
        num_frames: the most new frames to generate.
        sampling: temperature, top-k, top-p, guidance.
        seeds: one per row.
        prompt_codes: (B, K, P) int64 in [0, V), frames to continue; not yielded again.
        future_codes: (B, K, F) int64 in [0, V), the known frames after the last new one; of a prior
            that fills.
        min_frames: new frames before which a piece may not end; None for ``num_frames``, which
            makes the duration exact.

    Yields:
        A ``Frame`` for every new frame, until all rows have ended.

    Raises:
        ValueError: an argument does not fit, named with its rule.
    """

    def __init__(
        self,
        prior: Prior,
        condition: Condition,
        negative: Condition | None,
        num_frames: int,
        sampling: Sampling,
        seeds: list[int],
        prompt_codes: Tensor | None = None,
        min_frames: int | None = None,
        future_codes: Tensor | None = None,
    ) -> None:
        if prompt_codes is None:
            prompt_codes = torch.zeros(len(seeds), prior.num_codebooks, 0, dtype=torch.long)
        self.min_frames = num_frames if min_frames is None else min_frames
        check_frames(num_frames, self.min_frames)
        check_prompt_codes(prompt_codes, prior, len(seeds))
        if future_codes is not None:
            if not prior.config["fills"]:
                raise ValueError("future_codes need a prior that was trained to fill (fills)")
            check_prompt_codes(future_codes, prior, len(seeds), "future_codes")
        self.future_codes = future_codes
        self.prior = prior
        self.num_frames = num_frames
        self.guidance = sampling.guidance
        self.books = sampling.by_book(prior.num_codebooks)
        self.seeds = seeds
        self.prompt_codes = prompt_codes
        self.device = prior.device  # which diffusers looks for among all modules, every time
        self.next_frame = NativeStep(prior)
        self.index = 0  # frames generated
        self.columns: list[Tensor] = []  # (B, K) drawn, of frames that are not whole
        self.last: Tensor | None = None  # (B, K), the frame generated last
        self.ended = torch.zeros(len(seeds), dtype=torch.bool, device=self.device)
        self.state: PriorState | None = None
        self.steer(condition, negative)

    def __iter__(self) -> Iterator[Frame]:
        return self

    @torch.inference_mode()
    def __next__(self) -> Frame:
        if self.index == self.num_frames or bool(self.ended.all()):
            raise StopIteration
        may_end = self.index >= self.min_frames
        frame = self._draw(may_end)
        while len(self.columns) < self.prior.delay:
            self.columns.append(frame.codes)
            frame = self._draw(may_end)
        if self.prior.delay:  # codebook k of a frame stands k columns after its first
            self.columns.append(frame.codes)
            whole = [column[:, book] for book, column in enumerate(self.columns)]
            frame = Frame(torch.stack(whole, dim=1), frame.ended)
            del self.columns[0]
        if may_end and bool(frame.ended.all()):
            raise StopIteration
        self.index += 1
        return frame

    def _draw(self, may_end: bool) -> Frame:
        """Draw the next frame, or column of a prior whose codebooks are delayed."""
        number = self.prompt_codes.shape[-1] + self.index + len(self.columns)
        prior = self.prior
        uniform = draw_uniform(self.seeds, number, prior.num_codebooks, prior.codebook_size)
        draw = Draw(uniform.to(self.device), self.books, self.ended, may_end)
        if self.state is None:
            frame = draw_frame(prior, self._prefill(), draw)
        else:
            assert self.last is not None
            added, place = prior.advance(self.state)
            frame = self.next_frame(prior, self.last, added, place, self.state, draw)
        self.ended, self.last = frame.ended, frame.codes
        return frame

    def replace(self, codes: Tensor) -> Tensor:
        """Let what follows see other (B, K) codes in the place of the last frame's.

        Raises:
            ValueError: the prior has drawn a part of the next frames already.
        """
        if self.prior.delay:
            raise ValueError("codes of a prior with delayed codebooks cannot be replaced")
        self.last = codes
        return codes

    @torch.inference_mode()
    def steer(self, condition: Condition, negative: Condition | None) -> None:
        """Condition the frames from the next one on otherwise; what was generated stays.

        The condition has a row per seed, and its plan counts from the first frame of the piece;
        ``negative`` has as many, or is None for the unconditional prior.

        Raises:
            ValueError: the condition does not fit.
        """
        for name, given in (("condition", condition), ("negative", negative)):
            check_condition(given, name, self.prior, len(self.seeds))
        if self.guidance != 1:
            condition = with_negative(condition, negative)
        self.condition = condition.to(self.device)
        if self.state is not None:
            self._read_condition(self.state)

    @torch.inference_mode()
    def state_dict(self) -> dict[str, Tensor]:
        """Return all that an equal generator needs to continue exactly; grows with the frames."""
        state = {
            "index": torch.tensor(self.index),
            "ended": self.ended,
            "text.states": self.condition.text_states,
            "text.mask": self.condition.text_mask,
        }
        if self.condition.plan is not None:
            state["text.plan"] = self.condition.plan
        if self.state is not None and self.last is not None:
            state |= {"last": self.last, **self.state.tensors()}
        for number, column in enumerate(self.columns):
            state[f"column.{number}"] = column
        return {name: tensor.clone() for name, tensor in state.items()}

    @torch.inference_mode()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        state = {name: tensor.to(self.device) for name, tensor in state.items()}
        self.index = int(state["index"])
        self.ended = state["ended"]
        self.condition = Condition(state["text.states"], state["text.mask"], state.get("text.plan"))
        if "last" in state:
            self.last = state["last"]
            self.state = self._init_state()
            self.state.restore(state)
            self._read_condition(self.state)
        columns = [name for name in state if name.startswith("column.")]
        self.columns = [state[f"column.{number}"] for number in range(len(columns))]

    def _init_state(self) -> PriorState:
        longest = self.prompt_codes.shape[-1] + self.num_frames
        known = 0 if self.future_codes is None else self.future_codes.shape[-1]
        return self.prior.init_state(self.condition, longest, known)

    def _prefill(self) -> Tensor:
        """Make the state and read the prompt: (B, D), or (2B, D) with guidance."""
        self.state = self._init_state()
        copies = self.condition.text_mask.shape[0] // len(self.seeds)
        prompt, future = (
            None if codes is None else codes.to(self.device).repeat(copies, 1, 1)
            for codes in (self.prompt_codes, self.future_codes)
        )
        assert prompt is not None
        return self.prior.prefill(prompt, self.state, future)

    def _read_condition(self, state: PriorState) -> None:
        """Give a state in use the present condition; the history that it holds stays."""
        self.prior.follow(state, self.condition)


def with_negative(condition: Condition, negative: Condition | None) -> Condition:
    """Append the rows to move away from: the negative text, beside it the plan's contrary."""
    states = condition.text_states
    away = negative or Condition.empty(states.shape[0], states.shape[-1], states.device)
    if condition.plan is not None:
        away = replace(away, plan=contrary_features(condition.plan))
    return Condition.joined([condition, away])


def check_frames(num_frames: int, min_frames: int) -> None:
    """Raise a ``ValueError`` unless 0 <= min_frames <= num_frames and there is a frame to make."""
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if not 0 <= min_frames <= num_frames:
        raise ValueError(
            f"min_frames must lie in 0 to num_frames, got min_frames={min_frames} "
            f"and num_frames={num_frames}"
        )


def check_condition(condition: Condition | None, name: str, prior: Prior, num_rows: int) -> None:
    """Raise a ``ValueError`` unless there is one row per seed and the prior can read it."""
    if condition is None:
        return
    B, _, width = condition.text_states.shape
    if num_rows != B:
        raise ValueError(f"{name} must have one row per seed, got {B} and {num_rows} seeds")
    if width != prior.config["text_width"]:
        raise ValueError(f"{name} states must be {prior.config['text_width']} wide, got {width}")
    if condition.plan is not None and not prior.config["reads_plan"]:
        raise ValueError(f"{name} has a plan, which a prior with reads_plan=false cannot read")
    reader = prior.plan_reader
    if condition.plan is not None and reader and condition.plan.shape[-1] != reader.num_features:
        found = condition.plan.shape[-1]
        raise ValueError(f"{name}'s plan must have {reader.num_features} features, got {found}")


def check_prompt_codes(
    codes: Tensor, prior: Prior, num_rows: int, name: str = "prompt_codes"
) -> None:
    """Raise a ``ValueError`` unless codes are one row per seed that the prior could have made."""
    expected = (num_rows, prior.num_codebooks)
    if codes.ndim != 3 or codes.shape[:2] != expected:
        raise ValueError(f"{name} must be {(*expected, 'P')}, got {tuple(codes.shape)}")
    if ((codes < 0) | (codes >= prior.codebook_size)).any():
        raise ValueError(
            f"{name} must lie in [0, {prior.codebook_size}), "
            f"got {int(codes.min())} to {int(codes.max())}"
        )
