"""Describe one file to render, with every setting that shapes it."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RenderSettings:
    """Hold what shapes an item besides its prompts and seeds."""

    duration_s: float
    guidance: float  # classifier-free guidance scale of the prior; 1 for none
    temperature: float
    top_k: int | None  # candidates per code; None for all
    top_p: float | None  # share of the probability kept; None for all
    # of the diffusion decoder; None where the pipeline has none, or for a preview
    num_inference_steps: int | None
    preview: bool  # the codec's own decode in place of the diffusion decoder
    format: str  # of the audio file: "wav", "flac", "ogg" or "opus"
    # integrated loudness to reach (BS.1770, LUFS); None leaves the level alone
    loudness_lufs: float | None
    # SHA-256 of the token file that is rendered again; None where the prior generates
    codes: str | None = None
    # JSON of what is fixed of the plan (``inference.plan_schema``); None for nothing
    plan: dict[str, Any] | None = None
    ending: str = "ring"  # how a generated piece ends (``inference.endings``)
    # the row's ``edit``, with the SHA-256 of its source; None for a piece from nothing
    edit: dict[str, Any] | None = None


@dataclass(frozen=True)
class RenderItem:
    """Hold one audio file to render."""

    id: str  # names the files; unique in a job
    prompt: str
    negative_prompt: str | None  # what to move away from; None for nothing
    seed: int | None  # of the prior; None for tokens of encoded audio
    decoder_seed: int  # of decoder and vocoder
    settings: RenderSettings  # everything else that the result depends on
    # (K, T) integers from a token file; None where the prior generates them
    codes: np.ndarray | None = field(default=None, compare=False, repr=False)
    # absolute name of the file that is edited; "" for none
    source: str = field(default="", compare=False)

    @property
    def audio_name(self) -> str:
        """Return the name of the audio file."""
        return f"{self.id}.{self.settings.format}"

    @property
    def tokens_name(self) -> str:
        """Return the name of the token file."""
        return f"{self.id}.safetensors"

    def identity(self) -> dict[str, Any]:
        """Return all that two renders of one item must share, as JSON holds it."""
        return {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "decoder_seed": self.decoder_seed,
            "settings": asdict(self.settings),
        }
