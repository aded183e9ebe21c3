"""The prior's training loss: nats per code, codebook by codebook."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior.condition import Condition


class PriorBatch(NamedTuple):
    """A batch of token clips with what conditions them.

    Attributes:
        codes: (B, K, T) int64 in [0, V); padded frames hold any valid code.
        frame_mask: (B, T) bool, true at the clip's frames, which come before its padding; every
            row has at least one.
        ends: (B,) bool, true where the piece ends with the clip: the end is then a target right
            after the last frame.
        condition: text and plan; a row without text trains the unconditional prior.
        depth_frames: (B, N) int64, the frames that train the later codebooks; None for all.
    """

    codes: Tensor
    frame_mask: Tensor
    ends: Tensor
    condition: Condition
    depth_frames: Tensor | None = None


@dataclass(frozen=True)
class PriorLoss:
    """The loss and its parts."""

    loss: Tensor  # scalar float32, the mean of ``nats_per_book``, to be differentiated
    nats_per_book: Tensor  # (K,) float32, detached: the cross-entropy of each codebook


def fill_loss(model: nn.Module, batch: PriorBatch, first_known: int) -> PriorLoss:
    """Compute the nats per code of the frames before ``first_known``, given those after it.

    All frames before the known ones are predicted: a prefix is what a filling call is given of
    them, so no place for it has to be drawn. The padding of short clips counts as known silence of
    code 0; frames that train the later codebooks are folded into the predicted ones.
    """
    codes, future = batch.codes[..., :first_known], batch.codes[..., first_known:]
    mask = batch.frame_mask[:, :first_known]
    frames = None if batch.depth_frames is None else batch.depth_frames % first_known
    output = model(codes, batch.condition, frames, future)
    first = row_means(cross_entropy(output.first_logits, codes[:, 0]), mask)
    return mean_over_books(first, output.depth_logits, codes, mask, frames)


def prior_loss(model: nn.Module, batch: PriorBatch) -> PriorLoss:
    """Compute the cross-entropy in nats: the mean over codebooks of that over rows' means.

    Every row weighs the same whatever its length, so that the mean over processes with equally
    many rows is the mean over all their rows: two processes train as one with twice the batch.
    The first codebook's mean runs over a row's frames, and its end where it has one; a later
    codebook's over those of ``depth_frames`` that are not padding (a row without any counts as
    zero; :func:`draw_depth_frames` never draws one).

    Args:
        model: a ``Prior``, wrapped for distributed training or not; only its forward is called.
        batch: the clips.
    """
    codes, mask = F.pad(batch.codes, (0, 1)), F.pad(batch.frame_mask, (0, 1))  # a frame for the end
    depth_frames = batch.depth_frames
    output = model(codes, batch.condition, depth_frames)
    targets, first_mask = first_book_targets(codes, mask, batch.ends, output.first_logits.shape[-1])
    first = row_means(cross_entropy(output.first_logits, targets), first_mask)
    return mean_over_books(first, output.depth_logits, codes, mask, depth_frames)


def mean_over_books(
    first: Tensor, depth_logits: Tensor, codes: Tensor, mask: Tensor, depth_frames: Tensor | None
) -> PriorLoss:
    """Join the first codebook's nats with those of the later ones.

    Args:
        first: (B,) the first codebook's nats, a mean per row.
        depth_logits: (B, K - 1, N, V) of the later codebooks.
        codes: (B, K, T).
        mask: (B, T), true at frames that count.
        depth_frames: (B, N), the frames of ``depth_logits``; None for all.
    """
    nats = [first]
    for k, logits in enumerate(depth_logits.unbind(1), start=1):
        book, book_mask = codes[:, k], mask
        if depth_frames is not None:
            book, book_mask = book.gather(1, depth_frames), mask.gather(1, depth_frames)
        nats.append(row_means(cross_entropy(logits, book), book_mask))
    nats_per_book = torch.stack(nats, dim=1).mean(dim=0)  # (K,)
    return PriorLoss(nats_per_book.mean(), nats_per_book.detach())


def first_book_targets(
    codes: Tensor, frame_mask: Tensor, ends: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return codebook 0 with the end (the last class) after the last frame of rows that end.

    Args:
        codes: (B, K, T) int64, T one more than the longest clip.
        frame_mask: (B, T) bool.
        ends: (B,) bool.
        num_classes: V + 1.

    Returns:
        (B, T) int64 targets and (B, T) bool, true where a target counts.
    """
    positions = torch.arange(codes.shape[-1], device=codes.device)
    at_end = (positions == frame_mask.sum(dim=1, keepdim=True)) & ends[:, None]
    return codes[:, 0].masked_fill(at_end, num_classes - 1), frame_mask | at_end


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute (B, T) nats in float32 from (B, T, V) logits and (B, T) targets."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return losses.view_as(targets)


def row_means(values: Tensor, mask: Tensor) -> Tensor:
    """Average each row of (B, T) over the true places of ``mask``; 0 where there are none."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def draw_depth_frames(frame_mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose the frames that train the later codebooks: the depth head is nearly free then (CSM).

    Args:
        frame_mask: (B, T) bool on the CPU, at least one true in each row.
        count: N, frames per row.
        generator: a CPU generator.

    Returns:
        (B, N) int64, drawn uniformly from each row's frames, with replacement.
    """
    return torch.multinomial(frame_mask.float(), count, replacement=True, generator=generator)
