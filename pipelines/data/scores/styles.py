"""Define the styles: harmony, meters, tempi, instruments, patterns and drums."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """Hold the values from which the features of a piece in this style are drawn.

    Attributes:
        bank: idiom in ``harmony.BANKS``.
        meters: meter names; a name that occurs twice is drawn twice as often, as in all fields.
        tempo: slowest and fastest, beats a minute.
        minor: probability of a minor key.
        leads: instruments for the tune.
        solos: polyphonic instruments for a solo; a duo replaces it when empty.
        chords: instruments for the accompaniment.
        patterns: names in ``accompaniment.CHORD_PATTERNS``.
        basses, bass_patterns: instruments and patterns of the bass; no bass when empty.
        drums: name in ``drums.PATTERNS``, None for no drums.
        drum_share: probability of drums in a band.
        kit: General MIDI drum kit program.
        pad: instruments for sustained chords behind a band.
        dynamics: names in ``DYNAMICS``.
        densities: names in ``melody.DENSITIES``.
        swing: play off-beats on the last third of the beat.
        weight: relative frequency of the style.
    """

    name: str
    bank: str
    meters: tuple[str, ...]
    tempo: tuple[int, int]
    minor: float
    leads: tuple[str, ...]
    solos: tuple[str, ...]
    chords: tuple[str, ...]
    patterns: tuple[str, ...]
    basses: tuple[str, ...] = ()
    bass_patterns: tuple[str, ...] = ()
    drums: str | None = None
    drum_share: float = 0.0
    kit: int = 0
    pad: tuple[str, ...] = ()
    dynamics: tuple[str, ...] = ("soft", "moderate", "loud")
    densities: tuple[str, ...] = ("sparse", "medium", "busy")
    swing: bool = False
    weight: float = 1.0


_TABLE = (
    Style("classical", "functional", ("4/4", "4/4", "3/4", "6/8"), (54, 168), 0.5,
          ("violin", "flute", "oboe", "clarinet", "cello", "piano", "french horn"),
          ("piano", "piano", "piano", "harpsichord", "organ", "harp", "acoustic guitar", "strings"),
          ("piano", "harp", "harpsichord", "strings"),
          ("alberti", "block", "updown", "arpeggio", "tenths"),
          ("double bass",), ("hold", "root"), pad=("strings",), weight=1.8),
    Style("baroque", "functional", ("4/4", "3/4"), (60, 132), 0.5,
          ("oboe", "violin", "flute", "harpsichord", "trumpet"),
          ("harpsichord", "harpsichord", "organ"),
          ("harpsichord", "organ", "pizzicato strings"), ("block", "arpeggio", "alberti"),
          ("double bass",), ("beats", "root"), pad=("strings",), densities=("medium", "busy"),
          weight=0.7),
    Style("folk", "pop", ("4/4", "4/4", "3/4", "6/8"), (70, 168), 0.4,
          ("flute", "violin", "accordion", "harmonica", "acoustic guitar", "banjo", "pan flute"),
          ("acoustic guitar", "acoustic guitar", "accordion", "banjo"),
          ("acoustic guitar", "accordion", "banjo"), ("strum", "arpeggio", "afterbeat"),
          ("double bass",), ("fifth", "root"), "folk", 0.45, densities=("medium", "busy"),
          weight=1.2),
    Style("rock", "pop", ("4/4",), (92, 180), 0.5,
          ("electric guitar", "distorted guitar", "organ", "saxophone"),
          ("electric guitar",), ("electric guitar", "distorted guitar", "piano"),
          ("pulse", "strum", "block"), ("bass",), ("eighths", "root", "fifth"), "rock", 0.95,
          dynamics=("moderate", "loud", "loud"), densities=("medium", "busy"), weight=1.1),
    Style("pop", "pop", ("4/4",), (76, 140), 0.4,
          ("piano", "electric piano", "acoustic guitar", "electric guitar", "synth lead", "flute"),
          ("piano", "electric piano", "acoustic guitar"),
          ("piano", "electric piano", "acoustic guitar"), ("block", "arpeggio", "strum", "pulse"),
          ("bass", "synth bass"), ("root", "eighths", "beats"), "pop", 0.9,
          pad=("strings", "synth pad"), weight=1.1),
    Style("ballad", "pop", ("4/4", "6/8"), (50, 84), 0.5,
          ("piano", "saxophone", "violin", "acoustic guitar", "flute", "electric guitar"),
          ("piano", "piano", "electric piano", "acoustic guitar"),
          ("piano", "acoustic guitar", "electric piano", "strings"), ("arpeggio", "block",
          "tenths"),
          ("bass",), ("hold", "root"), "ballad", 0.6, pad=("strings", "choir"),
          dynamics=("soft", "soft", "moderate"), densities=("sparse", "medium"), weight=1.1),
    Style("jazz", "jazz", ("4/4", "4/4", "4/4", "3/4"), (92, 200), 0.4,
          ("saxophone", "trumpet", "clarinet", "vibraphone", "piano", "electric guitar"),
          ("piano", "piano", "electric guitar", "vibraphone"), ("piano", "electric guitar"),
          ("charleston", "block"), ("double bass",), ("walking",), "swing", 0.85,
          densities=("medium", "busy"), swing=True, weight=1.3),
    Style("bossa nova", "jazz", ("4/4",), (104, 152), 0.5,
          ("flute", "saxophone", "acoustic guitar", "vibraphone", "electric piano"),
          ("acoustic guitar", "piano", "electric piano"),
          ("acoustic guitar", "acoustic guitar", "electric piano"), ("bossa",), ("double bass",
          "bass"),
          ("bossa",), "bossa", 0.85, dynamics=("soft", "moderate"),
          densities=("sparse", "medium")),
    Style("ambient", "modal", ("4/4", "4/4", "3/4"), (50, 96), 0.5,
          ("synth pad", "flute", "music box", "electric piano", "piano", "vibraphone", "choir"),
          ("piano", "synth pad", "electric piano", "harp"),
          ("electric piano", "harp", "piano", "vibraphone"), ("updown", "ostinato", "arpeggio"),
          ("synth bass",), ("hold",), "soft", 0.2, pad=("synth pad", "choir", "strings"),
          dynamics=("soft", "soft", "moderate"), densities=("sparse",)),
    Style("techno", "modal", ("4/4",), (118, 150), 0.85, ("synth lead", "synth lead", "synth pad"),
          (), ("synth lead", "synth pad", "electric piano"), ("ostinato", "stabs", "offbeat"),
          ("synth bass",), ("late", "eighths", "octaves"), "techno", 1.0, 24,
          dynamics=("loud",), densities=("sparse", "medium", "busy")),
    Style("electronic", "modal", ("4/4",), (84, 136), 0.7,
          ("synth lead", "electric piano", "synth pad", "music box"), ("electric piano",),
          ("synth pad", "electric piano", "synth lead"), ("ostinato", "arpeggio", "pulse"),
          ("synth bass",), ("eighths", "root", "octaves"), "electro", 0.85, 25,
          pad=("synth pad",), dynamics=("moderate", "loud")),
    Style("waltz", "functional", ("3/4",), (84, 192), 0.45,
          ("violin", "accordion", "clarinet", "flute", "piano", "strings"),
          ("piano", "piano", "accordion", "music box", "acoustic guitar"),
          ("piano", "accordion", "strings", "harp"), ("afterbeat",), ("double bass",), ("one",),
          "waltz", 0.3, densities=("sparse", "medium", "busy"), weight=1.1),
    Style("march", "functional", ("4/4", "6/8"), (96, 132), 0.25,
          ("trumpet", "brass", "flute", "clarinet", "french horn"), ("piano", "brass"),
          ("brass", "clarinet", "strings"), ("afterbeat", "block"), ("bass", "double bass"),
          ("fifth", "beats"), "march", 0.85, dynamics=("moderate", "loud", "loud"),
          densities=("medium",), weight=0.8),
    Style("lullaby", "functional", ("3/4", "6/8", "4/4"), (50, 88), 0.25,
          ("music box", "flute", "harp", "violin", "glockenspiel", "piano", "clarinet"),
          ("music box", "music box", "piano", "harp", "acoustic guitar", "vibraphone"),
          ("harp", "piano", "acoustic guitar", "strings"), ("updown", "arpeggio", "afterbeat"),
          pad=("strings",), dynamics=("soft",), densities=("sparse", "medium"), weight=0.9),
    Style("film", "modal", ("4/4", "4/4", "3/4", "6/8"), (56, 132), 0.65,
          ("french horn", "strings", "violin", "cello", "choir", "piano", "flute"),
          ("piano", "strings", "harp"), ("strings", "harp", "piano"),
          ("block", "ostinato", "arpeggio", "updown"), ("double bass",), ("hold", "root"), "epic",
          0.35, 48, ("strings", "choir"), densities=("sparse", "medium"), weight=1.1),
    Style("epic", "modal", ("4/4", "6/8"), (80, 150), 0.85, ("brass", "choir", "strings",
          "french horn"),
          ("strings",), ("strings", "pizzicato strings"), ("ostinato", "pulse", "block"),
          ("double bass",), ("eighths", "root"), "epic", 0.9, 48, ("choir", "brass"),
          dynamics=("loud",), densities=("sparse", "medium"), weight=0.8),
    Style("orchestral", "functional", ("4/4", "4/4", "3/4", "6/8"), (60, 144), 0.55,
          ("strings", "brass", "french horn", "choir", "violin", "trumpet", "flute", "oboe"),
          ("strings",), ("strings", "brass", "pizzicato strings", "choir"),
          ("ostinato", "block", "pulse", "arpeggio"), ("double bass",), ("hold", "root", "beats"),
          "epic", 0.6, 48, ("choir", "brass", "strings"), dynamics=("moderate", "loud"),
          densities=("sparse", "medium"), weight=0.9),
    Style("chiptune", "pop", ("4/4", "4/4", "3/4"), (110, 190), 0.4, ("chiptune lead",), (),
          ("chiptune lead",), ("arpeggio", "ostinato", "offbeat"), ("synth bass",),
          ("octaves", "eighths"), "chip", 0.7, 25, dynamics=("moderate", "loud"),
          densities=("medium", "busy"), weight=0.8),
    Style("funk", "blues", ("4/4",), (88, 124), 0.5,
          ("saxophone", "trumpet", "electric guitar", "electric piano", "organ"),
          ("electric piano",), ("electric guitar", "electric piano", "brass"), ("stabs", "offbeat"),
          ("bass",), ("funk",), "funk", 1.0, dynamics=("moderate", "loud"),
          densities=("medium", "busy"), weight=0.8),
    Style("blues", "blues", ("4/4",), (66, 132), 0.3,
          ("harmonica", "electric guitar", "saxophone", "piano", "acoustic guitar"),
          ("piano", "electric guitar", "acoustic guitar"), ("piano", "organ", "electric guitar"),
          ("block", "charleston", "pulse"), ("bass", "double bass"), ("walking", "boogie", "fifth"),
          "shuffle", 0.75, densities=("medium",), swing=True),
    Style("latin", "functional", ("4/4",), (88, 176), 0.6,
          ("trumpet", "marimba", "flute", "acoustic guitar", "pan flute", "accordion"),
          ("acoustic guitar", "marimba"), ("acoustic guitar", "piano", "marimba"),
          ("bossa", "strum", "offbeat"), ("bass", "double bass"), ("bossa", "fifth"), "bossa", 0.85,
          densities=("medium", "busy"), weight=0.8),
    Style("hymn", "functional", ("4/4", "3/4"), (60, 100), 0.3,
          ("choir", "organ", "strings", "trumpet", "brass"), ("organ", "organ", "choir", "strings"),
          ("organ", "choir", "strings"), ("block", "pad"), densities=("sparse",),
          dynamics=("soft", "moderate", "loud"), weight=0.7),
    Style("new age", "modal", ("4/4", "6/8", "3/4"), (56, 104), 0.5,
          ("pan flute", "harp", "piano", "marimba", "flute", "cello"),
          ("piano", "harp", "marimba", "vibraphone", "acoustic guitar"),
          ("harp", "piano", "acoustic guitar", "marimba"), ("updown", "arpeggio", "ostinato",
          "tenths"),
          pad=("synth pad", "choir", "strings"), dynamics=("soft", "moderate"),
          densities=("sparse", "medium")),
)  # fmt: skip
STYLES = {style.name: style for style in _TABLE}
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
    "chiptune": ("playful",),
    "hymn": ("solemn",), "march": ("proud",), "new age": ("dreamy",), "waltz": ("elegant",),
}  # fmt: skip
