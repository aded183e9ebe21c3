"""What one frame of the prior reads from memory, and how fast this machine copies as much."""

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prior.model import Prior

UNREAD = ("embedding.", "start", "null_text", "text_norm.", "book_offsets", "depth.embeddings.")


def bytes_per_frame(prior: "Prior", num_rows: int, num_frames: int, num_tokens: int) -> int:
    """The mean over a generation of what one frame reads: weights, text and earlier frames.

    Args:
        prior: quantized or not.
        num_rows: rows of the batch; a guided item has two.
        num_frames: frames written, from none.
        num_tokens: of the text.
    """
    weights = 0
    for name, tensor in (*prior.named_parameters(), *prior.named_buffers()):
        if name.startswith(UNREAD) or ".key_value." in name:
            continue  # a row or nothing of it is read
        passes = prior.num_codebooks - 1 if name.startswith("depth.blocks.") else 1
        weights += tensor.nbytes * passes
    config = prior.config
    window = min(config.sliding_window or num_frames, num_frames)
    seen = window * (1 - window / (2 * num_frames))  # growing up to the window, then constant
    layers = config.num_layers if config.backbone == "transformer" else config.backbone == "lstm"
    positions = layers * seen + config.num_layers * num_tokens
    return weights + round(num_rows * positions * 2 * config.width * 4)


def copy_bandwidth(num_bytes: int, repeats: int = 9) -> float:
    """Bytes read and written per second when ``num_bytes`` are copied, the median of ``repeats``.

    With PyTorch's threads, into memory that is already there.
    """
    import torch

    source = torch.ones(num_bytes // 4)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / statistics.median(seconds[1:])
