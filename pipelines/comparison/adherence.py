"""Whether music keeps the tempo, the key, the instrument and the drums that its labels name."""

from typing import Any

from torch import Tensor

from pipelines.evaluation.facts import SecondOpinion, asked_facts, judge
from pipelines.evaluation.instrument_tagger import FAMILY_OF
from pipelines.evaluation.prompts import Prompt
from pipelines.evaluation.reasons import UnmeasurableError

FACTS = ("tempo_octave", "key", "instrument", "drums")
"""Of ``evaluation.facts``: tempo within 4 %, or half or double of it; the exact key; the lead
among its family; drums or none."""


def kept(audio: Tensor, sample_rate: int, labels: dict[str, Any]) -> dict[str, bool]:
    """What of the labels is heard; facts that they do not name are left out.

    Args:
        audio: (C, S) float32 at ``sample_rate`` Hz.
        sample_rate: Hz.
        labels: of the piece that was asked for; music without sound keeps none of them.

    Raises:
        MissingPackageError: a detector's package is not installed.
    """
    from pipelines.evaluation.detectors import load_detectors

    asked = prompt_of(labels)
    if not asked_facts(asked):
        return {}
    try:
        heard = load_detectors().detect(audio, sample_rate)
    except UnmeasurableError:  # silent or shorter than three seconds
        judged = dict.fromkeys(asked_facts(asked), False)
    else:
        judged = judge(asked, heard, SecondOpinion(None, None))
    return {fact: judged[fact] for fact in FACTS if fact in judged}


def prompt_of(labels: dict[str, Any]) -> Prompt:
    """The labels of a rendered clip as a prompt that asks for all of them."""
    lead = labels.get("lead")
    return Prompt(
        id="",
        group="trained",
        text="",
        tempo_bpm=labels.get("tempo_bpm"),
        key=f"{labels['key']} {labels['mode']}" if labels.get("key") else None,
        mode=labels.get("mode"),
        instrument=lead if lead in FAMILY_OF else None,
        drums=labels.get("drums"),
    )
