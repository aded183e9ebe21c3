"""Whether music keeps the tempo, the key and the instrument that its labels ask for."""

from collections import defaultdict
from typing import Any

from torch import Tensor

from pipelines.evaluation.reasons import MissingPackageError, UnmeasurableError

FAMILIES = {
    "piano": ("piano", "electric piano"),
    "guitar": ("acoustic guitar", "electric guitar", "distorted guitar"),
    "strings": ("strings", "violin", "viola", "cello", "pizzicato strings"),
    "flute": ("flute", "pan flute"),
}
"""The instruments that musicnn tells apart well, and ours that belong to them."""
Hits = dict[str, list[bool]]


def keeps(audio: Tensor, sample_rate: int, labels: dict[str, Any], why_not: set[str]) -> Hits:
    """What of the labels is heard, fact by fact; a fact without a label or detector is left out.

    Args:
        audio: (C, S) float32 at ``sample_rate`` Hz.
        sample_rate: Hz.
        labels: of the piece that was asked for.
        why_not: takes the reasons of what could not be detected.
    """
    from pipelines.evaluation import music
    from pipelines.evaluation.musicnn import tag_probabilities

    hits: Hits = defaultdict(list)

    def tempo() -> None:
        if labels.get("tempo_bpm"):
            heard = music.estimate_tempo(audio, sample_rate)
            hits["tempo"].append(music.score_tempo(heard, labels["tempo_bpm"]).octave)

    def key() -> None:
        if labels.get("key"):
            asked = music.parse_key(f"{labels['key']} {labels['mode']}")
            hits["key"].append(music.score_key(music.estimate_key(audio, sample_rate), asked).exact)

    def instrument() -> None:
        family = family_of(labels.get("lead"))
        if family is not None:
            tags = tag_probabilities(audio, sample_rate)
            hits["instrument"].append(music.top_instrument(tags) == family)

    for detect in (tempo, key, instrument):
        try:
            detect()
        except (MissingPackageError, UnmeasurableError) as error:
            why_not.add(f"{detect.__name__}: {error}")
    return hits


def family_of(lead: str | None) -> str | None:
    """The family of the instrument that leads, if musicnn knows it."""
    return next((family for family, names in FAMILIES.items() if lead in names), None)
