"""SpectralCodec: log-mel patches to residual tokens and back to a coarse spectrogram."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from codec.component import Component, register_to_config
from codec.convnext import ConvNextStack
from codec.image_book import ImageBook
from codec.quantizer import ResidualQuantizer
from codec.spectrogram import FINE_BREAK_HZ, FINE_WINDOW, SLANEY_BREAK_HZ, LogMel
from codec.stages import Stage, run
from codec.stereo import ParametricStereo
from codec.validation import check_audio, check_codec_config, check_codes
from codec.vocoder import GriffinLim
from codec.windows import Windows, windowed

FIRST_WINDOW = 11
"""Token frames of the first window when decoding, so that a stream sounds at once: as few as fill
the vocoder's first block, which lasts until the second (tests/test_stream_clock.py)."""
IMAGE_BOOK = 3
"""Place of the image's code among the books: among those that generation writes."""
FINE_ANGLE_WEIGHT = 2.0
"""The image's second book spends more on coherence, of which the first leaves more."""


@dataclass
class CodecOutput:
    """Hold what training needs of one forward pass."""

    reconstruction: Tensor  # (B, C, M, F) natural-log mel magnitudes
    commitment: Tensor  # scalar; zero while the quantizer is bypassed


@dataclass
class CodingErrors:
    """Hold what the books left over of the last frame, from which a stream's coding goes on."""

    latents: list[Tensor] = field(default_factory=list)
    images: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))


