"""From tokens to a fine spectrogram of any length: windows on a fixed grid, a few solver steps."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codec.protocols import Codec
from codec.seeds import generator
from codec.spectral_codec import FIRST_WINDOW
from codec.stages import PieceBuffer, grown, run
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.flow import NOISE_ANGLE, take_step
from decoder.painting import choose_conditioning

MAX_STEPS = 16
EULER = "FlowMatchEulerDiscreteScheduler"
"""Name of diffusers' class."""
EQUAL_STEPS = {
    "shift": 1.0,
    "shift_terminal": None,
    "use_dynamic_shifting": False,
    "invert_sigmas": False,
    "stochastic_sampling": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
"""Options with which the steps of diffusers' scheduler are equal."""


@dataclass(frozen=True)
class WindowSpan:
    """Place a window on the grid, in patches: token frames of a ``SpectralCodec``.

    Attributes:
        start: its first frame.
        frames: its length.
        overlap: how many of its last frames it shares with the next window.
    """

    start: int
    frames: int
    overlap: int


@dataclass
class Window:
    """The conditions of one window; T patches, F = T * patch_frames."""

    coarse: Tensor | None  # (B, C, M, F) normalized
    latents: Tensor  # (B, T, latent_dim), or (B, k, N) codes
    noise: Tensor  # (B, C, M, F) standard normal
    num_books: int
    image: Tensor  # (B, C, 2 N, F) stereo image, as the codec decodes it; N = 0 without one
    positions: Tensor | None = None  # (B, T * slots) among codes


class FlowSampler:
    """Decodes codes to a fine log-mel spectrogram, window by window.

    Windows lie on a fixed grid of patches and grow from a short one to ``window_frames``. A
    window's coarse spectrogram sees as many frames after it as it shares with the next window, so
    that a short one need not wait for all that the codec's decoder can reach. The noise of a frame
    is keyed by the frame, so neighboring windows see the same noise and almost the same
    conditions where they overlap and paint nearly the same there; the outer thirds of the overlap,
    where one of them lacks context, are dropped and the middle third is cross-faded.

    Args:
        codec: whose tokens are decoded.
        decoder: the trained Diffusion Transformer.
        scheduler: diffusers' Euler solver as a saved pipeline names it; it must be the plain one,
            whose equal steps :meth:`solve` takes, along the circle if the decoder ``turns``.

    Raises:
        ValueError: the scheduler would take other steps, or the decoder was not made for the
            codec's tokens.
    """

    def __init__(self, codec: Codec, decoder: DiffusionDecoder, scheduler: Any) -> None:
        check_scheduler(scheduler)
        self.decoder = decoder
        self.conditioning = choose_conditioning(codec, decoder)
        self.vocoder = self.conditioning.vocoder

    def decode_spectrogram(
        self, codes: Tensor, seeds: list[int], num_steps: int | None = None
    ) -> Tensor:
        """Decode (B, k, T) codes and a seed per row -> (B, C, R, F) fine spectrogram."""
        return torch.cat(list(self.stream([codes], seeds, num_steps)), dim=-1)

    def stream(
        self, blocks: Iterable[Tensor], seeds: list[int], num_steps: int | None = None
    ) -> Iterator[Tensor]:
        """Decode consecutive (B, k, t) pieces of codes to pieces of fine log-mel spectrogram.

        The pieces' concatenation does not depend on how the codes were cut.

        Args:
            blocks: codes of the first 1 <= k <= K codebooks.
            seeds: one per row, of the decoder's noise.
            num_steps: solver steps, 1 to 16; the decoder's default if None.

        Raises:
            ValueError: num_steps out of range, or not as many seeds as rows.
        """
        return run([self.stage(seeds, num_steps)], blocks)

    def stage(self, seeds: list[int], num_steps: int | None = None) -> "FlowStage":
        """Make the stage of a stream that decodes codes to fine spectrogram."""
        steps = self.decoder.config.default_steps if num_steps is None else num_steps
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"num_steps must lie in [1, {MAX_STEPS}], got {steps}")
        return FlowStage(self, seeds, steps)

    def solve(self, window: Window, num_steps: int) -> Tensor:
        """Integrate the flow over one window: (B, C, M, F) normalized fine spectrogram."""
        steps = [NOISE_ANGLE * (1 - step / num_steps) for step in range(num_steps + 1)]
        angles = torch.tensor(steps, device=window.noise.device)
        num_books = torch.full((1,), window.num_books, device=angles.device)
        x = self.decoder.config.noise_temperature * window.noise
        for angle, turn in zip(angles, angles.diff(), strict=False):
            velocity = self.decoder(
                x, angle[None], window.coarse, window.latents, num_books, window.positions
            )
            x = take_step(x.float(), velocity, turn, self.decoder.config.turns).to(velocity.dtype)
        fine = self.decoder.config.detail_std * x
        return fine if window.coarse is None else window.coarse + fine

    def window(
        self,
        codes: Tensor,
        first: int,
        start: int,
        patches: int,
        seeds: list[int],
        known: Tensor | None = None,
    ) -> Window:
        """Return the conditions of one window.

        Args:
            codes: (B, k, t) of the window and of the context on either side.
            first: their first token, counted from the start of the piece, as is
            start: the window's first patch.
            patches: the window's length.
            seeds: one per row.
            known: (B, C, M, f) the first frames' coarse spectrogram, if it was computed before.
        """
        given = self.conditioning.window(codes, first, start, patches, known)
        noise = torch.stack([self._noise(seed, start, patches) for seed in seeds])
        frames, left = self.decoder.config.patch_frames, start - first
        image = self.conditioning.image(codes)
        if image.shape[2]:
            image = image[..., left * frames : (left + patches) * frames]
        else:
            image = image.new_zeros(*image.shape[:3], patches * frames)
        noise = noise.to(codes.device)
        return Window(given.coarse, given.latents, noise, codes.shape[1], image, given.positions)

    def _noise(self, seed: int, start: int, frames: int) -> Tensor:
        """Draw (C, M, frames * patch_frames) standard normal, keyed by seed and patch."""
        config = self.decoder.config
        shape = (config.channels, config.num_mels, config.patch_frames)
        draws = [
            torch.randn(shape, generator=generator(seed, "decoder", start + frame))
            for frame in range(frames)
        ]
        return torch.cat(draws, dim=-1)


