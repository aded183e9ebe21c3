"""Hold the settings of ``partita prepare audio`` and ``partita prepare music``."""

import math
from dataclasses import dataclass

from pipelines.errors import check_fields


@dataclass(frozen=True)
class PrepareConfig:
    """Set where recordings are read, how they are cut, and where the dataset is written."""

    input: str  # folder, archive (.zip, .pk3), ``metadata.jsonl`` or text file of paths
    output: str  # folder of the prepared dataset
    clip_s: float = 20.0  # length of a clip (s), a multiple of 0.04
    min_clip_s: float = 5.0  # shortest last piece of a track that is kept (s)
    min_track_s: float = 5.0  # shorter tracks are skipped (s)
    silence_db: float = -60.0  # clips below this RMS are dropped (dB of full scale)
    audio: str = "keep"  # "keep" stores FLAC beside each spectrogram, "none" does not
    source: str = ""  # source of all tracks; by default the first folder below the input
    license: str = ""  # license of tracks whose metadata name none
    attribution: str = ""  # attribution of tracks whose metadata name none
    validation_fraction: float = 0.05  # fraction of the tracks, drawn by a hash of their names
    # sources that go to validation whole; then nothing is drawn
    validation_source: tuple[str, ...] = ()
    # a track that shares this much of the shorter one's sound with a longer track is dropped
    duplicate_fraction: float = 0.5
    shard_clips: int = 256  # clips per Arrow shard
    workers: int = 1  # processes; the result does not depend on it
    # of a running dask cluster, tcp://host:port, whose workers see the same folders
    scheduler: str | None = None
    quiet: bool = False  # no progress bar

    def __post_init__(self) -> None:
        check_fields(
            self,
            "clip_s",
            lambda clip_s: 0.04 <= clip_s <= 600 and abs(clip_s * 25 % 1) < 1e-6,
            "be a multiple of 0.04 s (a token frame) up to 600",
        )
        within = f"lie in [0, clip_s] with clip_s={self.clip_s}"
        check_fields(self, "min_clip_s", lambda seconds: 0 <= seconds <= self.clip_s, within)
        check_fields(self, "min_track_s", lambda seconds: 0 <= seconds < math.inf, "be 0 or more")
        check_fields(self, "audio", ("keep", "none").__contains__, "be keep or none")
        fractions = "validation_fraction duplicate_fraction"
        check_fields(self, fractions, lambda share: 0 <= share <= 1, "lie in [0, 1]")
        check_fields(self, "shard_clips workers", lambda count: count >= 1, "be at least 1")
