"""What the decoder paints from: the codec's coarse spectrogram, or embedded tokens of any codec.

Both kinds count time in patches, of ``patch_frames`` spectrogram frames each. The tokens of a
``SpectralCodec`` come at that rate; any other codec's are embedded and resampled to it, the
arrangement called token-to-wave (CosyVoice, arXiv 2407.05407).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from codec.protocols import Codec
from codec.spectral_codec import SpectralCodec
from codec.vocoder import GriffinLim
from decoder.diffusion_decoder import DiffusionDecoder

ROUNDING = 1e-6
LEVELS_MEAN = -5.0
LEVELS_STD = 2.5
"""Scale the log-mel values of a decoder of embedded tokens; defaults of ``SpectralCodec``."""


@dataclass
class PaintedFrom:
    """Hold what the decoder reads of consecutive patches; T patches, F = T * patch_frames.

    Attributes:
        coarse: (B, C, M, F) normalized, to which the painted detail is added; None for nothing.
        latents: (B, T, latent_dim) vectors of the tokens, or (B, k, N) int64 codes to be embedded.
        positions: (B, T * slots) in tokens, where the codes are read; None for vectors.
    """

    coarse: Tensor | None
    latents: Tensor
    positions: Tensor | None = None


class Conditioning(Protocol):
    """From codes to what the decoder reads, and from what it paints to sound."""

    vocoder: GriffinLim
    reach: int
    """Patches on either side of a window that its conditions depend on."""
    stereo_bands: int
    """Bands of the stereo image in the spectrogram that is painted; 0 for left and right."""

    def count(self, num_tokens: int, ended: bool) -> int:
        """Count the patches that so many tokens of a piece from its start on determine."""

    def first_token(self, patch: int) -> int:
        """Return the first token that a patch and those after it need."""

    def tokens_before(self, patch: int) -> int:
        """Count the tokens that the patches before this one need."""

    def crop(self, codes: Tensor, start: int, patches: int) -> tuple[Tensor, Tensor]:
        """Cut (K, N) codes of a clip to patches of it: (K, n) codes, and positions in them."""

    def read(self, codes: Tensor, positions: Tensor, num_books: Tensor | None) -> PaintedFrom:
        """Return what the decoder reads of (B, k, n) codes and their positions."""

    def window(
        self, codes: Tensor, first: int, start: int, patches: int, known: Tensor | None = None
    ) -> PaintedFrom:
        """Return what the decoder reads of a window, of codes that begin with token ``first``.

        ``known`` is the coarse spectrogram of the window's first frames, if it was decoded before.
        """

    def image(self, codes: Tensor) -> Tensor:
        """Decode the rows of the stereo image, (B, C, 2 N, F)."""

    def normalize(self, spectrogram: Tensor) -> Tensor:
        """Scale log-mel to zero mean and unit variance."""

    def denormalize(self, spectrogram: Tensor) -> Tensor:
        """Undo :meth:`normalize`."""


class CoarseConditioning:
    """Paint over the coarse spectrogram that a ``SpectralCodec`` decodes; a token is a patch."""

    def __init__(self, codec: SpectralCodec) -> None:
        self.codec = codec
        self.reach, self.vocoder = codec.decoder_reach, codec.vocoder
        self.stereo_bands = int(codec.config.stereo_bands)
        self.image = codec.decode_image
        self.normalize, self.denormalize = codec.normalize, codec.denormalize

    def count(self, num_tokens: int, ended: bool) -> int:
        """Count a patch a token."""
        return num_tokens

    def first_token(self, patch: int) -> int:
        """Return the patch's number."""
        return patch

    def tokens_before(self, patch: int) -> int:
        """Return the patch's number."""
        return patch

    def crop(self, codes: Tensor, start: int, patches: int) -> tuple[Tensor, Tensor]:
        """Cut, and pad with zeros past the clip's end; there are no positions."""
        crop = codes[:, start : start + patches]
        return pad(crop, (0, patches - crop.shape[-1])), torch.zeros(0)

    def read(self, codes: Tensor, positions: Tensor, num_books: Tensor | None) -> PaintedFrom:
        """Decode the coarse spectrogram."""
        latents = self.codec.decode_latents(codes, num_books)
        return PaintedFrom(self.codec.normalize(self.codec.reconstruct(latents)), latents)

    def window(
        self, codes: Tensor, first: int, start: int, patches: int, known: Tensor | None = None
    ) -> PaintedFrom:
        """Decode what is not known of the coarse spectrogram, and cut its context off."""
        latents, frames = self.codec.decode_latents(codes), self.codec.config.patch_frames
        left, stop = start - first, start - first + patches
        place = left if known is None else left + known.shape[-1] // frames
        begin = max(0, place - self.reach)
        behind = max(0, latents.shape[1] - stop)
        levels = self.codec.reconstruct(latents[:, begin:], place - begin, behind)
        coarse = self.codec.normalize(levels)
        if known is not None:
            coarse = torch.cat([known, coarse], dim=-1)
        return PaintedFrom(coarse, latents[:, left:stop])


