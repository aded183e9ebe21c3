"""What a pipeline returns."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.audio_file import WriteReport, write_audio
from prior.plan import Plan
from prior.sampling import Sampling


@dataclass
class MusicOutput:
    """Rendered items with all that is needed to render them again.

    Attributes:
        audios: (B, C, S) float32; codes for ``output_type="latent"``.
        sample_rate: Hz.
        codes: (B, K, T) int64, what the prior wrote.
        seeds: of the prior, one per item.
        decoder_seeds: of decoder and vocoder, one per item.
        settings: every other setting of the call.
        plans: what the prior read of tempo, key, chords and instruments, one per item; None for an
            item without.
    """

    audios: Any
    sample_rate: int
    codes: Tensor
    seeds: list[int]
    decoder_seeds: list[int]
    settings: dict[str, Any] = field(default_factory=dict)
    plans: list[Plan | None] = field(default_factory=list)

    def item(self, index: int) -> "MusicOutput":
        """Return one of the items, alone."""
        at = slice(index, index + 1)
        return replace(
            self,
            audios=self.audio[at],
            codes=self.codes[at],
            seeds=self.seeds[at],
            decoder_seeds=self.decoder_seeds[at],
            settings=self.settings | {"prompt": self.settings["prompt"][at]},
            plans=self.plans[at],
        )

    @property
    def audio(self) -> Any:
        """``audios``."""
        return self.audios

    def save(self, path: str | Path) -> list[WriteReport]:
        """Write the items: ``song.wav`` for one, ``song-0.wav``, ``song-1.wav``... for several.

        The format follows from the suffix (see ``codec.audio_file.write_audio``).
        """
        path = Path(path)
        if self.audios is self.codes:
            raise ValueError("output_type='latent' holds codes and no audio that could be saved")
        names = (
            [path]
            if len(self.audio) == 1
            else [path.with_stem(f"{path.stem}-{index}") for index in range(len(self.audio))]
        )
        return [
            write_audio(name, torch.as_tensor(audio), self.sample_rate)
            for name, audio in zip(names, self.audio, strict=True)
        ]


def describe_call(
    prompts: list[str],
    negative_prompt: str | list[str | None] | None,
    duration_s: float,
    sampling: Sampling,
    num_inference_steps: int | None,
    preview: bool,
) -> dict[str, Any]:
    """Name the settings of a call as ``MusicOutput.settings`` and token files hold them."""
    return {
        "prompt": prompts,
        "negative_prompt": negative_prompt,
        "duration_s": duration_s,
        "guidance": sampling.guidance,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "num_inference_steps": num_inference_steps,
        "preview": preview,
    }
