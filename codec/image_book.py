"""One codebook of whole stereo images: what a token frame says of left and right."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.k_means import k_means, nearest

DIFFERENCE_SCALE_DB = 6.0
ANGLE_SCALE = 0.6
"""Level differences (dB) and angles (rad) that weigh alike: their spread in recordings."""
QUIET_NATS = 5.756
"""50 dB: so far below a frame's loudest band the image of a band hardly counts."""
LEAST_WEIGHT = 0.1
ITERATIONS = 15


class ImageBook(nn.Module):
    """Vector quantization of stereo images, nearest by what is heard.

    Entry 0 is mono, exactly, so mono recordings stay mono. The others are the centers that weighted
    k-means finds; a band counts by its level.

    Args:
        num_bands: of the image, N.
        codebook_size: entries, V.
        angle_weight: of angles beside level differences: what coherence depends on.
        error_feedback: share of a frame's error that the next frame's code makes good, so that
            errors change rather than last (codec/quantizer.py).
    """

    scale: Tensor
    entries: Tensor
    is_set: Tensor

    def __init__(
        self,
        num_bands: int,
        codebook_size: int,
        error_feedback: float = 0.0,
        angle_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.error_feedback = error_feedback
        self.angle_weight = angle_weight
        scale = torch.tensor([DIFFERENCE_SCALE_DB, ANGLE_SCALE]).repeat_interleave(num_bands)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("entries", torch.zeros(codebook_size, 2 * num_bands))
        self.register_buffer("is_set", torch.tensor(False))

    @torch.no_grad()
    def encode(self, image: Tensor, levels: Tensor, errors: list[Tensor] | None = None) -> Tensor:
        """Choose the nearest entries.

        Args:
            image: (B, 2 N, T) level differences in dB, then coherence angles.
            levels: (B, M, T) natural-log mel magnitudes of the same frames.
            errors: a list that carries the error from one stretch of a stream to the next, changed
                in place; empty before the first.

        Returns:
            (B, T) int64.
        """
        vectors, weights = self._vectors(image), self._weights(levels)
        entries = self.entries / self.scale
        errors = [] if errors is None else errors
        error = errors[0] if errors else torch.zeros_like(vectors[:, :1])
        at_once = 1 if self.error_feedback else max(1, vectors.shape[1])
        codes = []
        for frames, weight in zip(
            vectors.split(at_once, dim=1), weights.split(at_once, dim=1), strict=True
        ):
            wanted = frames
            if self.error_feedback:
                is_stereo = frames.any(dim=-1, keepdim=True)  # what is mono stays so
                wanted = (frames + self.error_feedback * error) * is_stereo
            index = nearest(wanted.flatten(0, 1), weight.flatten(0, 1), entries)
            codes.append(index.view(frames.shape[:2]))
            if self.error_feedback:
                error = wanted - entries[codes[-1]]
        errors[:] = [error]
        return torch.cat(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Decode (B, T) codes -> (B, 2 N, T) image."""
        return self.entries[codes].transpose(1, 2)

    @torch.no_grad()
    def initialize(self, image: Tensor, levels: Tensor, seed: int = 0) -> None:
        """Set the entries by weighted k-means.

        Args:
            image: (B, 2 N, T) of many crops.
            levels: (B, M, T) of the same.
            seed: of the first centers.

        Raises:
            ValueError: fewer frames than entries.
        """
        vectors = self._vectors(image).flatten(0, 1)
        weights = self._weights(levels).flatten(0, 1)
        size = len(self.entries) - 1
        if len(vectors) < size:
            raise ValueError(
                f"k-means needs at least codebook_size - 1 = {size} images, got {len(vectors)}"
            )
        draws = torch.Generator().manual_seed(seed)
        centers = k_means(vectors, size, ITERATIONS, draws, weights)
        self.entries[1:] = centers * self.scale
        self.is_set.fill_(True)

    def _vectors(self, image: Tensor) -> Tensor:
        return image.transpose(1, 2) / self.scale  # (B, T, 2 N)

    def _weights(self, levels: Tensor) -> Tensor:
        differences, angles = band_weights(levels, len(self.scale) // 2).chunk(2, dim=-1)
        return torch.cat([differences, self.angle_weight * angles], dim=-1)  # (B, T, 2 N)


def band_weights(levels: Tensor, num_bands: int) -> Tensor:
    """Weigh the bands' images: in full in a frame's loudest band, ever less below it.

    Args:
        levels: (B, M, T) natural-log mel magnitudes.
        num_bands: N.

    Returns:
        (B, T, 2 N) from 0.1 to 1.
    """
    bands = F.adaptive_avg_pool1d(levels.transpose(1, 2), num_bands)
    below = (bands.amax(-1, keepdim=True) - bands) / QUIET_NATS
    return (1 - below).clamp(min=LEAST_WEIGHT).repeat(1, 1, 2)