@dataclass(frozen=True)
class SavedScheduler:
    """Stands for diffusers' scheduler of a saved pipeline where that is not to be imported.

    Attributes:
        config: of ``scheduler_config.json``.
    """

    config: Mapping[str, Any]

    @property
    def shift(self) -> float:
        """Shift of the time steps."""
        return self.config["shift"]


def euler_scheduler() -> Any:
    """Make the scheduler that a pipeline is saved with: diffusers' Euler solver, no time shift."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler()


def check_scheduler(scheduler: Any) -> None:
    """Raise ValueError unless a scheduler stands for Euler's method with equal steps.

    Another scheduler's steps would lie at angles that the decoder was not trained for.
    """
    kinds = [kind.__name__ for kind in type(scheduler).__mro__]
    if not isinstance(scheduler, SavedScheduler) and EULER not in kinds:
        raise ValueError(f"the scheduler must be a {EULER}, got {kinds[0]}")
    found = {**scheduler.config, "shift": scheduler.shift}
    for name, plain in EQUAL_STEPS.items():
        if found.get(name, plain) != plain:
            raise ValueError(
                f"the scheduler's {name} must be {plain}, got {found[name]}: "
                "the decoder is solved in equal steps"
            )


class FlowStage:
    """A stream of codes to a stream of fine log-mel spectrogram, window by window.

    Args:
        sampler: that paints the windows.
        seeds: one per row.
        num_steps: solver steps.
    """

    def __init__(self, sampler: FlowSampler, seeds: list[int], num_steps: int) -> None:
        self.sampler = sampler
        self.seeds = seeds
        self.num_steps = num_steps
        self.input = PieceBuffer()
        self.first = 0  # token that is kept
        self.start = 0  # of the window
        self.index = 0
        self.fade = CrossFade()
        self.known: Tensor | None = None  # coarse frames that the window shares with the last

    @torch.no_grad()
    def pull(self) -> Tensor | None:
        """Return the (B, C, R, f) frames that the next window makes final."""
        config, conditioning = self.sampler.decoder.config, self.sampler.conditioning
        reach, ended = conditioning.reach, self.input.ended
        span = window_span(self.index, self.start, config.window_frames, config.overlap_frames)
        ahead = min(reach, span.overlap)
        waiting = conditioning.count(self.first + len(self.input), ended) - self.start
        if waiting <= 0 or (waiting < span.frames + max(ahead, 1) and not ended):
            return None
        is_last = waiting <= span.frames
        patches = waiting if is_last else span.frames
        stop = conditioning.tokens_before(self.start + span.frames + ahead)
        codes = self.input.first(stop - self.first)
        check_rows(codes, self.seeds)
        window = self.sampler.window(codes, self.first, self.start, patches, self.seeds, self.known)
        fine = conditioning.denormalize(self.sampler.solve(window, self.num_steps))
        fine = torch.cat([fine, window.image], dim=2)
        if is_last:
            self.first += len(self.input)
            self.start += patches
            self.input.drop(len(self.input))
            return self.fade.join(fine, 0)
        hop = span.frames - span.overlap
        shared = span.overlap * config.patch_frames
        self.known = None
        if window.coarse is not None and ahead == reach:
            self.known = window.coarse[..., -shared:]
        first = conditioning.first_token(max(0, self.start + hop - reach))
        first = max(first, self.first)
        self.input.drop(first - self.first)
        self.first, self.start, self.index = first, self.start + hop, self.index + 1
        return self.fade.join(fine, shared)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the codes that later windows see, the window's place and the fade's open end."""
        place = torch.tensor([self.start - self.first, self.start, self.index])
        kept = {} if self.known is None else {"known": self.known.contiguous()}
        return {**self.input.state_dict(), **self.fade.state_dict(), **kept, "place": place}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.input.load_state_dict(state)
        self.fade.load_state_dict(state)
        left, self.start, self.index = state["place"].tolist()
        self.first = self.start - left
        self.known = state.get("known")


