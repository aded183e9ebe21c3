"""Loudness and true peak: published facts, other implementations, and nothing ever clipped."""

import math
import re
import shutil
import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codec.audio_file import write_audio
from codec.seeds import generator
from pipelines.evaluation.loudness import integrated_loudness
from pipelines.rendering import mastering
from pipelines.rendering.limiter import limit
from pipelines.rendering.mastering import NUM_TAPS, TRUE_PEAK_TAPS, decibels, master, true_peak


def tone(level_db: float, seconds: float = 3.0, hertz: float = 997.0, rate: int = 48000) -> Tensor:
    """The same sine in both channels, (2, S); its peak at ``level_db`` of full scale."""
    times = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (10 ** (level_db / 20) * torch.sin(2 * math.pi * hertz * times)).float().repeat(2, 1)


def noise(seconds: float, rate: int = 44100, seed: int = 0) -> Tensor:
    """White noise in two channels, the level of which changes every quarter of a second."""
    samples = round(seconds * rate)
    steps = torch.rand(math.ceil(seconds * 4), generator=generator(seed, "level"))
    level = steps.repeat_interleave(math.ceil(rate / 4))[:samples]
    return 0.2 * level * torch.randn(2, samples, generator=generator(seed, "noise"))


@pytest.mark.parametrize("level_db", [-20.0, -23.0, -36.0])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_a_stereo_tone_has_the_loudness_of_its_level(level_db, rate):
    """EBU Tech 3341, cases 1 and 2: a stereo sine at -23 dBFS a channel reads -23.0 +- 0.1 LUFS."""
    hertz = 1000.0 if rate == 48000 else 997.0
    assert integrated_loudness(tone(level_db, 20.0, hertz, rate), rate) == pytest.approx(
        level_db, abs=0.1
    )


GATED = {  # EBU Tech 3341, cases 3 to 5: levels in dBFS and durations in s; all read -23.0
    3: [(-36, 10), (-23, 60), (-36, 10)],
    4: [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)],
    5: [(-26, 20), (-20, 20.1), (-26, 20)],
}


@pytest.mark.parametrize("case", GATED)
def test_gating_follows_ebu_tech_3341(case):
    rate = 8000  # the recommendation's is 48 kHz; the filters are the same at any
    clip = torch.cat([tone(level, seconds, 1000.0, rate) for level, seconds in GATED[case]], dim=1)
    assert integrated_loudness(clip, rate) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("ratio", [(1, 4), (1, 6), (1, 12), (1, 3), (2, 5), (3, 7), (4, 9)])
@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5])
def test_true_peak_of_a_sine_between_samples(ratio, phase):
    """EBU Tech 3341, cases 15 to 19, ask for +0.2 -0.4 dB; the annex's filter gives +-0.3."""
    steps = torch.arange(4000, dtype=torch.float64)
    fade = (steps / 500).clamp(max=1) * ((3999 - steps) / 500).clamp(max=1)
    sine = fade * torch.sin(2 * math.pi * steps * ratio[0] / ratio[1] + phase * math.pi)
    assert decibels(true_peak((0.5 * sine).float()[None])) == pytest.approx(-6.02, abs=0.3)


def test_true_peak_equals_the_slow_loop_and_ignores_piece_borders(monkeypatch):
    clip = torch.rand(2, 200, generator=generator(0, "clip"))
    phases = [TRUE_PEAK_TAPS[:NUM_TAPS], TRUE_PEAK_TAPS[NUM_TAPS:]]
    phases += [taps[::-1] for taps in phases]
    padded = torch.nn.functional.pad(clip, (NUM_TAPS, NUM_TAPS)).tolist()
    slow = max(
        abs(sum(tap * channel[index - k] for k, tap in enumerate(taps)))
        for channel in padded
        for taps in phases
        for index in range(NUM_TAPS, len(channel))
    )
    assert slow > clip.abs().max()
    assert true_peak(clip) == pytest.approx(slow, rel=1e-5)
    monkeypatch.setattr(mastering, "PIECE", 7)
    assert true_peak(clip) == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("level_db", [-40.0, -6.0])
def test_a_quiet_piece_is_raised_and_a_loud_one_lowered(level_db):
    mastered = master(tone(level_db), 48000, -16.0)
    assert mastered.loudness_lufs == pytest.approx(-16, abs=0.02)
    assert integrated_loudness(mastered.audio, 48000) == pytest.approx(-16, abs=0.02)
    assert mastered.gain_db == pytest.approx(-16 - level_db, abs=0.1)
    assert mastered.true_peak_db == pytest.approx(-16, abs=0.3)
    assert mastered.notes == ()


def test_the_ceiling_wins_over_the_loudness_and_says_so():
    clip = 0.001 * noise(2.0)
    clip[:, 30000] = 0.5
    mastered = master(clip, 44100, -16.0, true_peak_ceiling_db=-2.0)
    assert -2.02 < mastered.true_peak_db <= -2.0
    assert decibels(true_peak(mastered.audio)) <= -2.0
    assert mastered.loudness_lufs < -17
    (note,) = mastered.notes
    assert re.match(r"the true-peak ceiling of -2 dB allows a gain of 4\.\d\d dB of \d+", note)


def test_without_a_loudness_only_the_ceiling_is_kept():
    quiet = tone(-12.0)
    mastered = master(quiet, 48000, None)
    assert torch.equal(mastered.audio, quiet)
    assert (mastered.gain_db, mastered.notes) == (0.0, ())
    loud = master(2 * noise(1.0), 44100, None)
    assert -1.02 < loud.true_peak_db <= -1.0
    assert loud.audio.abs().max() < 1
    assert "ceiling" in loud.notes[0]


