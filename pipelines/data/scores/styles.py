"""Define the styles: harmony, meters, tempi, instruments, patterns and drums."""

from dataclasses import dataclass

from pipelines.data.scores.tables import read_table


@dataclass(frozen=True)
class Style:
    """Hold the values from which the features of a piece in this style are drawn."""

    name: str
    bank: str  # idiom in ``harmony.BANKS``
    # meter names; a name that occurs twice is drawn twice as often, as in all fields
    meters: tuple[str, ...]
    tempo: tuple[int, int]  # slowest and fastest, beats a minute
    minor: float  # probability of a minor key
    leads: tuple[str, ...]  # instruments for the tune
    solos: tuple[str, ...]  # polyphonic instruments for a solo; a duo replaces it when empty
    chords: tuple[str, ...]  # instruments for the accompaniment
    patterns: tuple[str, ...]  # names in ``accompaniment.CHORD_PATTERNS``
    # basses, bass_patterns: instruments and patterns of the bass; no bass when empty
    basses: tuple[str, ...] = ()
    bass_patterns: tuple[str, ...] = ()
    drums: str | None = None  # name in ``drums.PATTERNS``, None for no drums
    drum_share: float = 0.0  # probability of drums in a band
    kit: int = 0  # General MIDI drum kit program
    pad: tuple[str, ...] = ()  # instruments for sustained chords behind a band
    dynamics: tuple[str, ...] = ("soft", "moderate", "loud")  # names in ``DYNAMICS``
    densities: tuple[str, ...] = ("sparse", "medium", "busy")  # of the tune
    swing: bool = False  # play off-beats on the last third of the beat
    weight: float = 1.0  # relative frequency of the style


STYLES = {name: Style(name, **fields) for name, fields in read_table("styles").items()}
DYNAMICS = {"soft": 60, "moderate": 82, "loud": 106}
"""Percentage by which the velocities of a piece are scaled."""


def moods(style: str, mode: str | None, tempo_bpm: float, dynamics: str) -> list[str]:
    """List the mood labels that fit mode, speed, dynamics and style."""
    speed = "slow" if tempo_bpm < 84 else "fast" if tempo_bpm > 132 else "medium"
    words = list(_MOODS[mode or "major", speed])
    if dynamics == "soft":
        words.append("calm" if speed != "fast" else "light")
    if dynamics == "loud":
        words.append("powerful" if mode == "minor" or speed == "slow" else "energetic")
    return list(dict.fromkeys([*words, *_STYLE_MOODS.get(style, ())]))


_MOODS = {
    ("major", "slow"): ("peaceful", "tender"),
    ("major", "medium"): ("warm", "happy"),
    ("major", "fast"): ("joyful", "energetic"),
    ("minor", "slow"): ("sad", "melancholic"),
    ("minor", "medium"): ("serious", "wistful"),
    ("minor", "fast"): ("tense", "dramatic"),
}
_STYLE_MOODS = {
    "ambient": ("dreamy",), "lullaby": ("gentle",), "epic": ("heroic",), "film": ("cinematic",),
    "funk": ("groovy",), "techno": ("driving",), "bossa nova": ("relaxed",),
    "chiptune": ("playful",), "chorale": ("solemn",),
    "hymn": ("solemn",), "march": ("proud",), "new age": ("dreamy",), "waltz": ("elegant",),
}  # fmt: skip