def window_span(index: int, start: int, window_frames: int, overlap_frames: int) -> WindowSpan:
    """Return window ``index`` of the grid, given where it starts."""
    frames = grown(FIRST_WINDOW, window_frames, index)
    return WindowSpan(start, frames, min(overlap_frames, frames // 3))


def window_grid(window_frames: int, overlap_frames: int) -> Iterator[WindowSpan]:
    """Yield the windows of the grid, each from where its overlap with the last begins.

    Args:
        window_frames: token frames of the longest windows.
        overlap_frames: token frames that two of those share; shorter windows share a
            third of theirs at most.
    """
    start = 0
    for index in itertools.count():
        span = window_span(index, start, window_frames, overlap_frames)
        yield span
        start += span.frames - span.overlap


class CrossFade:
    """Joins windows that overlap: the middle third of the overlap fades, the rest is dropped."""

    def __init__(self) -> None:
        self.overlap = 0  # frames shared with the window to come
        self.tail: Tensor | None = None  # its last two thirds, which are not final yet

    def join(self, window: Tensor, overlap: int) -> Tensor:
        """Take (..., F) of the next window and return the frames that are now final.

        Args:
            window: begins with the frames that the last call shared.
            overlap: how many frames at its end the next window shares; 0 for the last window.
        """
        if self.tail is not None:
            rise = fade_in(self.overlap).to(window)
            begin = self.overlap - self.tail.shape[-1]
            rise, later = rise[begin:], window[..., begin : self.overlap]
            head = self.tail * (1 - rise) + later * rise
            window = torch.cat([head, window[..., self.overlap :]], dim=-1)
        if overlap == 0:
            return window
        final = window.shape[-1] - overlap + int((fade_in(overlap) == 0).sum())
        self.tail, self.overlap = window[..., final:], overlap
        return window[..., :final]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the open end."""
        kept = {} if self.tail is None else {"tail": self.tail.contiguous()}
        return {**kept, "overlap": torch.tensor(self.overlap)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.tail = state.get("tail")
        self.overlap = int(state["overlap"])


def fade_in(overlap: int) -> Tensor:
    """Make (overlap,) weights of the later window: 0 in the first third, 1 in the last."""
    ramp = torch.arange(overlap) + 0.5 - overlap / 3
    return (ramp / (overlap / 3)).clamp(0, 1)


def check_rows(codes: Tensor, seeds: list[int]) -> None:
    """Raise unless there is one seed per row."""
    if codes.shape[0] != len(seeds):
        raise ValueError(f"seeds must be one per row, got {len(seeds)} for {codes.shape[0]} rows")