class SpectralCodec(Component):
    """A log-mel autoencoder with nested residual codebooks and a phase-finding vocoder.

    ``patch_frames`` spectrogram frames of all bands and channels make one patch; ConvNeXt blocks
    (Liu et al. 2022) over patches encode it to ``latent_dim`` numbers, a residual quantizer turns
    these into ``num_codebooks`` tokens, and mirrored blocks decode a coarse spectrogram.

    With ``stereo_bands`` N > 0 there is one spectrogram, of the total power, and below its M bands
    lie the 2 N rows of the stereo image (codec/stereo.py), constant within a patch. The network
    codes the spectrogram alone; the image has the fourth book to itself (codec/image_book.py), and
    with ``image_books`` of 2 the last one too, for what the fourth leaves over. Fewer than four
    books decode to mono. (B, C, R, F) stands for spectrogram and image together: (B, 1, M + 2 N,
    F), or (B, C, M, F) where there is no image.

    Args:
        sample_rate: Hz.
        channels: audio channels, C.
        n_fft: STFT window in samples.
        hop_length: samples between spectrogram frames.
        num_mels: mel bands, M.
        patch_frames: spectrogram frames per token frame.
        width: of the blocks, D.
        encoder_layers: ConvNeXt blocks before the quantizer.
        decoder_layers: ConvNeXt blocks after it.
        kernel_size: of their depthwise convolutions, in token frames (odd).
        latent_dim: numbers per token frame before quantization.
        num_codebooks: residual books, K.
        codebook_size: entries per book, V.
        spectrogram_mean: of the training data's log-mel values, subtracted.
        spectrogram_std: of the same, divided by.
        vocoder_iterations: Griffin-Lim iterations, from phases carried along (codec/phase.py).
        stereo_bands: bands of the stereo image, N; 0 codes a spectrogram per channel.
        vocoder_gains_db: see :class:`codec.vocoder.GriffinLim`.
        mel_break_hz: see :class:`codec.spectrogram.LogMel`.
        error_feedback: see :class:`codec.quantizer.ResidualQuantizer`.
        image_books: books of the stereo image, 1 or 2.
    """

    added_keys: ClassVar[dict[str, Any]] = {
        "stereo_bands": 0,
        "vocoder_gains_db": None,
        "mel_break_hz": SLANEY_BREAK_HZ,
        "error_feedback": 0.0,
        "image_books": 1,
    }

    SOUND_PARTS = ("from_latent", "decoder", "patch_out")
    """Children that make sound of codes; codes do not depend on them."""
    SOUND_KEYS = ("vocoder_gains_db",)
    """Settings that codes do not depend on either."""

    @register_to_config
    def __init__(
        self,
        sample_rate: int = 44100,
        channels: int = 2,
        n_fft: int = FINE_WINDOW,
        hop_length: int = 441,
        num_mels: int = 128,
        patch_frames: int = 4,
        width: int = 384,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        kernel_size: int = 7,
        latent_dim: int = 64,
        num_codebooks: int = 8,
        codebook_size: int = 1024,
        spectrogram_mean: float = -5.0,
        spectrogram_std: float = 2.5,
        vocoder_iterations: int = 1,
        stereo_bands: int = 0,
        vocoder_gains_db: list[float] | None = None,
        mel_break_hz: float = FINE_BREAK_HZ,
        error_feedback: float = 0.0,
        image_books: int = 1,
    ) -> None:
        super().__init__()
        check_codec_config(self.config)
        self.log_mel = LogMel(sample_rate, n_fft, hop_length, num_mels, mel_break_hz=mel_break_hz)
        stereo = None
        if stereo_bands:
            stereo = ParametricStereo(self.log_mel, stereo_bands, patch_frames)
        self.vocoder = GriffinLim(
            self.log_mel, vocoder_iterations, stereo=stereo, gains_db=vocoder_gains_db or ()
        )
        self.spectrogram_channels = 1 if stereo_bands else channels
        patch_size = self.spectrogram_channels * num_mels * patch_frames
        self.patch_in = nn.Linear(patch_size, width)
        self.encoder = ConvNextStack(width, encoder_layers, kernel_size)
        self.to_latent = nn.Linear(width, latent_dim)
        self.image_places: tuple[int, ...] = ()
        self.image_book = self.fine_image_book = None
        if stereo_bands:
            self.image_places += (min(IMAGE_BOOK, num_codebooks - 1),)
            self.image_book = ImageBook(stereo_bands, codebook_size, error_feedback)
        if stereo_bands and image_books == 2:
            self.image_places += (num_codebooks - 1,)
            self.fine_image_book = ImageBook(
                stereo_bands, codebook_size, error_feedback, FINE_ANGLE_WEIGHT
            )
        residual_books = num_codebooks - len(self.image_places)
        self.quantizer = ResidualQuantizer(
            latent_dim, residual_books, codebook_size, error_feedback
        )
        self.from_latent = nn.Linear(latent_dim, width)
        self.decoder = ConvNextStack(width, decoder_layers, kernel_size)
        self.patch_out = nn.Linear(width, patch_size)
        self.encoder_reach = encoder_layers * (kernel_size // 2)
        self.decoder_reach = decoder_layers * (kernel_size // 2)

    @property
    def sample_rate(self) -> int:
        """Samples per second and channel (Hz)."""
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        """Audio channels, C."""
        return self.config.channels

    @property
    def hop_length(self) -> int:
        """Samples per token frame."""
        return self.config.hop_length * self.config.patch_frames

    @property
    def frame_rate(self) -> float:
        """Token frames per second (Hz)."""
        return self.config.sample_rate / self.hop_length

    @property
    def num_codebooks(self) -> int:
        """Residual books, K."""
        return self.config.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Entries per book, V."""
        return self.config.codebook_size

    @property
    def image_books(self) -> list[ImageBook]:
        """Books of the stereo image, at ``image_places`` among all; each codes what is left."""
        return [book for book in (self.image_book, self.fine_image_book) if book is not None]

    # -- the network, on spectrograms -------------------------------------------------------

    def forward(
        self, spectrogram: Tensor, num_books: Tensor | None = None, quantize: bool = True
    ) -> CodecOutput:
        """Reconstruct spectrograms, for training.

        Args:
            spectrogram: (B, C, R, F) as of :meth:`analyze`, F a multiple of patch_frames.
            num_books: (B,) int64 in [1, K], how many books code each row; all if None.
            quantize: False bypasses the quantizer (the first steps of training).
        """
        latents = self.latents(spectrogram).float()  # (B, T, D)
        commitment = latents.new_zeros(())
        if quantize:
            with torch.autocast(latents.device.type, enabled=False):
                books = None if num_books is None else self.residual_books(num_books)
                latents, commitment = self.quantizer(latents, books)
        return CodecOutput(self.reconstruct(latents), commitment)

    def analyze(self, audio: Tensor) -> Tensor:
        """Turn a waveform into what is coded, without checks.

        Args:
            audio: (B, C, S) float32.

        Returns:
            (B, C, M, F) natural-log mel magnitudes; with ``stereo_bands`` (B, 1, M + 2 N, F), the
            total power's and the stereo image.
        """
        stereo = self.vocoder.stereo
        if stereo is None:
            return self.log_mel(audio)
        levels, image = stereo.analyze(self.log_mel.stft(self.log_mel.pad(audio.float())))
        return torch.cat([levels, image[:, None]], dim=2)

    def latents(self, spectrogram: Tensor) -> Tensor:
        """Map (B, C, R, F) -> (B, T, latent_dim), T = F / patch_frames, the image left out."""
        levels = self.normalize(spectrogram[:, :, : self.config.num_mels])
        patches = rearrange(levels, "b c m (t p) -> b t (p c m)", p=self.config.patch_frames)
        return self.to_latent(self.encoder(self.patch_in(patches)))

    def reconstruct(self, latents: Tensor, left: int = 0, right: int = 0) -> Tensor:
        """Map (B, left + T + right, latent_dim), T between context, -> (B, C, M, F) log-mel."""
        hidden = self.decoder(self.from_latent(latents), left, right)
        patches = rearrange(
            self.patch_out(hidden),
            "b t (p c m) -> b c m (t p)",
            p=self.config.patch_frames,
            c=self.spectrogram_channels,
        )
        return self.denormalize(patches.float())

    def normalize(self, spectrogram: Tensor) -> Tensor:
        """Scale log-mel to zero mean and unit variance over the training data."""
        return (spectrogram - self.config.spectrogram_mean) / self.config.spectrogram_std

    def denormalize(self, spectrogram: Tensor) -> Tensor:
        """Undo :meth:`normalize`."""
        return spectrogram * self.config.spectrogram_std + self.config.spectrogram_mean

    @torch.no_grad()
    def encode_spectrogram(self, spectrogram: Tensor) -> Tensor:
        """Map (B, C, R, F), F a multiple of patch_frames -> (B, K, F / patch_frames) codes."""
        return self._quantize(self._features(spectrogram))

    @torch.no_grad()
    def _features(self, spectrogram: Tensor) -> Tensor:
        """Map (B, C, R, F) -> (B, D + M + 2 N, T): latents and, for the image, levels and image."""
        latents = rearrange(self.latents(spectrogram).float(), "b t d -> b d t")
        if self.image_book is None:
            return latents
        M, P = self.config.num_mels, self.config.patch_frames
        levels = nn.functional.avg_pool1d(spectrogram[:, 0, :M], P)
        return torch.cat([latents, levels, spectrogram[:, 0, M:, ::P]], dim=1)

    @torch.no_grad()
    def _quantize(self, features: Tensor, errors: CodingErrors | None = None) -> Tensor:
        """Map features as of :meth:`_features` -> (B, K, T) codes."""
        errors = errors or CodingErrors()
        D, M = self.config.latent_dim, self.config.num_mels
        latents = rearrange(features[:, :D], "b d t -> b t d")
        codes = self.quantizer.encode(latents, errors.latents)
        levels, image = features[:, D : D + M], features[:, D + M :]
        for place, book, carried in zip(
            self.image_places, self.image_books, errors.images, strict=False
        ):
            chosen = book.encode(image, levels, carried)
            codes = torch.cat([codes[:, :place], chosen[:, None], codes[:, place:]], dim=1)
            image = image - book.decode(chosen)
        return codes

    @torch.no_grad()
    def decode_spectrogram(self, codes: Tensor, left: int = 0, right: int = 0) -> Tensor:
        """Map (B, k, left + T + right) codes, T between context, -> (B, C, R, F) log-mel, image."""
        levels = self.reconstruct(self.decode_latents(codes), left, right)
        wanted = codes[..., left : codes.shape[-1] - right]
        return torch.cat([levels, self.decode_image(wanted)], dim=2)

    def decode_latents(self, codes: Tensor, num_books: Tensor | None = None) -> Tensor:
        """Sum the entries that codes name in the spectrogram's books.

        Args:
            codes: (B, k, T) int64 codes of the first k <= K books.
            num_books: (B,) int64, how many of them to use in each row; all if None.

        Returns:
            (B, T, latent_dim).
        """
        kept = [book for book in range(codes.shape[1]) if book not in self.image_places]
        num_books = None if num_books is None else self.residual_books(num_books)
        return self.quantizer.decode(codes[:, kept], num_books)

    def decode_image(self, codes: Tensor) -> Tensor:
        """Map (B, k, T) codes -> (B, C, 2 N, F) stereo image; mono without its book."""
        B, books, T = codes.shape
        N, P = self.config.stereo_bands, self.config.patch_frames
        image = self.patch_out.weight.new_zeros(()).expand(B, 2 * N, T)
        for place, book in zip(self.image_places, self.image_books, strict=True):
            if place < books:
                image = image + book.decode(codes[:, place])
        image = image[:, None].repeat_interleave(P, dim=-1)
        return image.expand(B, self.spectrogram_channels, 2 * N, T * P)

    def residual_books(self, num_books: Tensor) -> Tensor:
        """Count the spectrogram's books among the first ``num_books``."""
        return num_books - sum((num_books > place).long() for place in self.image_places)

    # -- audio to codes and back ------------------------------------------------------------

    def encode(self, audio: Tensor) -> Tensor:
        """Turn a waveform into codes.

        Args:
            audio: (B, C, S) float32 in [-1, 1] at ``sample_rate`` Hz. S need not divide the hop.

        Returns:
            (B, K, T) int64 in [0, V), with T = ceil(S / hop_length).

        Raises:
            ValueError: audio is not (B, C, S), has the wrong channel count, or holds NaN.
        """
        check_audio(audio, channels=self.channels)
        return torch.cat(list(self.encode_stream([audio])), dim=-1)

    def encode_stream(self, blocks: Iterable[Tensor], window: int = 1024) -> Iterator[Tensor]:
        """Encode consecutive (B, C, s) pieces of audio in windows of ``window`` token frames.

        The codes' concatenation equals the whole's: a window sees as much context on either side
        as the network reaches. Only a latent that lies within rounding of two entries can differ,
        and with ``error_feedback`` what follows it.
        """
        analysis_reach = math.ceil(self.config.n_fft / 2 / self.hop_length)
        errors = CodingErrors()
        for features in windowed(
            blocks,
            lambda audio: self._features(self._whole_patches(self.analyze(audio))),
            size=window,
            halo=self.encoder_reach + analysis_reach,
            units_in=self.hop_length,
        ):
            yield self._quantize(features, errors)

    def decode(self, codes: Tensor, seed: int | list[int] = 0) -> Tensor:
        """Turn codes into a waveform by way of the coarse spectrogram.

        Args:
            codes: (B, k, T) int64 in [0, V), the first 1 <= k <= K books.
            seed: of the vocoder's starting phases, one for all rows or one per row.

        Returns:
            (B, C, T * hop_length) float32 audio.

        Raises:
            ValueError: codes have the wrong rank, dtype or range, or too many books.
        """
        check_codes(codes, num_codebooks=self.num_codebooks, codebook_size=self.codebook_size)
        return torch.cat(list(self.decode_stream([codes], seed)), dim=-1)

    def decode_stream(
        self, blocks: Iterable[Tensor], seed: int | list[int] = 0, window: int = 1024
    ) -> Iterator[Tensor]:
        """Decode consecutive (B, k, t) pieces of codes; the pieces of audio join without a seam."""
        return run(self.decode_stages(seed, window), blocks)

    def decode_stages(self, seed: int | list[int] = 0, window: int = 1024) -> list[Stage]:
        """Return the decoder as a chain of stages; windows grow to ``window`` token frames."""
        coarse = Windows(
            self.decode_spectrogram,
            size=window,
            halo=self.decoder_reach,
            cuts=True,
            first=FIRST_WINDOW,
        )
        return [coarse, self.vocoder.stage(seed)]

    def _whole_patches(self, spectrogram: Tensor) -> Tensor:
        """Pad the end to a whole number of patches: with silence, and with the last image."""
        missing = -spectrogram.shape[-1] % self.config.patch_frames
        if not missing:
            return spectrogram
        padding = spectrogram[..., -1:].repeat(1, 1, 1, missing)
        padding[:, :, : self.config.num_mels] = self.log_mel.log_floor
        return torch.cat([spectrogram, padding], dim=-1)
