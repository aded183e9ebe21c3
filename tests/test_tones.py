"""Single tones through a system, and how far off they come back."""

import math

import pytest
import torch

from pipelines.errors import MissingPackageError
from pipelines.evaluation.systems import ORIGINAL, System
from pipelines.evaluation.tones import PITCHES, play_tones, tone_errors, tone_values


def test_the_original_is_in_tune():
    values = tone_values(ORIGINAL)
    assert values["tone_cents"] < 1
    assert values["tone_cents_9_of_10"] < 2


@pytest.mark.parametrize("cents", [-70.0, 20.0])
def test_a_constant_detuning_is_read_in_cents(cents):
    time = torch.arange(44100) / 44100
    hertz = [440 * 2 ** ((pitch - 69 + cents / 100) / 12) for pitch in PITCHES]
    tones = torch.cat([torch.sin(2 * math.pi * frequency * time) for frequency in hertz])
    errors = tone_errors(tones[None])
    assert len(errors) == len(PITCHES)
    assert errors == pytest.approx([abs(cents)] * len(PITCHES), abs=2)


def test_a_silent_tone_is_infinitely_far_off():
    tones = play_tones()
    tones[:, :44100] = 0
    errors = tone_errors(tones)
    assert errors[-1] == math.inf
    assert errors[-2] < 2


def test_a_tone_an_octave_higher_is_twelve_hundred_cents_off():
    tones = play_tones()
    tones[:, :44100] = play_tones()[:, :88200:2]  # the first two tones at twice the speed
    tones[:, 22050:44100] = tones[:, :22050]
    assert tone_errors(tones)[-1] == pytest.approx(1200, abs=5)


def test_a_silent_system_says_so():
    mute = System("mute", "mute", "1", lambda audio, rate: (0 * audio, None))
    assert tone_values(mute)["tone_cents"] == "silent"


def test_a_missing_program_is_the_reason():
    def fail(audio: torch.Tensor, rate: int) -> tuple[torch.Tensor, None]:
        raise MissingPackageError("needs ffmpeg")

    assert tone_values(System("opus", "opus", "1", fail)) == {"tone_cents": "needs ffmpeg"}
