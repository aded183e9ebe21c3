"""DiffusionDecoder: a Diffusion Transformer over spectrogram patches."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from codec.component import Component, register_to_config
from codec.dot_product_attention import attend
from codec.native.fused_layers import rms_norm, swiglu
from codec.native.inner_loops import prepare_heads, runs_in_c
from codec.spectrogram import FINE_BREAK_HZ, FINE_WINDOW, SLANEY_BREAK_HZ, LogMel
from codec.vocoder import GriffinLim
from decoder.flow import NOISE_ANGLE


class DiffusionDecoder(Component):
    """Predicts the velocity of the flow from a point on it and what the tokens say.

    That is the coarse spectrogram which a ``SpectralCodec`` decodes, and its latents; or, with
    ``codebook_size``, the tokens of any codec, which it embeds itself (decoder/painting.py). It
    then paints left and right of a 44.1 kHz spectrogram from noise alone.

    A DiT (Peebles and Xie 2023) with one modulation shared by all blocks plus a table per block
    (PixArt, Chen et al. 2023). A patch holds all channels of ``patch_frames`` frames and
    ``patch_bands`` bands; attention runs over all patches of a window, its rotary positions count
    token frames. What flows is the detail: fine minus coarse spectrogram, of unit variance. A patch
    should hold fewer numbers than the Transformer is wide, because the predicted velocity contains
    the noise itself, which a narrower layer cannot pass on. A single turn asks for none.

    Args:
        channels: audio channels, C.
        num_mels: mel bands, M.
        patch_frames: spectrogram frames per patch, those of one token frame.
        patch_bands: bands per patch; must divide num_mels.
        latent_dim: numbers in the codec's quantized vector per token frame, or in an embedding.
        num_codebooks: the codec's K; any number of codebooks from 1 to K may be decoded.
        width: of the Transformer, D.
        num_layers: blocks.
        num_heads: attention heads, H; must divide width.
        detail_std: standard deviation of what the coarse spectrogram lacks, in units of the
            normalized one; 1 suits a decoder of embedded tokens, which starts from none.
        window_frames: token frames per window when decoding.
        overlap_frames: token frames shared by neighboring windows.
        default_steps: solver steps unless the caller says otherwise.
        noise_temperature: standard deviation of the noise that the solver starts from. Below 1
            it paints less detail, which suits a decoder that cannot yet take all noise away.
        turns: whether the solver turns the point by each step's angle, which is exact where the
            predicted detail stays the same (DDIM, Song et al., arXiv 2010.02502), rather than to
            follow the tangent. A single turn gives the predicted detail itself.
        codebook_size: entries per codebook, V, of the tokens that are embedded; 0 reads a coarse
            spectrogram.
        token_rate: frames of embedded tokens per second (Hz).
        n_fft: of the spectrogram painted from embedded tokens (:class:`codec.spectrogram.LogMel`).
        mel_break_hz: of the same.
    """

    added_keys: ClassVar[dict[str, float]] = {
        "codebook_size": 0,
        "token_rate": 0.0,
        "n_fft": 2048,
        "mel_break_hz": SLANEY_BREAK_HZ,
        "turns": False,
    }
    _no_split_modules = ["Block"]  # noqa: RUF012  (diffusers')

    @register_to_config
    def __init__(
        self,
        channels: int = 2,
        num_mels: int = 128,
        patch_frames: int = 4,
        patch_bands: int = 32,
        latent_dim: int = 64,
        num_codebooks: int = 8,
        width: int = 256,
        num_layers: int = 4,
        num_heads: int = 4,
        detail_std: float = 0.3,
        window_frames: int = 128,
        overlap_frames: int = 24,
        default_steps: int = 3,
        noise_temperature: float = 1.0,
        codebook_size: int = 0,
        token_rate: float = 0.0,
        n_fft: int = FINE_WINDOW,
        mel_break_hz: float = FINE_BREAK_HZ,
        turns: bool = False,
    ) -> None:
        super().__init__()
        self._check_sizes()
        self.rows = num_mels // patch_bands
        patch_size = channels * patch_frames * patch_bands
        log_mel = LogMel(n_fft=n_fft, num_mels=num_mels, mel_break_hz=mel_break_hz)
        self.vocoder = GriffinLim(log_mel) if codebook_size else None
        self.slots, self.tokens_per_patch = 1, 1.0
        if self.vocoder is not None:
            patch_rate = log_mel.sample_rate / (log_mel.hop_length * patch_frames)
            self.tokens_per_patch = token_rate / patch_rate
            self.slots = math.ceil(self.tokens_per_patch - 1e-6)
            self.embedding = nn.Embedding(num_codebooks * codebook_size, latent_dim)
            nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(num_codebooks))
        self.patch_in = nn.Linear((1 if codebook_size else 2) * patch_size, width)
        self.latent_in = nn.Linear(self.slots * latent_dim, width)
        self.row_embedding = nn.Parameter(torch.randn(self.rows, width) * 0.02)
        self.books_embedding = nn.Embedding(num_codebooks + 1, width)
        self.time_in = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))
        self.last_modulation = nn.Linear(width, 2 * width)
        self.patch_out = nn.Linear(width, patch_size)
        for layer in (self.modulation, self.last_modulation, self.patch_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _check_sizes(self) -> None:
        config = self.config
        for name in (
            "channels",
            "num_mels",
            "patch_frames",
            "patch_bands",
            "latent_dim",
            "num_codebooks",
            "width",
            "num_layers",
            "num_heads",
            "detail_std",
            "noise_temperature",
        ):
            if not config[name] > 0:
                raise ValueError(f"{name} must be positive, got {config[name]}")
        if config.codebook_size < 0 or (config.codebook_size > 0) != (config.token_rate > 0):
            raise ValueError(
                "codebook_size and token_rate must be positive both or 0 both, got "
                f"{config.codebook_size} and {config.token_rate}"
            )
        if config.codebook_size and config.channels != 2:
            raise ValueError(f"channels must be 2 with codebook_size, got {config.channels}")
        if config.width % (2 * config.num_heads):
            raise ValueError(
                "2 * num_heads must divide width, "
                f"got width={config.width} and num_heads={config.num_heads}"
            )
        if config.num_mels % config.patch_bands:
            raise ValueError(
                "patch_bands must divide num_mels, "
                f"got {config.patch_bands} and num_mels={config.num_mels}"
            )
        if not 0 < 2 * config.overlap_frames <= config.window_frames:
            raise ValueError(
                "overlap_frames must lie in [1, window_frames / 2], "
                f"got {config.overlap_frames} and window_frames={config.window_frames}"
            )
        if not 1 <= config.default_steps <= 16:
            raise ValueError(f"default_steps must lie in [1, 16], got {config.default_steps}")

    def forward(
        self,
        point: Tensor,
        angle: Tensor,
        coarse: Tensor | None,
        latents: Tensor,
        num_books: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity.

        Args:
            point: (B, C, M, F) on the path at this angle, see ``decoder.flow``.
            angle: (B,) in [0, pi / 2], from the detail to noise, or (1,) for all rows.
            coarse: (B, C, M, F) the codec's normalized decode of the same tokens; None with
                ``codebook_size``.
            latents: (B, T, latent_dim) the tokens' vectors, T = F / patch_frames; with
                ``codebook_size`` (B, k, N) int64 codes.
            num_books: (B,) int64, how many codebooks the tokens hold, 1 to K, or (1,).
            positions: (B, T * slots) in [0, N - 1], where patches read the codes, in tokens.

        Returns:
            (B, C, M, F), the path's derivative by its angle.
        """
        if positions is not None:
            latents = self.embed(latents, num_books, positions)
        T = latents.shape[1]
        seen = point if coarse is None else torch.cat([point, coarse], dim=1)
        patches = self.patch_in(self.patchify(seen))
        x = patches + self.row_embedding + self.latent_in(latents)[:, :, None]  # (B, T, R, D)
        x = rearrange(x, "b t r d -> b (t r) d")
        time = self.time_in(time_features(angle / NOISE_ANGLE))
        condition = F.silu(time + self.books_embedding(num_books))  # (B, D)
        shared = rearrange(self.modulation(condition), "b (six d) -> six b 1 d", six=6)
        rotation = rotary_table(T, self.rows, x.shape[-1] // self.config.num_heads, x.device)
        for block in self.blocks:
            x = block(x, shared, rotation)
        shift, scale = self.last_modulation(condition)[:, None].chunk(2, dim=-1)
        x = self.patch_out(normalize(x, shift, scale))
        return self.unpatchify(rearrange(x, "b (t r) p -> b t r p", t=T))

    def embed(self, codes: Tensor, num_books: Tensor, positions: Tensor) -> Tensor:
        """Embed codes and resample them in time.

        Args:
            codes: (B, k, N) int64 in [0, V).
            num_books: (B,) int64, how many of the k codebooks count.
            positions: (B, T * slots) in [0, N - 1].

        Returns:
            (B, T, slots * latent_dim), between two tokens their weighted mean.
        """
        books = torch.arange(codes.shape[1], device=codes.device)
        vectors = self.embedding(codes + books[:, None] * self.config.codebook_size)  # (B, k, N, L)
        used = (books < num_books[:, None]).to(vectors.dtype)
        vectors = torch.einsum("bknl,bk->bnl", vectors, used)
        before = positions.floor()
        after = (before + 1).clamp(max=codes.shape[-1] - 1)
        low, high = (
            vectors.gather(1, place.long()[..., None].expand(-1, -1, vectors.shape[-1]))
            for place in (before, after)
        )
        mixed = torch.lerp(low, high, (positions - before)[..., None].to(low.dtype))
        return rearrange(mixed, "b (t s) l -> b t (s l)", s=self.slots)

    def patchify(self, spectrogram: Tensor) -> Tensor:
        """Map (B, C, M, F) -> (B, T, R, patch), R rows of bands from low to high."""
        return rearrange(
            spectrogram, "b c (r m) (t p) -> b t r (p c m)", r=self.rows, p=self.config.patch_frames
        )

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Map (B, T, R, patch) -> (B, C, M, F)."""
        return rearrange(
            patches,
            "b t r (p c m) -> b c (r m) (t p)",
            p=self.config.patch_frames,
            c=self.config.channels,
        )


@dataclass
class Modulation:
    """Hold what the condition does to one branch of a block; (B, 1, D) each."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def before(self, x: Tensor) -> Tensor:
        """Normalize, scale and shift a branch's input."""
        return normalize(x, self.shift, self.scale)

    def after(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add a branch's output through its gate."""
        return torch.addcmul(x, self.gate, branch)


class Block(nn.Module):
    """Self-attention and SwiGLU, each modulated by the condition, on (B, N, D)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        hidden = 64 * math.ceil(width * 8 / 3 / 64)
        self.num_heads = num_heads
        table = torch.zeros(6, 1, width)
        table[[2, 5]] = 1.0 / math.sqrt(2)
        self.table = nn.Parameter(table)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = nn.RMSNorm(width // num_heads)
        self.key_norm = nn.RMSNorm(width // num_heads)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, shared: Tensor, rotation: Tensor) -> Tensor:
        """Map (B, N, D), the modulation (6, B, 1, D) and a rotary table -> (B, N, D)."""
        values = shared + self.table[:, None]
        attention, feed_forward = Modulation(*values[:3]), Modulation(*values[3:])
        x = attention.after(x, self.attend(attention.before(x), rotation))
        return feed_forward.after(x, self.transform(feed_forward.before(x)))

    def attend(self, x: Tensor, rotation: Tensor) -> Tensor:
        """Apply full self-attention with rotary positions and normalized queries and keys."""
        qkv, gains = self.qkv(x), (self.query_norm.weight, self.key_norm.weight)
        query, key, value = rearrange(
            qkv, "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        if runs_in_c(qkv, *gains):
            epsilon = torch.finfo(qkv.dtype).eps  # RMSNorm's
            query, key = prepare_heads(qkv, gains, rotation, self.num_heads, epsilon)
        else:
            query = rotate(rms_norm(query.float(), self.query_norm.weight), rotation).to(
                value.dtype
            )
            key = rotate(rms_norm(key.float(), self.key_norm.weight), rotation).to(value.dtype)
        mixed = attend(query, key, value)
        return self.attention_out(rearrange(mixed, "b h n d -> b n (h d)"))

    def transform(self, x: Tensor) -> Tensor:
        """Apply SwiGLU (Shazeer 2020)."""
        return self.down(swiglu(self.gate_up(x)))


def normalize(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply layer normalization to (B, N, D), its parameters (B, 1, D) or (1, 1, D)."""
    if len(scale) == 1:
        return F.layer_norm(x, x.shape[-1:], 1 + scale[0, 0], shift[0, 0])
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def time_features(t: Tensor, dim: int = 256) -> Tensor:
    """Map (B,) times in [0, 1] -> (B, dim) sines and cosines of geometric frequencies."""
    frequency = torch.exp(-math.log(10000.0) * torch.arange(dim // 2, device=t.device) * 2 / dim)
    angle = 1000.0 * t[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def rotary_table(num_frames: int, rows: int, dim: int, device: torch.device) -> Tensor:
    """Tabulate (2, T * R, dim / 2) cosines and sines (Su et al. 2021), a position a frame."""
    frequency = 1.0 / 1000.0 ** (torch.arange(0, dim, 2, device=device) / dim)
    angle = torch.arange(num_frames, device=device)[:, None] * frequency
    angle = repeat(angle, "t d -> (t r) d", r=rows)
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (first half, second half) of (B, H, N, d) by their positions' angles."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
