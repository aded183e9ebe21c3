"""Describe one file to render, with every setting that shapes it."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RenderSettings:
    """Hold what shapes an item besides its prompts and seeds.

    Attributes:
        guidance: classifier-free guidance scale of the prior; 1 for none.
        top_k: candidates per code; None for all.
        top_p: share of the probability kept; None for all.
        num_inference_steps: of the diffusion decoder; None where the pipeline has none, or for a
            preview.
        preview: the codec's own decode in place of the diffusion decoder.
        format: of the audio file: "wav", "flac", "ogg" or "opus".
        loudness_lufs: integrated loudness to reach (BS.1770, LUFS); None leaves the level alone.
        codes: SHA-256 of the token file that is rendered again; None where the prior generates.
        plan: JSON of what is fixed of the plan (``inference.plan_schema``); None for nothing.
        ending: how a generated piece ends (``inference.endings``).
        edit: the row's ``edit``, with the SHA-256 of its source; None for a piece from nothing.
    """

    duration_s: float
    guidance: float
    temperature: float
    top_k: int | None
    top_p: float | None
    num_inference_steps: int | None
    preview: bool
    format: str
    loudness_lufs: float | None
    codes: str | None = None
    plan: dict[str, Any] | None = None
    ending: str = "ring"
    edit: dict[str, Any] | None = None


@dataclass(frozen=True)
class RenderItem:
    """Hold one audio file to render.

    Attributes:
        id: names the files; unique in a job.
        negative_prompt: what to move away from; None for nothing.
        seed: of the prior; None for tokens of encoded audio.
        decoder_seed: of decoder and vocoder.
        settings: everything else that the result depends on.
        codes: (K, T) integers from a token file; None where the prior generates them.
        source: absolute name of the file that is edited; "" for none.
    """

    id: str
    prompt: str
    negative_prompt: str | None
    seed: int | None
    decoder_seed: int
    settings: RenderSettings
    codes: np.ndarray | None = field(default=None, compare=False, repr=False)
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