UNDER_THE_GATE = [
    (torch.zeros(2, 48000), "the clip is silent"),
    (torch.full((2, 48000), 1e-5), "the clip is silent"),
    (tone(-75.0), "the clip never exceeds -70 LUFS"),
]


@pytest.mark.parametrize(("clip", "reason"), UNDER_THE_GATE)
def test_silence_is_left_alone(clip, reason):
    mastered = master(clip, 48000, -16.0)
    assert torch.equal(mastered.audio, clip)
    assert (mastered.gain_db, mastered.loudness_lufs) == (0.0, None)
    assert (mastered.true_peak_db is None) == (not clip.any())
    assert mastered.notes == (f"not brought to -16 LUFS: {reason}",)


def test_the_gain_counts_blocks_that_it_lifts_over_the_gate():
    clip = torch.cat([tone(-66.0, 2.0), tone(-73.0, 2.0)], dim=1)
    mastered = master(clip, 48000, -20.0)
    assert integrated_loudness(mastered.audio, 48000) == pytest.approx(-20, abs=0.02)


@pytest.mark.parametrize("samples", [1, 100, 17639, 17640, 17641])
def test_pieces_around_a_gating_block(samples):
    mastered = master(tone(-30.0, rate=44100)[:, 50 : 50 + samples], 44100, -20.0)
    assert mastered.audio.shape == (2, samples)
    assert mastered.true_peak_db <= -1.0
    if samples > 10000:
        assert mastered.loudness_lufs == pytest.approx(-20, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 30000),
    channels=st.integers(1, 2),
    rate=st.sampled_from([8000, 22050, 44100, 96000]),
    level_db=st.floats(-70, 30),
    wanted=st.one_of(st.none(), st.floats(-60, 0)),
    ceiling=st.floats(-20, 0),
    seed=st.integers(0, 1000),
)
def test_nothing_is_ever_over_the_ceiling(samples, channels, rate, level_db, wanted, ceiling, seed):
    clip = torch.randn(channels, samples, generator=generator(seed, "clip"))
    clip = clip * 10 ** (level_db / 20)
    mastered = master(clip, rate, wanted, ceiling)
    assert decibels(true_peak(mastered.audio)) <= ceiling + 1e-4
    assert mastered.audio.abs().max() <= 1
    assert torch.allclose(mastered.audio, clip * 10 ** (mastered.gain_db / 20), rtol=1e-5)
    if wanted is not None and mastered.loudness_lufs is not None and not mastered.notes:
        assert mastered.loudness_lufs == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loudness_lufs": 3.0}, r"loudness_lufs must lie in \[-60, 0\], got 3.0"),
        ({"loudness_lufs": math.nan}, "loudness_lufs must lie"),
        ({"true_peak_ceiling_db": 0.5}, r"true_peak_ceiling_db must lie in \[-20, 0\], got 0.5"),
        ({"audio": torch.zeros(2, 0)}, "not empty"),
        ({"audio": torch.full((2, 48000), math.nan)}, "NaN"),
        ({"audio": torch.zeros(48000)}, r"\(C, S\)"),
        ({"audio": torch.ones(3, 48000)}, "one or two channels, got 3"),
        ({"audio": torch.ones(3, 100)}, "one or two channels, got 3"),
    ],
)
def test_what_cannot_be_mastered_is_refused(changes, message):
    arguments = {"audio": tone(-20.0), "sample_rate": 48000, "loudness_lufs": -16.0}
    with pytest.raises(ValueError, match=message):
        master(**(arguments | changes))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="apt install ffmpeg")
@pytest.mark.parametrize("wanted", [None, -14.0, -23.0])
def test_ffmpeg_measures_what_was_reported(tmp_path, wanted):
    mastered = master(noise(8.0, 48000), 48000, wanted)
    write_audio(tmp_path / "x.wav", mastered.audio, 48000)
    command = ["ffmpeg", "-hide_banner", "-nostats", "-i", str(tmp_path / "x.wav")]
    command += ["-af", "ebur128=peak=true", "-f", "null", "-"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    summary = report[report.rindex("Summary:") :]
    found = float(re.search(r"I:\s+(-?[\d.]+) LUFS", summary)[1])
    peak = float(re.search(r"Peak:\s+(-?[\d.]+) dBFS", summary)[1])
    assert found == pytest.approx(mastered.loudness_lufs, abs=0.1)
    assert peak == pytest.approx(mastered.true_peak_db, abs=0.6)  # another interpolator, on noise


def test_a_limiter_reaches_a_loudness_that_the_peaks_forbid():
    clip = 0.3 * noise(4.0)
    clip[:, ::11_025] = 0.95
    alone = master(clip, 44100, -16.0)
    mastered = master(clip, 44100, -16.0, most_limiting_db=12.0)
    assert alone.loudness_lufs is not None
    assert alone.loudness_lufs < -17
    assert mastered.loudness_lufs == pytest.approx(-16.0, abs=0.1)
    assert decibels(true_peak(mastered.audio)) <= -1.0 + 1e-4
    assert mastered.gain_db > alone.gain_db
    (note,) = mastered.notes
    assert re.match(r"peaks were limited by up to \d+\.\d dB", note)
    little = master(clip, 44100, -16.0, most_limiting_db=1.0)
    assert little.loudness_lufs is not None
    assert alone.loudness_lufs < little.loudness_lufs < -16.2
    assert len(little.notes) == 2


def test_a_piece_that_needs_no_limiter_is_left_as_it_is():
    clip = noise(4.0)
    mastered = master(clip, 44100, -30.0, most_limiting_db=6.0)
    assert torch.equal(mastered.audio, master(clip, 44100, -30.0).audio)
    assert limit(clip / clip.abs().max() / 4, 44100, -1.0)[1] == 0
