"""The parts of a pipeline: tokenizer, networks, and the defaults of a call."""

import threading
from typing import Any, Self

import torch
from torch import nn

from codec.component import Config
from decoder.diffusion_decoder import DiffusionDecoder
from pipelines.inference.components import DEFAULTS, OPTIONAL, REQUIRED, check_fit
from prior.model import Prior


class PipelineParts:
    """Hold text encoder, prior, diffusion decoder and codec, with the defaults of a call.

    Args:
        tokenizer: of the text encoder.
        text_encoder: frozen.
        codec: its first codebooks are what the prior generates.
        prior: generates codes from token states.
        decoder: paints the fine spectrogram; None leaves the codec's own decode.
        scheduler: diffusers' flow-matching Euler solver; needed with a decoder.
        planner: a prior that writes plans (tempo, key, chords, instruments); None leaves the prior
            without a plan.
        guidance: default classifier-free guidance scale.
        temperature: default sampling temperature.
        top_k: default number of candidates per code.
        max_duration_s: the longest piece that may be asked for (s).
        fine_temperature: factor on the temperature of the third and later codebooks; None for what
            the prior's config says, where earlier versions kept it, or else 1.
    """

    tokenizer: Any
    text_encoder: nn.Module
    codec: Any  # a ``Codec`` that is a module
    prior: Prior
    decoder: DiffusionDecoder | None
    scheduler: Any
    planner: Prior | None
    config: Any  # the defaults, by attribute or by key

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: nn.Module,
        codec: Any,
        prior: Prior,
        decoder: DiffusionDecoder | None = None,
        scheduler: Any = None,
        planner: Prior | None = None,
        guidance: float = 3.0,
        temperature: float = 1.0,
        top_k: int = 250,
        max_duration_s: float = 600.0,
        fine_temperature: float | None = None,
    ) -> None:
        super().__init__()
        check_fit(codec, prior, decoder, scheduler, planner)
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            codec=codec,
            prior=prior,
            decoder=decoder,
            scheduler=scheduler,
            planner=planner,
        )
        if fine_temperature is None:
            fine_temperature = prior.config.get("_fine_temperature", 1.0)
        self.register_to_config(
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            max_duration_s=max_duration_s,
            fine_temperature=fine_temperature,
        )
        self._calls: dict[int, threading.Event] = {}
        for part in (text_encoder, codec, prior, decoder, planner):
            if part is not None:
                part.eval()

    def register_modules(self, **parts: Any) -> None:
        """Keep the parts by name."""
        self.__dict__.update(parts)

    def register_to_config(self, **values: Any) -> None:
        """Add values to ``config``, or replace them."""
        self.__dict__["config"] = Config(self.__dict__.get("config", {}) | values)

    @property
    def name_or_path(self) -> str | None:
        """The folder or hub id that this was loaded from."""
        return self.config.get("_name_or_path")

    @property
    def components(self) -> dict[str, Any]:
        """Parts and defaults by name."""
        parts = {name: getattr(self, name) for name in (*REQUIRED, *OPTIONAL)}
        return parts | {name: self.config[name] for name in DEFAULTS}

    @property
    def device(self) -> torch.device:
        """Where the prior computes."""
        return self.prior.device

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Bring all networks to a device or a type, as ``nn.Module.to`` does."""
        for part in self.components.values():
            if isinstance(part, nn.Module):
                part.to(*args, **kwargs)
        return self

    def maybe_free_model_hooks(self) -> None:
        """Offload parts that a call brought in, where diffusers offloads."""

    def set_progress_bar_config(self, **options: Any) -> None:
        """Set options of the progress bars (tqdm)."""
        self.__dict__["progress_bar_config"] = options

    def progress_bar(self, total: int) -> Any:
        """Open a progress bar."""
        from tqdm.auto import tqdm

        return tqdm(total=total, **self.__dict__.get("progress_bar_config", {}))

    def check_dtype(self) -> None:
        """Raise ValueError unless codec and decoder are float32, in which they compute."""
        for name in ("codec", "decoder"):
            part = getattr(self, name)
            dtype = next((p.dtype for p in part.parameters()), torch.float32) if part else None
            if dtype not in (None, torch.float32):
                raise ValueError(
                    f"a pipeline computes in torch.float32, the {name} is {dtype}: "
                    f"pipeline.{name}.to(torch.float32)"
                )