class TokenConditioning:
    """Paint from nothing but embedded tokens, of a codec of any rate.

    A patch reads ``slots`` places between tokens, evenly spaced, by linear interpolation. There are
    as many as tokens begin in a patch at most, so that none is passed over.

    Args:
        decoder: with ``codebook_size`` and ``token_rate``.
    """

    reach = 0
    stereo_bands = 0

    def __init__(self, decoder: DiffusionDecoder) -> None:
        assert decoder.vocoder is not None
        self.vocoder, self.slots = decoder.vocoder, decoder.slots
        self.tokens_per_patch = decoder.tokens_per_patch
        self.patch_frames = int(decoder.config.patch_frames)
        self.channels = int(decoder.config.channels)

    def count(self, num_tokens: int, ended: bool) -> int:
        """Count the patches that the tokens determine, or at the end all that they last."""
        if ended:
            return math.ceil(num_tokens / self.tokens_per_patch - ROUNDING)
        known = (num_tokens - 0.5) / self.tokens_per_patch + 0.5 / self.slots
        return max(0, math.floor(known + ROUNDING))

    def first_token(self, patch: int) -> int:
        """Return the token at or before the patch's first place."""
        return max(0, math.floor(self._position(patch * self.slots) + ROUNDING))

    def tokens_before(self, patch: int) -> int:
        """Count the tokens up to the one at or after the last place before the patch."""
        return max(0, math.ceil(self._position(patch * self.slots - 1) - ROUNDING) + 1)

    def _position(self, slot: int) -> float:
        """Return the place of a slot in tokens, 0 in the middle of the first."""
        return (slot + 0.5) / self.slots * self.tokens_per_patch - 0.5

    def _positions(self, first: int, start: int, patches: int, num_tokens: int) -> Tensor:
        """Place the slots of patches among tokens from ``first`` on, of which there are so many."""
        slots = range(start * self.slots, (start + patches) * self.slots)
        places = torch.tensor([self._position(slot) - first for slot in slots])
        return places.clamp(0, num_tokens - 1)

    def crop(self, codes: Tensor, start: int, patches: int) -> tuple[Tensor, Tensor]:
        """Cut, as many codes for every start; past the clip's end its last token goes on."""
        first = min(self.first_token(start), codes.shape[-1] - 1)
        length = math.ceil(patches * self.tokens_per_patch) + 2
        crop = codes[:, first : first + length]
        places = self._positions(first, start, patches, crop.shape[-1])
        return pad(crop, (0, length - crop.shape[-1])), places

    def read(self, codes: Tensor, positions: Tensor, num_books: Tensor | None) -> PaintedFrom:
        """Leave the embedding to the decoder, which learns it."""
        return PaintedFrom(None, codes, positions)

    def window(
        self, codes: Tensor, first: int, start: int, patches: int, known: Tensor | None = None
    ) -> PaintedFrom:
        """Place the window's slots among its tokens."""
        places = self._positions(first, start, patches, codes.shape[-1]).to(codes.device)
        return PaintedFrom(None, codes, places.expand(codes.shape[0], -1))

    def image(self, codes: Tensor) -> Tensor:
        """Return no rows: left and right are painted."""
        return torch.zeros(codes.shape[0], self.channels, 0, 0, device=codes.device)

    def normalize(self, spectrogram: Tensor) -> Tensor:
        """Scale by what log-mel values are about."""
        return (spectrogram - LEVELS_MEAN) / LEVELS_STD

    def denormalize(self, spectrogram: Tensor) -> Tensor:
        """Undo :meth:`normalize`."""
        return spectrogram * LEVELS_STD + LEVELS_MEAN


def choose_conditioning(codec: Codec, decoder: DiffusionDecoder) -> Conditioning:
    """Return what leads from the codec's tokens to the decoder.

    Raises:
        ValueError: the decoder was not made for the codec's tokens.
    """
    check_conditions(codec, decoder)
    if decoder.config.codebook_size:
        return TokenConditioning(decoder)
    assert isinstance(codec, SpectralCodec)
    return CoarseConditioning(codec)


def check_conditions(codec: Codec, decoder: DiffusionDecoder) -> None:
    """Raise ValueError unless the decoder was made for what the codec's tokens give it."""
    found: dict[str, float]
    if decoder.config.codebook_size:
        found = {"codebook_size": codec.codebook_size, "token_rate": codec.frame_rate}
    elif isinstance(codec, SpectralCodec):
        found = {"channels": codec.spectrogram_channels}
        found |= {name: codec.config[name] for name in ("num_mels", "patch_frames", "latent_dim")}
    else:
        raise ValueError(
            "a DiffusionDecoder without codebook_size needs a SpectralCodec, got "
            f"{type(codec).__name__}: train one with model.codebook_size={codec.codebook_size} "
            f"and model.token_rate={codec.frame_rate}"
        )
    for name, value in {**found, "num_codebooks": codec.num_codebooks}.items():
        if not math.isclose(decoder.config[name], value, rel_tol=1e-6):
            raise ValueError(f"{name} differs: decoder {decoder.config[name]}, codec {value}")
