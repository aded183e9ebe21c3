"""Residual vector quantization: nested codebooks that follow the data."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from codec.k_means import k_means

DECAY = 0.99
"""Share of the averages that an update keeps; the entries follow the averages."""
SMOOTHING = 1e-5
DEAD_BELOW = 0.1
"""Vectors per update, on average, that an entry must code to stay. With 2, small batches replace
entries that are merely rare, in every update anew."""
ITERATIONS = 20
"""Rounds of k-means that set a book."""


class ResidualQuantizer(nn.Module):
    """K nested codebooks, each coding what the books before it left over.

    Codebooks follow the data of all processes by exponential moving averages (van den Oord et al.
    2017, appendix A.1) and unused entries are replaced. In training every row is coded by a number
    of books of its own, so that any first k of them decode to something useful.

    With ``error_feedback`` the books after the first also code that share of the error which the
    same number of books left in the frame before. Errors then change from frame to frame rather
    than last, as in noise shaping (Spang and Schultheiss 1962), and a decoder that sees several
    frames averages them away.

    Args:
        dim: numbers per vector, D.
        num_codebooks: K.
        codebook_size: entries per book, V.
        error_feedback: share of the error, at least 0 and below 1.
    """

    def __init__(
        self, dim: int, num_codebooks: int, codebook_size: int, error_feedback: float = 0.0
    ) -> None:
        super().__init__()
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.dim = dim
        self.error_feedback = error_feedback
        self.vq = StoredBooks(dim, num_codebooks, codebook_size)

    @property
    def is_initialized(self) -> bool:
        """Tell whether the codebooks hold data rather than zeros."""
        return all(bool(book.initted.item()) for book in self.vq.books())

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
        draws = torch.Generator().manual_seed(0)
        residual = latents.float()
        for book in self.vq.books():
            weights = torch.ones_like(residual)
            centers = k_means(residual, self.codebook_size, ITERATIONS, draws, weights)
            codes = SearchIndex(centers).nearest(residual)
            counts = torch.bincount(codes, minlength=self.codebook_size)
            book.embed.copy_(centers[None])
            book.cluster_size.copy_(counts[None])
            book.embed_avg.copy_(centers * counts[:, None])
            book.initted.fill_(True)
            residual = residual - centers[codes]

    def forward(self, latents: Tensor, num_books: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Quantize for training, gradients passed straight through.

        Args:
            latents: (B, T, D) float32.
            num_books: (B,) int64 in [1, K], how many books code each row; all if None.

        Returns:
            quantized (B, T, D) and the scalar commitment loss, the mean over the books.
        """
        codes, residuals = self.search(latents.detach())
        entries = torch.stack(
            [book[index] for book, index in zip(self.codebooks(), codes, strict=True)]
        )  # (K, B, T, D)
        commitment = F.mse_loss(latents + (residuals - latents).detach(), entries)
        if self.training:
            for book, index, coded in zip(self.vq.books(), codes, residuals, strict=True):
                follow(book, index.flatten(), coded.flatten(0, 1))
        if num_books is not None:
            used = torch.arange(self.num_codebooks, device=latents.device)[:, None] < num_books
            entries = entries * used[..., None, None]
        return latents + (entries.sum(0) - latents).detach(), commitment

    @torch.no_grad()
    def encode(self, latents: Tensor, errors: list[Tensor] | None = None) -> Tensor:
        """Quantize (B, T, D) latents -> (B, K, T) int64 codes, nearest entry book by book.

        Args:
            latents: (B, T, D) of consecutive frames.
            errors: a list that carries the errors from one stretch of a stream to the next, changed
                in place; empty before the first.
        """
        return rearrange(self.search(latents.float(), errors)[0], "k b t -> b k t")

    @torch.no_grad()
    def search(self, latents: Tensor, errors: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find the codes (K, B, T) of (B, T, D) latents and the (K, B, T, D) that each book codes.

        ``errors`` is as in :meth:`encode`.
        """
        books = [SearchIndex(book) for book in self.codebooks()]
        errors = [] if errors is None else errors
        if not errors:
            errors[:] = [torch.zeros_like(latents[:, :1]) for _ in books]
        codes: list[list[Tensor]] = [[] for _ in books]
        residuals: list[list[Tensor]] = [[] for _ in books]
        at_once = 1 if self.error_feedback else max(1, latents.shape[1])
        for frames in latents.split(at_once, dim=1):
            decoded = torch.zeros_like(frames)
            for place, book in enumerate(books):
                wanted = frames
                if self.error_feedback and place:
                    wanted = torch.add(frames, errors[place], alpha=self.error_feedback)
                residual = wanted - decoded
                index = book.nearest(residual)
                decoded = decoded + book.entries[index]
                codes[place].append(index)
                residuals[place].append(residual)
                if self.error_feedback:
                    errors[place] = wanted - decoded
        return (
            torch.stack([torch.cat(pieces, dim=1) for pieces in codes]),
            torch.stack([torch.cat(pieces, dim=1) for pieces in residuals]),
        )

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
        return [rearrange(book.embed, "1 v d -> v d") for book in self.vq.books()]


class SearchIndex:
    """Holds what finding the nearest entries of a book (V, D) needs, computed once."""

    def __init__(self, entries: Tensor) -> None:
        self.entries = entries
        self.transposed = entries.T
        self.energies = entries.square().sum(1) / 2

    def nearest(self, vectors: Tensor) -> Tensor:
        """Find the entries (...) of least squared distance to (..., D) vectors."""
        return (self.energies - vectors @ self.transposed).argmin(-1)


class StoredBooks(nn.Module):
    """Hold the codebooks under the names of vector-quantize-pytorch, which trained the first ones.

    Of every entry: ``embed`` itself, ``cluster_size``, the average number of vectors per update
    that it coded, and ``embed_avg``, the average of their sum.
    """

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Module() for _ in range(num_codebooks))
        for layer in self.layers:
            book = layer._codebook = nn.Module()
            book.register_buffer("initted", torch.tensor(False))
            book.register_buffer("cluster_size", torch.ones(1, codebook_size))
            book.register_buffer("embed_avg", torch.zeros(1, codebook_size, dim))
            book.register_buffer("embed", torch.zeros(1, codebook_size, dim))

    def books(self) -> list[Any]:
        """Return the modules that hold a book each."""
        return [layer._codebook for layer in self.layers]


@torch.no_grad()
def follow(book: Any, codes: Tensor, vectors: Tensor) -> None:
    """Move the entries of a book towards the vectors that they coded; replace unused ones.

    Args:
        book: of :meth:`StoredBooks.books`.
        codes: (N,) of this process's vectors.
        vectors: (N, D).
    """
    size, entries, totals = book.cluster_size[0], book.embed[0], book.embed_avg[0]
    counts = torch.bincount(codes, minlength=len(size)).to(size)
    sums = torch.zeros_like(totals).index_add_(0, codes, vectors)
    if dist.is_initialized():
        dist.all_reduce(counts)
        dist.all_reduce(sums)
    size.lerp_(counts, 1 - DECAY)
    totals.lerp_(sums, 1 - DECAY)
    smoothed = (size + SMOOTHING) / (size.sum() + len(size) * SMOOTHING) * size.sum()
    entries.copy_(totals / smoothed[:, None])
    unused = (size < DEAD_BELOW).nonzero()[:, 0]
    if len(unused):
        chosen = vectors[torch.randint(len(vectors), (len(unused),), device=vectors.device)]
        entries[unused], size[unused], totals[unused] = chosen, DEAD_BELOW, chosen * DEAD_BELOW
        if dist.is_initialized():  # every process has vectors of its own
            for statistics in (size, entries, totals):
                dist.broadcast(statistics, src=0)
