"""Write codes frame by frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prior.model import Prior
from prior.sampling import Sampling, choose_code, draw_uniform, guide, uniform_of_book
from prior.text_condition import TextCondition


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
    text: TextCondition,
    negative: TextCondition | None,
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
    if prompt_codes is None:
        prompt_codes = torch.zeros(len(seeds), prior.num_codebooks, 0, dtype=torch.long)
    if min_frames is None:
        min_frames = num_frames
    check_frames(num_frames, min_frames)
    check_rows(prior, text, negative, prompt_codes, len(seeds))
    if sampling.guidance != 1:
        away = negative or TextCondition.empty(len(seeds), text.states.shape[-1]).to(
            text.states.device
        )
        text = text.stacked_on(away)
    return _write(prior, text, num_frames, sampling, seeds, prompt_codes, min_frames)


@torch.inference_mode()
def _write(
    prior: Prior,
    text: TextCondition,
    num_frames: int,
    sampling: Sampling,
    seeds: list[int],
    prompt_codes: Tensor,
    min_frames: int,
) -> Iterator[Frame]:
    """The loop of :func:`generate`; ``text`` holds the guiding rows too."""
    device, start = prior.device, prompt_codes.shape[-1]
    copies = text.states.shape[0] // len(seeds)
    text = text.to(device)
    state = prior.init_state(text.states, text.mask, start + num_frames)
    hidden = prior.prefill(prompt_codes.to(device).repeat(copies, 1, 1), state)
    ended = torch.zeros(len(seeds), dtype=torch.bool, device=device)
    for index in range(num_frames):
        uniform = draw_uniform(seeds, start + index, prior.num_codebooks, prior.codebook_size)
        may_end = index >= min_frames
        frame = sample_frame(prior, hidden, uniform.to(device), sampling, ended, may_end)
        ended = frame.ended
        if may_end and bool(ended.all()):
            return
        yield frame
        if index + 1 < num_frames:
            hidden = prior.decode_one_frame(frame.codes.repeat(copies, 1), state)


def sample_frame(
    prior: Prior,
    hidden: Tensor,
    uniform: Tensor,
    sampling: Sampling,
    ended: Tensor,
    may_end: bool,
) -> Frame:
    """Draw one frame of every row from the backbone's hidden states.

    Args:
        prior: the model.
        hidden: (B, D), or (2B, D) with the guiding rows after the conditional ones.
        uniform: (B, K * V + 1) from ``draw_uniform``.
        sampling: the settings.
        ended: (B,) bool, rows that ended earlier.
        may_end: whether a row may end before this frame.
    """
    size = prior.codebook_size

    def choose(logits: Tensor, book: int) -> Tensor:
        nonlocal ended
        logits = logits.float()
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
        return codes.repeat(hidden.shape[0] // codes.shape[0])

    codes = prior.sample_frame(hidden, choose)
    return Frame(codes[: uniform.shape[0]], ended)


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
    text: TextCondition,
    negative: TextCondition | None,
    prompt_codes: Tensor,
    num_rows: int,
) -> None:
    """Raise a ``ValueError`` unless seeds, texts and prompt are as many rows that fit the prior."""
    text_width = prior.config["text_width"]
    for name, condition in (("text", text), ("negative", negative)):
        if condition is None:
            continue
        B, _, width = condition.states.shape
        if num_rows != B:
            raise ValueError(f"{name} must have one row per seed, got {B} and {num_rows} seeds")
        if width != text_width:
            raise ValueError(f"{name} states must be {text_width} wide, got {width}")
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
