"""Whether a clip has what a prompt asks for, fact by fact."""

from dataclasses import dataclass

from pipelines.evaluation.detectors import Detected
from pipelines.evaluation.instrument_tagger import FAMILIES, FAMILY_OF, LEADS
from pipelines.evaluation.prompts import Prompt
from pipelines.evaluation.tempo_and_key import parse_key, score_key, score_tempo

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


@dataclass(frozen=True)
class SecondOpinion:
    """Published detectors' tempo (librosa) and key ("D minor"); None where they gave none."""

    tempo_bpm: float | None
    key: str | None


def judge(prompt: Prompt, heard: Detected, second: SecondOpinion) -> dict[str, bool]:
    """Which of the asked facts a clip has; facts that were not asked for are left out."""
    judged: dict[str, bool] = {}
    if prompt.tempo_bpm is not None:
        score = score_tempo(heard.tempo_bpm, prompt.tempo_bpm, TEMPO_TOLERANCE)
        judged |= {"tempo": score.exact, "tempo_octave": score.octave}
        if second.tempo_bpm is not None:
            score = score_tempo(second.tempo_bpm, prompt.tempo_bpm, TEMPO_TOLERANCE)
            judged |= {"tempo_librosa": score.exact, "tempo_librosa_octave": score.octave}
    if prompt.speed is not None:
        low, high = prompt.speed
        reach = 1 + TEMPO_TOLERANCE
        judged["speed"] = low / reach <= heard.tempo_bpm <= high * reach
    if prompt.key is not None:
        asked = parse_key(prompt.key)
        key = score_key(heard.key, asked)
        judged |= {"key": key.exact, "key_relative": key.relative}
        if second.key is not None:
            judged["key_krumhansl"] = parse_key(second.key) == asked
    if prompt.mode is not None:
        judged["mode"] = heard.key.minor == (prompt.mode == "minor")
        if prompt.mode_word:
            judged["mode_word"] = judged["mode"]
    if prompt.instrument is not None:
        family = FAMILIES[FAMILY_OF[prompt.instrument]]
        judged["instrument"] = heard.first_of(family) == prompt.instrument
        judged["instrument_any"] = heard.first_of(LEADS) == prompt.instrument
    if prompt.drums is not None:
        judged["drums"] = heard.drums == prompt.drums
    return judged


def asked_facts(prompt: Prompt) -> list[str]:
    """Names of the facts that a prompt asks for."""
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
