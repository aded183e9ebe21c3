"""EncodecCodec: the encodec package's 24 and 48 kHz models (Défossez et al. 2022)."""

import math
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.modules.lstm import SLSTM
from encodec.quantization import ResidualVectorQuantizer
from encodec.utils import _linear_overlap_add
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from codec.component import Component, register_to_config
from codec.seeds import derive_seed, generator
from codec.validation import check_audio, check_codes
from codec.windows import windowed

CODEBOOK_SIZE = 1024
HOP_LENGTH = 320
WEIGHTS_URL = "https://dl.fbaipublicfiles.com/encodec/v0/"

WINDOW_FRAMES = 750
HALO_FRAMES = 2
"""The causal convolutions reach 478 samples back in the encoder, 1.5 frames in the decoder."""

SILENCE = 1e-8
LEVEL_STEP_DB = 0.1


@dataclass(frozen=True)
class Variant:
    """Tell the two published models apart; ``segment`` and ``stride`` are in samples."""

    sample_rate: int
    channels: int
    bandwidths_kbps: tuple[float, ...]
    norm: str
    causal: bool
    segment: int | None
    stride: int | None
    weights: str


VARIANTS = {
    "24khz": Variant(
        sample_rate=24000,
        channels=1,
        bandwidths_kbps=(1.5, 3.0, 6.0, 12.0, 24.0),
        norm="weight_norm",
        causal=True,
        segment=None,
        stride=None,
        weights="encodec_24khz-d7cc33bc.th",
    ),
    "48khz": Variant(
        sample_rate=48000,
        channels=2,
        bandwidths_kbps=(3.0, 6.0, 12.0, 24.0),
        norm="time_group_norm",
        causal=False,
        segment=48000,
        stride=47520,
        weights="encodec_48khz-7e698e3e.th",
    ),
}


