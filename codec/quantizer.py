"""Residual vector quantization: training by vector-quantize-pytorch, decoding in ten lines."""

from typing import Any

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn

DEAD_BELOW = 0.1
"""Vectors per update, on average, that an entry must code to stay. Higher (the library's 2), small
batches replace entries that are merely rare, in every update anew."""


class ResidualQuantizer(nn.Module):
    """K nested codebooks, each coding what the books before it left over.

    Codebooks follow the data of all processes by exponential moving averages and unused entries are
    replaced. In training every row is coded by a number of books of its own, so that any first k of
    them decode to something useful.

    Args:
        dim: numbers per vector, D.
        num_codebooks: K.
        codebook_size: entries per book, V.
    """

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.dim = dim
        self.vq: Any = StoredBooks(dim, num_codebooks, codebook_size)

    def prepare_training(self) -> None:
        """Hand the codebooks, the same tensors, to the library, whose import takes seconds."""
        if not isinstance(self.vq, StoredBooks):
            return
        from vector_quantize_pytorch import ResidualVQ

        stored: Any = self.vq.layers
        self.vq = ResidualVQ(
            dim=self.dim,
            num_quantizers=self.num_codebooks,
            codebook_size=self.codebook_size,
            kmeans_init=True,
            kmeans_iters=20,
            decay=0.99,
            threshold_ema_dead_code=DEAD_BELOW,
            commitment_weight=1.0,
        ).to(stored[0]._codebook.embed.device)
        self.vq.train(self.training)
        for layer, kept in zip(self.vq.layers, stored, strict=True):
            layer._codebook._buffers.update(kept._codebook._buffers)
            # the library decides when it is built, which is too early
            layer._codebook.all_reduce_fn = sum_over_processes
            layer._codebook.register_forward_hook(share_codebook)

    @property
    def is_initialized(self) -> bool:
        """Tell whether the codebooks hold data rather than zeros."""
        return all(bool(layer._codebook.initted.item()) for layer in self.vq.layers)

    @torch.no_grad()
    def initialize(self, latents: Tensor) -> None:
        """Set every book by k-means; equal vectors give equal books, in every process.

        Args:
            latents: (N, D) vectors of many batches, at least ``codebook_size`` of them.

        Raises:
            ValueError: fewer vectors than entries.
        """
        if latents.shape[0] < self.codebook_size:
            raise ValueError(
                f"k-means needs at least codebook_size={self.codebook_size} vectors, "
                f"got {latents.shape[0]}"
            )
        self.prepare_training()
        was_training = self.training
        self.train()
        books: Any = [layer._codebook for layer in self.vq.layers]
        for book in books:
            book.all_reduce_fn = lambda statistics: None  # every process has all vectors
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.vq(latents[None].float())
        for book in books:
            book.all_reduce_fn = sum_over_processes
        self.train(was_training)

    def forward(self, latents: Tensor, num_books: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Quantize for training, gradients passed straight through.

        Args:
            latents: (B, T, D) float32.
            num_books: (B,) int64 in [1, K], how many books code each row; all if None.

        Returns:
            quantized (B, T, D) and the scalar commitment loss, the mean over the books.
        """
        self.prepare_training()
        _, _, losses, entries = self.vq(latents, return_all_codes=True)  # entries (K, B, T, D)
        if num_books is not None:
            used = torch.arange(self.num_codebooks, device=latents.device)[:, None] < num_books
            entries = entries * used[..., None, None]
        return latents + (entries.sum(0) - latents).detach(), losses.mean()

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """Quantize (B, T, D) latents -> (B, K, T) int64 codes, nearest entry book by book."""
        residual = latents.float()
        codes = []
        for book in self.codebooks():
            index = torch.cdist(residual, book.expand(residual.shape[0], -1, -1)).argmin(-1)
            residual = residual - book[index]
            codes.append(index)
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor, num_books: Tensor | None = None) -> Tensor:
        """Sum the entries that codes name.

        Args:
            codes: (B, k, T) int64 codes of the first k <= K books.
            num_books: (B,) int64, how many of them to use in each row; all if None.

        Returns:
            (B, T, D) vectors.
        """
        entries = torch.stack(
            [book[codes[:, index]] for index, book in enumerate(self.codebooks()[: codes.shape[1]])]
        )  # (k, B, T, D)
        if num_books is not None:
            used = torch.arange(codes.shape[1], device=codes.device)[:, None] < num_books
            entries = entries * used[..., None, None]
        return entries.sum(0)

    def codebooks(self) -> list[Tensor]:
        """Return the K books, (V, D) each."""
        return [rearrange(layer._codebook.embed, "1 v d -> v d") for layer in self.vq.layers]


class StoredBooks(nn.Module):
    """Hold the codebooks under the names that vector-quantize-pytorch gives them."""

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Module() for _ in range(num_codebooks))
        for layer in self.layers:
            book = layer._codebook = nn.Module()
            book.register_buffer("initted", torch.tensor(False))
            book.register_buffer("cluster_size", torch.ones(1, codebook_size))
            book.register_buffer("embed_avg", torch.zeros(1, codebook_size, dim))
            book.register_buffer("embed", torch.zeros(1, codebook_size, dim))


def sum_over_processes(statistics: Tensor) -> None:
    """Add up, in place, what each process counted of its share of the batch."""
    if dist.is_initialized():
        dist.all_reduce(statistics)


def share_codebook(codebook: nn.Module, *_: object) -> None:
    """Give every process the first one's codebook: each replaces unused entries by its own data."""
    if codebook.training and dist.is_initialized():
        for statistics in codebook.buffers():
            dist.broadcast(statistics, src=0)
