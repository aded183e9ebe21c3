"""From tokens to a fine spectrogram of any length: windows on a fixed grid, a few solver steps."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.flow import velocity
from diffusers import FlowMatchEulerDiscreteScheduler

MAX_STEPS = 16


@dataclass
class Window:
    """The conditions of one window; T token frames, F = T * patch_frames."""

    coarse: Tensor  # (B, C, M, F) normalised
    latents: Tensor  # (B, T, latent_dim)
    noise: Tensor  # (B, C, M, F) standard normal
    num_books: int


class FlowSampler:
    """Decodes codes to a fine log-mel spectrogram, window by window.

    Windows lie on a fixed grid of token frames. The noise of a frame is keyed by the frame, so
    neighbouring windows see the same noise and the same conditions where they overlap and paint
    nearly the same there; the outer thirds of the overlap, where one of them lacks context, are
    dropped and the middle third is cross-faded.

    Args:
        codec: whose tokens are decoded.
        decoder: the trained Diffusion Transformer.
        scheduler: diffusers' Euler solver; a fresh copy is made per call.
    """

    def __init__(
        self,
        codec: SpectralCodec,
        decoder: DiffusionDecoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        self.codec = codec
        self.decoder = decoder
        self.scheduler = scheduler

    def decode_spectrogram(
        self, codes: Tensor, seeds: list[int], num_steps: int | None = None
    ) -> Tensor:
        """(B, k, T) codes and a seed per row -> (B, C, M, F) fine natural-log mel magnitudes."""
        return torch.cat(list(self.stream([codes], seeds, num_steps)), dim=-1)

    @torch.no_grad()
    def stream(
        self, blocks: Iterable[Tensor], seeds: list[int], num_steps: int | None = None
    ) -> Iterator[Tensor]:
        """Decode consecutive (B, k, t) pieces of codes to pieces of fine log-mel spectrogram.

        The pieces' concatenation does not depend on how the codes were cut.

        Args:
            blocks: codes of the first 1 <= k <= K books.
            seeds: one per row, of the decoder's noise.
            num_steps: solver steps, 1 to 16; the decoder's default if None.

        Raises:
            ValueError: num_steps out of range, or not as many seeds as rows.
        """
        steps = self.decoder.config.default_steps if num_steps is None else num_steps
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"num_steps must lie in [1, {MAX_STEPS}], got {steps}")
        fade = CrossFade(self.decoder.config.overlap_frames * self.decoder.config.patch_frames)
        for window, is_last in self._windows(blocks, seeds):
            fine = self.codec.denormalise(self.solve(window, steps))
            yield fade.join(fine, is_last)

    def solve(self, window: Window, num_steps: int) -> Tensor:
        """Integrate the flow over one window: (B, C, M, F) normalised fine spectrogram."""
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        sigmas = torch.linspace(1.0, 1.0 / num_steps, num_steps).tolist()
        scheduler.set_timesteps(sigmas=sigmas, device=window.coarse.device)
        B = window.coarse.shape[0]
        books = torch.full((B,), window.num_books, device=window.coarse.device)
        x = window.coarse + self.decoder.config.noise_scale * window.noise
        for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
            t = (1 - sigma).expand(B).to(x)
            clean = self.decoder(x, t, window.coarse, window.latents, books)
            # the scheduler's time runs from noise (1) to data (0): its derivative is -velocity
            x = scheduler.step(-velocity(clean, x, t), timestep, x, return_dict=False)[0]
        return x

    def _windows(self, blocks: Iterable[Tensor], seeds: list[int]) -> Iterator[tuple[Window, bool]]:
        """Cut a stream of codes in overlapping windows; the flag marks the last one."""
        size = self.decoder.config.window_frames
        hop = size - self.decoder.config.overlap_frames
        halo = self.codec.decoder_reach
        start, left = 0, 0  # of the window, and how many codes are kept before it
        codes: Tensor | None = None
        for block in blocks:
            check_rows(block, seeds)
            codes = block if codes is None else torch.cat([codes, block], dim=-1)
            while codes.shape[-1] > left + size + halo:
                yield self._window(codes[..., : left + size + halo], left, start, seeds), False
                codes, left, start = self._advance(codes, left, start, hop)
        while codes is not None and codes.shape[-1] > left + size:
            yield self._window(codes[..., : left + size + halo], left, start, seeds), False
            codes, left, start = self._advance(codes, left, start, hop)
        if codes is not None:
            yield self._window(codes, left, start, seeds), True

    def _advance(self, codes: Tensor, left: int, start: int, hop: int) -> tuple[Tensor, int, int]:
        keep = min(self.codec.decoder_reach, left + hop)
        return codes[..., left + hop - keep :], keep, start + hop

    def _window(self, codes: Tensor, left: int, start: int, seeds: list[int]) -> Window:
        """Conditions of the window that begins ``left`` frames into ``codes``."""
        frames = min(self.decoder.config.window_frames, codes.shape[-1] - left)
        patch = self.codec.config.patch_frames
        latents = self.codec.quantizer.decode(codes)
        coarse = self.codec.normalise(self.codec.reconstruct(latents))
        noise = torch.stack([self._noise(seed, start, frames) for seed in seeds])
        return Window(
            coarse[..., left * patch : (left + frames) * patch],
            latents[:, left : left + frames],
            noise.to(coarse.device),
            codes.shape[1],
        )

    def _noise(self, seed: int, start: int, frames: int) -> Tensor:
        """(C, M, frames * patch_frames) standard normal, keyed by seed and token frame."""
        config = self.decoder.config
        shape = (config.channels, config.num_mels, config.patch_frames)
        draws = [
            torch.randn(shape, generator=generator(seed, "decoder", start + frame))
            for frame in range(frames)
        ]
        return torch.cat(draws, dim=-1)


def euler_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The solver that the decoder is trained and shipped with: diffusers' Euler, no time shift."""
    return FlowMatchEulerDiscreteScheduler()


class CrossFade:
    """Joins windows that overlap: the middle third of the overlap fades, the rest is dropped.

    Args:
        overlap: frames shared by neighbours.
    """

    def __init__(self, overlap: int) -> None:
        ramp = torch.arange(overlap) + 0.5 - overlap / 3
        self.rise = (ramp / (overlap / 3)).clamp(0, 1)
        self.overlap = overlap
        self.tail: Tensor | None = None

    def join(self, window: Tensor, is_last: bool) -> Tensor:
        """(..., F) of the next window -> the frames that are now final."""
        if self.tail is not None:
            rise = self.rise.to(window)
            head = self.tail * (1 - rise) + window[..., : self.overlap] * rise
            window = torch.cat([head, window[..., self.overlap :]], dim=-1)
        if is_last:
            return window
        self.tail = window[..., -self.overlap :]
        return window[..., : -self.overlap]


def check_rows(codes: Tensor, seeds: list[int]) -> None:
    """Raise unless there is one seed per row."""
    if codes.shape[0] != len(seeds):
        raise ValueError(f"seeds must be one per row, got {len(seeds)} for {codes.shape[0]} rows")


def check_conditions(codec: SpectralCodec, decoder: DiffusionDecoder) -> None:
    """Raise ValueError unless the decoder was made for what the codec's tokens give it."""
    for name in ("channels", "num_mels", "patch_frames", "latent_dim", "num_codebooks"):
        if decoder.config[name] != codec.config[name]:
            raise ValueError(
                f"{name} differs: decoder {decoder.config[name]}, codec {codec.config[name]}"
            )