class EncodecCodec(Component):
    """EnCodec behind the ``Codec`` protocol.

    ``24khz`` is mono and causal, 75 frames a second. Long audio goes through its convolutions in
    windows and through its LSTM whole, which equals one pass over everything.

    ``48khz`` is stereo and works on segments of 1 s that overlap by 1 %, each divided by its own
    level (the RMS of its mono mix): 150 frames per 0.99 s. The level travels in the codes, as
    codebook 0, the same in all frames of a segment, in steps of 0.1 dB from -102.3 to 0 dB with
    entry 0 for silence: at most 0.05 dB is lost against the published model. Codes cut out of a
    longer sequence should start at a multiple of ``segment_frames``. A last segment that would
    hold nothing but the overlap is left out.

    The constructor leaves the model without usable weights; see :meth:`from_pretrained_weights`
    (whose weights are CC BY-NC 4.0), :meth:`untrained` and ``from_pretrained``.

    Args:
        model: "24khz" or "48khz".
        bandwidth_kbps: 1.5 (24 kHz only), 3, 6, 12 or 24; decides the number of codebooks.
        num_filters: width of the first convolution, 32 in the published models.

    Raises:
        ValueError: no such model, or it does not have this bandwidth.
    """

    @register_to_config
    def __init__(
        self, model: str = "24khz", bandwidth_kbps: float = 6.0, num_filters: int = 32
    ) -> None:
        super().__init__()
        if model not in VARIANTS:
            raise ValueError(f"model must be one of {list(VARIANTS)}, got {model!r}")
        self.variant = VARIANTS[model]
        if bandwidth_kbps not in self.variant.bandwidths_kbps:
            raise ValueError(
                f"bandwidth_kbps must be one of {self.variant.bandwidths_kbps} for {model}, "
                f"got {bandwidth_kbps}"
            )
        self.num_books = self._books_at(bandwidth_kbps)
        sizes: dict[str, Any] = {
            "channels": self.variant.channels,
            "n_filters": num_filters,
            "norm": self.variant.norm,
            "causal": self.variant.causal,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # encodec's weight_norm is deprecated
            self.encoder = SEANetEncoder(**sizes)
            self.decoder = SEANetDecoder(**sizes)
        self.quantizer = ResidualVectorQuantizer(
            dimension=self.encoder.dimension,
            n_q=self._books_at(self.variant.bandwidths_kbps[-1]),
            bins=CODEBOOK_SIZE,
        )
        self.eval()

    @classmethod
    def from_pretrained_weights(
        cls,
        model: str = "24khz",
        bandwidth_kbps: float = 6.0,
        weights: str | Path | None = None,
    ) -> "EncodecCodec":
        """Build a codec with published weights (CC BY-NC 4.0).

        Args:
            model, bandwidth_kbps: as for the class.
            weights: a ``.th`` or ``.safetensors`` file, or the folder that holds the published
                one; None downloads it into torch's hub folder.

        Raises:
            FileNotFoundError: ``weights`` does not exist.
            OSError: the download failed.
            ValueError: the file is not a state dict of this model.
        """
        codec = cls(model, bandwidth_kbps)
        name = codec.variant.weights
        state = _download(name) if weights is None else _read_state(Path(weights), name)
        _check_state(codec, state, name if weights is None else str(weights))
        codec.load_state_dict(state)
        return codec

    @classmethod
    def untrained(
        cls,
        model: str = "24khz",
        bandwidth_kbps: float = 6.0,
        seed: int = 0,
        num_filters: int = 32,
    ) -> "EncodecCodec":
        """Build a codec with random weights and codebooks, for tests: equal seeds, equal codecs."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "encodec weights"))
            codec = cls(model, bandwidth_kbps, num_filters)
        draws = generator(seed, "encodec codebooks")
        shape = (1, codec.channels, codec.sample_rate)
        with torch.no_grad():
            spread = codec.encoder(torch.randn(shape, generator=draws)).std()
            layers: Any = codec.quantizer.vq.layers
            for codebook in (layer._codebook for layer in layers):
                codebook.embed.copy_(spread * torch.randn(codebook.embed.shape, generator=draws))
                codebook.embed_avg.copy_(codebook.embed)
                codebook.inited.fill_(1)
        return codec

    @property
    def sample_rate(self) -> int:
        """Samples per second and channel (Hz)."""
        return self.variant.sample_rate

    @property
    def channels(self) -> int:
        """Audio channels, C."""
        return self.variant.channels

    @property
    def hop_length(self) -> int:
        """Samples per frame (within a segment, for the 48 kHz model)."""
        return HOP_LENGTH

    @property
    def segment_frames(self) -> int | None:
        """Frames per segment of the 48 kHz model; None for the 24 kHz model, which has none."""
        return None if self.variant.segment is None else self.variant.segment // HOP_LENGTH

    @property
    def frame_rate(self) -> float:
        """Token frames per second (Hz): 75, or 150 / 0.99 for the overlapping segments."""
        if self.segment_frames is None or self.variant.stride is None:
            return self.sample_rate / HOP_LENGTH
        return self.segment_frames * self.sample_rate / self.variant.stride

    @property
    def num_codebooks(self) -> int:
        """Codebooks per frame, K; the 48 kHz model's level is one of them."""
        return self.num_books + (self.variant.segment is not None)

    @property
    def codebook_size(self) -> int:
        """Entries per codebook, V."""
        return CODEBOOK_SIZE

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Turn a waveform into codes.

        Args:
            audio: (B, C, S) float32 in [-1, 1] at ``sample_rate`` Hz. S need not divide the hop.

        Returns:
            (B, K, T) int64 in [0, V). T = ceil(S / hop_length) at 24 kHz; at 48 kHz, 150 for each
            segment but the last and ceil(s / hop_length) for the s samples of that.

        Raises:
            ValueError: audio is not (B, C, S), has the wrong channel count, or holds NaN.
        """
        check_audio(audio, channels=self.channels)
        if self.variant.segment is None or self.variant.stride is None:
            return self._encode_causal(audio)
        S = audio.shape[-1]
        overlap = self.variant.segment - self.variant.stride
        starts = range(0, max(1, S - overlap), self.variant.stride)
        segments = [audio[..., start : start + self.variant.segment] for start in starts]
        return torch.cat([self._encode_segment(segment) for segment in segments], dim=-1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes back into a waveform.

        Args:
            codes: (B, k, T) int64 in [0, V), the first 1 <= k <= K codebooks.

        Returns:
            (B, C, S) float32: S = T * hop_length, less the segments' overlaps at 48 kHz. At most
            a frame longer than what was encoded.

        Raises:
            ValueError: codes have the wrong rank, dtype or range, or too many codebooks.
        """
        check_codes(codes, num_codebooks=self.num_codebooks, codebook_size=self.codebook_size)
        if self.segment_frames is None or self.variant.stride is None:
            return self._decode_causal(codes)
        segments = [self._decode_segment(part) for part in codes.split(self.segment_frames, dim=-1)]
        return _linear_overlap_add(segments, self.variant.stride)

    def _encode_causal(self, audio: Tensor) -> Tensor:
        layers = self.encoder.model
        lstm = _lstm_position(layers)
        parts = windowed(
            [audio], layers[:lstm], size=WINDOW_FRAMES, halo=HALO_FRAMES, units_in=HOP_LENGTH
        )
        return self._quantize(layers[lstm:](torch.cat(list(parts), dim=-1)))

    def _decode_causal(self, codes: Tensor) -> Tensor:
        layers = self.decoder.model
        after = _lstm_position(layers) + 1
        hidden = layers[:after](self._dequantize(codes))  # (B, D, T)
        parts = windowed(
            [hidden], layers[after:], size=WINDOW_FRAMES, halo=HALO_FRAMES, units_out=HOP_LENGTH
        )
        return torch.cat(list(parts), dim=-1)

    def _encode_segment(self, audio: Tensor) -> Tensor:
        """Encode (B, C, s) -> (B, K, ceil(s / hop_length)): the level, then the codebooks."""
        level = SILENCE + audio.mean(dim=1).square().mean(dim=-1).sqrt()  # (B,)
        residual_codes = self._quantize(self.encoder(audio / level[:, None, None]))
        row = level_to_code(level)[:, None, None].expand(-1, 1, residual_codes.shape[-1])
        return torch.cat([row, residual_codes], dim=1)

    def _decode_segment(self, codes: Tensor) -> Tensor:
        """Decode (B, k, t) -> (B, C, t * hop_length); where levels disagree their median counts."""
        level = code_to_level(codes[:, 0].median(dim=-1).values)  # (B,)
        return self.decoder(self._dequantize(codes[:, 1:])) * level[:, None, None]

    def _quantize(self, latents: Tensor) -> Tensor:
        """Quantize (B, D, T) -> (B, K, T)."""
        return self.quantizer.vq.encode(latents, n_q=self.num_books).transpose(0, 1)

    def _dequantize(self, codes: Tensor) -> Tensor:
        """Map (B, k, T) -> (B, D, T); zeros for no codebooks at all (a 48 kHz level alone)."""
        B, k, T = codes.shape
        if k == 0:
            return torch.zeros(B, self.encoder.dimension, T, device=codes.device)
        return self.quantizer.decode(codes.transpose(0, 1))

    def _books_at(self, bandwidth_kbps: float) -> int:
        bits_per_second = math.log2(CODEBOOK_SIZE) * self.variant.sample_rate / HOP_LENGTH
        return int(1000 * bandwidth_kbps // bits_per_second)


def level_to_code(level: Tensor) -> Tensor:
    """Quantize a segment's RMS level to a codebook entry: 0 for silence, 1023 for full scale."""
    steps = torch.round(20 * level.log10() / LEVEL_STEP_DB).long()
    return (steps + CODEBOOK_SIZE - 1).clamp(0, CODEBOOK_SIZE - 1)


def code_to_level(code: Tensor) -> Tensor:
    """Undo :func:`level_to_code`, to within 0.05 dB."""
    level = 10 ** ((code - (CODEBOOK_SIZE - 1)) * LEVEL_STEP_DB / 20)
    return torch.where(code == 0, SILENCE, level)


def _lstm_position(layers: nn.Sequential) -> int:
    """Hold the state of the one layer with unlimited memory."""
    return next(index for index, layer in enumerate(layers) if isinstance(layer, SLSTM))


def _download(name: str) -> dict[str, Tensor]:
    """Fetch published weights into torch's hub folder, or find them there."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return torch.hub.load_state_dict_from_url(
            WEIGHTS_URL + name, map_location="cpu", check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise OSError(
            f"cannot download {WEIGHTS_URL}{name} ({error}): put the file {name} into {folder} "
            "or pass its path as weights"
        ) from error


def _read_state(path: Path, name: str) -> dict[str, Tensor]:
    """Read a state dict without running any code that a pickle may hold."""
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: weights must be the file {name} (from {WEIGHTS_URL}{name}) "
            "or the folder that holds it"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[:1] or ["it ends too early"]
        raise ValueError(f"{file} is not a state dict: {reason[0]}") from error


def _check_state(codec: EncodecCodec, state: Any, source: str) -> None:
    """Raise unless ``state`` holds exactly the codec's tensors."""
    if not isinstance(state, dict):
        raise ValueError(f"{source} holds a {type(state).__name__}, not a state dict")
    expected = codec.state_dict()
    for name in expected:
        if name not in state:
            raise ValueError(f"{source} lacks the tensor {name!r}")
        if state[name].shape != expected[name].shape:
            raise ValueError(
                f"{source}: tensor {name!r} must be {tuple(expected[name].shape)}, "
                f"got {tuple(state[name].shape)}"
            )
    for name in state:
        if name not in expected:
            raise ValueError(f"{source} holds an unknown tensor {name!r}")
