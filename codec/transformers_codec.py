"""TransformersCodec: DAC, Mimi, EnCodec and X-Codec of transformers behind our contract."""

import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from codec.component import Component, register_to_config
from codec.torchaudio_guard import guard_torchaudio
from codec.validation import check_audio, check_codes

Kind = Literal["dac", "mimi", "encodec", "xcodec"]


class TransformersCodec(Component):
    """A codec of the transformers library, whole pieces at a time.

    Audio is padded with silence to whole frames; what is decoded is as long as its frames, and
    begins where the audio began. Sizes and rates are the model's own.

    Args:
        kind: model type as the library calls it.
        settings: of the model's config, as its ``config.json`` holds them.
        num_codebooks: K, the first codebooks that are used; None for all.

    Raises:
        ValueError: another kind, an EnCodec that cuts or scales its input (the 48 kHz model, which
            ``EncodecCodec`` runs), or a number of codebooks that the model does not have.
    """

    @register_to_config
    def __init__(
        self, kind: Kind, settings: dict[str, Any], num_codebooks: int | None = None
    ) -> None:
        super().__init__()
        guard_torchaudio()
        from transformers import AutoConfig, AutoModel

        if kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        config = AutoConfig.for_model(kind, **settings)
        if kind == "encodec" and (config.chunk_length_s or config.normalize):
            raise ValueError("an EnCodec that cuts or scales its input is run by EncodecCodec")
        most = config.n_codebooks if kind == "dac" else config.num_quantizers
        if num_codebooks is not None and not 1 <= num_codebooks <= most:
            raise ValueError(f"num_codebooks must lie in [1, {most}], got {num_codebooks}")
        with warnings.catch_warnings():  # importing a model adds filters
            self.model = AutoModel.from_config(config)
        self.sample_rate = int(config.sample_rate if kind == "xcodec" else config.sampling_rate)
        self.channels = int(getattr(config, "audio_channels", 1))
        self.num_codebooks = int(num_codebooks or most)
        self.codebook_size = int(config.codebook_size)
        self.hop_length = int(
            config.hop_length if kind != "mimi" else self.sample_rate / config.frame_rate
        )
        self.eval()

    @classmethod
    def from_transformers(
        cls, name_or_model: Any, num_codebooks: int | None = None
    ) -> "TransformersCodec":
        """Take over a model of the library, or one that it loads from a folder or the hub.

        Args:
            name_or_model: a model, for example "descript/dac_44khz" or ``MimiModel(config)``.
            num_codebooks: see the class.
        """
        guard_torchaudio()
        from transformers import AutoModel

        model = name_or_model
        if isinstance(model, str):
            with warnings.catch_warnings():
                model = AutoModel.from_pretrained(model)
        settings = model.config.to_diff_dict()
        for name in ("model_type", "transformers_version", "architectures", "dtype"):
            settings.pop(name, None)
        codec = cls(model.config.model_type, settings, num_codebooks)
        codec.model.load_state_dict(model.state_dict())
        return codec

    @property
    def frame_rate(self) -> float:
        """Token frames per second (Hz)."""
        return self.sample_rate / self.hop_length

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Turn a waveform into codes.

        Args:
            audio: (B, C, S) float in [-1, 1] at ``sample_rate`` Hz. S need not divide the hop.

        Returns:
            (B, K, T) int64 in [0, V), with T = ceil(S / hop_length).

        Raises:
            ValueError: audio is not (B, C, S), has the wrong channel count, or holds NaN.
        """
        check_audio(audio, self.channels)
        audio = pad(audio.float(), (0, -audio.shape[-1] % self.hop_length))
        books = self.num_codebooks
        if self.config.kind == "dac":
            codes = self.model.encode(audio, n_quantizers=books).audio_codes
        elif self.config.kind == "mimi":
            # its first codebooks are not optional
            codes = self.model.encode(audio).audio_codes
        elif self.config.kind == "xcodec":
            codes = self.model.encode(audio).audio_codes
        else:
            bandwidth = self.model.config.target_bandwidths[-1]
            codes = self.model.encode(audio, bandwidth=bandwidth).audio_codes[0]
        return codes[:, :books, : audio.shape[-1] // self.hop_length]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn the first 1 <= k <= K codebooks of codes into audio.

        Args:
            codes: (B, k, T) int64 in [0, V).

        Returns:
            (B, C, T * hop_length) float32.

        Raises:
            ValueError: codes have the wrong rank, dtype or range.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        if self.config.kind == "dac":
            audio = self.model.decode(audio_codes=codes).audio_values[:, None]
        elif self.config.kind in ("mimi", "xcodec"):
            audio = self.model.decode(codes).audio_values
        else:
            audio = self.model.decode(codes[None], [None]).audio_values
        wanted = codes.shape[-1] * self.hop_length
        return pad(audio, (0, max(0, wanted - audio.shape[-1])))[..., :wanted].float()
