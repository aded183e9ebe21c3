"""Facts that a prompt asks for, and whether a clip has them."""

from pipelines.data.scores.keys import Key
from pipelines.evaluation.detectors import FAMILIES, FAMILY_OF, LEADS, Detected
from pipelines.evaluation.prompts import Prompt
from pipelines.evaluation.second_opinion import SecondOpinion

TEMPO_TOLERANCE = 0.04
# name -> what a report calls it
FACTS = {
    "tempo": "tempo within 4 %",
    "tempo_octave": "… or its half or double",
    "speed": "speed word",
    "key": "key",
    "key_relative": "… or its relative",
    "mode": "mode",
    "mode_word": "… said by a word only",
    "instrument": "instrument is the first of its family",
    "instrument_any": "… of all",
    "drums": "drums as asked",
    "tempo_librosa": "tempo, librosa",
    "tempo_librosa_octave": "… or its half or double, librosa",
    "key_krumhansl": "key, Krumhansl-Kessler",
}


def judge(prompt: Prompt, detected: Detected, second: SecondOpinion) -> dict[str, bool]:
    """Say which of the asked facts a clip has; facts that were not asked for are left out."""
    judged: dict[str, bool] = {}
    if prompt.tempo_bpm is not None:
        judged["tempo"], judged["tempo_octave"] = judge_tempo(detected.tempo_bpm, prompt.tempo_bpm)
        if second.tempo_bpm is not None:
            judged["tempo_librosa"], judged["tempo_librosa_octave"] = judge_tempo(
                second.tempo_bpm, prompt.tempo_bpm
            )
    if prompt.speed is not None:
        low, high = prompt.speed
        reach = 1 + TEMPO_TOLERANCE
        judged["speed"] = low / reach <= detected.tempo_bpm <= high * reach
    if prompt.key is not None:
        judged["key"], judged["key_relative"] = judge_key(detected.key, prompt.key)
        if second.key is not None:
            judged["key_krumhansl"] = judge_key(second.key, prompt.key)[0]
    if prompt.mode is not None:
        judged["mode"] = detected.key.split()[1] == prompt.mode
        if prompt.mode_word:
            judged["mode_word"] = judged["mode"]
    if prompt.instrument is not None:
        family = FAMILIES[FAMILY_OF[prompt.instrument]]
        judged["instrument"] = detected.lead_among(family) == prompt.instrument
        judged["instrument_any"] = detected.lead_among(LEADS) == prompt.instrument
    if prompt.drums is not None:
        judged["drums"] = detected.drums == prompt.drums
    return judged


def judge_tempo(tempo_bpm: float, asked_bpm: float) -> tuple[bool, bool]:
    """Say whether a tempo is the asked one, and whether it is that, its half or its double."""
    hits = [abs(tempo_bpm / (asked_bpm * f) - 1) <= TEMPO_TOLERANCE for f in (1.0, 0.5, 2.0)]
    return hits[0], any(hits)


def judge_key(name: str, asked_name: str) -> tuple[bool, bool]:
    """Say whether a key, such as "Bb minor", is the asked one, and whether that or its relative.

    The relative key has the same notes and the other mode.
    """
    key, asked = (Key(*text.split()) for text in (name, asked_name))
    exact = (key.root, key.mode) == (asked.root, asked.mode)
    return exact, exact or (key.mode != asked.mode and set(key.scale) == set(asked.scale))


def asked_facts(prompt: Prompt) -> list[str]:
    """List the names of the facts that a prompt asks for."""
    asked = {
        ("tempo", "tempo_octave", "tempo_librosa", "tempo_librosa_octave"): prompt.tempo_bpm,
        ("speed",): prompt.speed,
        ("key", "key_relative", "key_krumhansl"): prompt.key,
        ("mode",): prompt.mode,
        ("mode_word",): prompt.mode if prompt.mode_word else None,
        ("instrument", "instrument_any"): prompt.instrument,
        ("drums",): prompt.drums,
    }
    return [name for names, value in asked.items() if value is not None for name in names]
