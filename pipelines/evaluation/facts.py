"""Judge whether and how often clips have the facts that prompts ask for."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from pipelines.data.scores.instruments import FAMILIES
from pipelines.data.scores.keys import Key
from pipelines.evaluation.averages import mean_with_interval
from pipelines.evaluation.detectors import FAMILY_OF, LEADS, Detected
from pipelines.evaluation.ground_truth import Wanted
from pipelines.evaluation.second_opinion import SecondOpinion
from pipelines.evaluation.takes import Take

TEMPO_TOLERANCE = 0.04
# name -> what a report calls it, and the field of ``Wanted`` that asks for it
FACTS = {
    "tempo": ("tempo within 4 %", "tempo_bpm"),
    "tempo_octave": ("… or its half or double", "tempo_bpm"),
    "speed": ("speed word", "speed"),
    "key": ("key", "key"),
    "key_relative": ("… or its relative", "key"),
    "mode": ("mode", "mode"),
    "mode_word": ("… said by a word only", "mode_word"),
    "instrument": ("instrument is the first of its family", "instrument"),
    "instrument_any": ("… of all", "instrument"),
    "drums": ("drums as asked", "drums"),
    "tempo_librosa": ("tempo, librosa", "tempo_bpm"),
    "tempo_librosa_octave": ("… or its half or double, librosa", "tempo_bpm"),
    "key_krumhansl": ("key, Krumhansl-Kessler", "key"),
}


def judge(wanted: Wanted, detected: Detected, second: SecondOpinion) -> dict[str, bool]:
    """Say which of the asked facts a clip has; facts that were not asked for are left out."""
    judged: dict[str, bool] = {}
    if wanted.tempo_bpm is not None:
        judged["tempo"], judged["tempo_octave"] = judge_tempo(detected.tempo_bpm, wanted.tempo_bpm)
        if second.tempo_bpm is not None:
            judged["tempo_librosa"], judged["tempo_librosa_octave"] = judge_tempo(
                second.tempo_bpm, wanted.tempo_bpm
            )
    if wanted.speed is not None:
        low, high = wanted.speed
        reach = 1 + TEMPO_TOLERANCE
        judged["speed"] = low / reach <= detected.tempo_bpm <= high * reach
    if wanted.key is not None:
        judged["key"], judged["key_relative"] = judge_key(detected.key, wanted.key)
        if second.key is not None:
            judged["key_krumhansl"] = judge_key(second.key, wanted.key)[0]
    if wanted.mode is not None:
        judged["mode"] = detected.key.split()[1] == wanted.mode
        if wanted.mode_word:
            judged["mode_word"] = judged["mode"]
    if wanted.instrument is not None:
        family = FAMILIES[FAMILY_OF[wanted.instrument]]
        judged["instrument"] = detected.lead_among(family) == wanted.instrument
        judged["instrument_any"] = detected.lead_among(LEADS) == wanted.instrument
    if wanted.drums is not None:
        judged["drums"] = detected.drums == wanted.drums
    return judged


def judge_tempo(tempo_bpm: float, asked_bpm: float) -> tuple[bool, bool]:
    """Say whether a tempo is the asked one, and whether it is that, its half or its double."""
    hits = [abs(tempo_bpm / (asked_bpm * f) - 1) <= TEMPO_TOLERANCE for f in (1.0, 0.5, 2.0)]
    return hits[0], any(hits)


def judge_key(name: str, asked: Key) -> tuple[bool, bool]:
    """Say whether a key, such as "Bb minor", is the asked one, and whether that or its relative.

    The relative key has the same notes and the other mode.
    """
    key = Key(*name.split())
    exact = (key.root, key.mode) == (asked.root, asked.mode)
    return exact, exact or (key.mode != asked.mode and set(key.scale) == set(asked.scale))


def asked_facts(wanted: Wanted) -> list[str]:
    """List the names of the facts that are asked for."""
    return [name for name, (_, field) in FACTS.items() if getattr(wanted, field) is not None]


def fact_rates(
    takes: Sequence[Take], truth: Sequence[Take], ids: Collection[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Compute how often takes of the model have every fact; ``ids`` are of prompts, None for all.

    Returns:
        By the names of ``FACTS``: the rates (:func:`rate`) of the ``model``, of ground truth with
        the same labels (``ceiling``) and of every take judged by the labels of its seed's other
        takes (``floor``), and the share ``of_ceiling``. A take that is too silent for the detectors
        has none of the asked facts.
    """
    chosen = [take for take in takes if ids is None or take.prompt.id in ids]
    true = [take for take in truth if ids is None or take.prompt.id in ids]
    sides = {
        "model": judge_pairs((take, take) for take in chosen),
        "ceiling": judge_pairs((take, take) for take in true if take.detected is not None),
        "floor": judge_pairs(
            (take, other)
            for take in chosen
            for other in chosen
            if other.seed == take.seed and other.prompt.id != take.prompt.id
        ),
    }
    rates: dict[str, dict[str, Any]] = {}
    for fact in FACTS:
        row: dict[str, Any] = {side: rate(judged.get(fact, {})) for side, judged in sides.items()}
        share, ceiling = row["model"]["mean"], row["ceiling"]["mean"]
        row["of_ceiling"] = share / ceiling if share is not None and ceiling else None
        rates[fact] = row
    return rates


def judge_pairs(pairs: Iterable[tuple[Take, Take]]) -> dict[str, dict[str, list[bool]]]:
    """Judge the sound of each first take by the prompt of the second.

    Returns:
        fact -> id of the prompt -> right or wrong, take by take.
    """
    judged: dict[str, dict[str, list[bool]]] = {}
    for take, asking in pairs:
        wanted = asking.prompt.wanted
        if take.detected is None:
            facts = dict.fromkeys(asked_facts(wanted), False)
        else:
            facts = judge(wanted, take.detected, take.second)
        for fact, right in facts.items():
            judged.setdefault(fact, {}).setdefault(asking.prompt.id, []).append(right)
    return judged


def rate(judged: dict[str, list[bool]]) -> dict[str, Any]:
    """Average over prompts the averages over takes, with a 95 % interval; None without prompts."""
    shares = [float(np.mean(right)) for right in judged.values()]
    return mean_with_interval(shares) | {"num_prompts": len(shares)}
