"""What a pipeline returns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.audio_file import WriteReport, write_audio
from prior.plan import Plan


@dataclass
class MusicOutput:
    """Rendered items with all that is needed to render them again.

    Attributes:
        audio: (B, C, S) float32.
        sample_rate: Hz.
        codes: (B, K, T) int64, what the prior wrote.
        seeds: of the prior, one per item.
        decoder_seeds: of decoder and vocoder, one per item.
        settings: every other setting of the call.
        plans: what the prior was told of beat, key, chords and players, one per item; None
            without a planner.
    """

    audio: Tensor
    sample_rate: int
    codes: Tensor
    seeds: list[int]
    decoder_seeds: list[int]
    settings: dict[str, Any] = field(default_factory=dict)
    plans: list[Plan | None] = field(default_factory=list)

    def save(self, path: str | Path) -> list[WriteReport]:
        """Write the items: ``song.wav`` for one, ``song-0.wav``, ``song-1.wav``... for several.

        The format follows from the suffix (see ``codec.audio_file.write_audio``).
        """
        path = Path(path)
        names = (
            [path]
            if len(self.audio) == 1
            else [path.with_stem(f"{path.stem}-{index}") for index in range(len(self.audio))]
        )
        return [
            write_audio(name, audio, self.sample_rate)
            for name, audio in zip(names, self.audio, strict=True)
        ]
