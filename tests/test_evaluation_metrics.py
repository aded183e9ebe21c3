"""Spectral, stereo, loudness and artifact metrics: identity, monotony, closed forms, edges."""

import math

import pytest
import torch
from torch import Tensor

from codec.seeds import generator
from pipelines.evaluation import artifacts, perceptual, spectral, stereo_image
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.loudness import integrated_loudness
from pipelines.evaluation.pair_metrics import BANDS
from pipelines.evaluation.quality_page import band_values, plot_stereo
from pipelines.evaluation.report_files import write_plot

RATE = 44_100
pytestmark = pytest.mark.usefixtures("measuring_packages")


def noise(seconds: float = 1.0, channels: int = 2, seed: int = 0) -> Tensor:
    """White noise at -20 dBFS."""
    return 0.1 * torch.randn(channels, round(seconds * RATE), generator=generator(seed, "noise"))


def tone(seconds: float, frequency_hz: float, rate: int = RATE) -> Tensor:
    """A full-scale sine, (1, S)."""
    times = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return torch.sin(2 * math.pi * frequency_hz * times).float().unsqueeze(0)


def music(seconds: float = 3.0, hiss: float = 0.01) -> Tensor:
    """Stereo chords of decaying harmonics twice a second, panned, with a little noise."""
    times = torch.arange(round(seconds * RATE)) / RATE
    beat = times % 0.5
    left = torch.zeros_like(times)
    right = torch.zeros_like(times)
    for index, frequency in enumerate((220.0, 277.2, 329.6)):
        for harmonic in range(1, 9):
            part = torch.sin(2 * math.pi * frequency * harmonic * times) / harmonic
            part = part * torch.exp(-beat * 6)
            left = left + part * (0.2 + 0.3 * index)
            right = right + part * (0.8 - 0.3 * index)
    return 0.1 * torch.stack([left, right]) + hiss * noise(seconds)


def test_identity_is_perfect():
    clip = music()
    assert spectral.mel_distance(clip, clip, RATE) == 0
    assert spectral.stft_distance(clip, clip) == 0
    assert spectral.si_sdr(clip, clip) == math.inf
    assert spectral.movement_ratio(clip, clip, RATE) == 1
    assert stereo_image.stereo_error(clip, clip, RATE) == (0, 0)
    assert stereo_image.mono_sum(clip, clip, RATE) == (0, 0)
    filled, occupied = spectral.spectrum_fill(clip, clip, RATE)
    assert filled == occupied


def test_distances_grow_with_noise():
    clip = music()
    levels = [0.001, 0.01, 0.1]
    noisy = [clip + level * noise(3.0, seed=1) for level in levels]
    mel = [spectral.mel_distance(clip, estimate, RATE) for estimate in noisy]
    stft = [spectral.stft_distance(clip, estimate) for estimate in noisy]
    sdr = [spectral.si_sdr(clip, estimate) for estimate in noisy]
    assert mel == sorted(mel)
    assert stft == sorted(stft)
    assert sdr == sorted(sdr, reverse=True)
    assert sdr[0] - sdr[1] == pytest.approx(20, abs=0.2)  # ten times the noise


def test_si_sdr_ignores_gain_and_matches_its_definition():
    clip, error = noise(1.0), noise(1.0, seed=1)
    assert spectral.si_sdr(clip, 0.3 * (clip + error)) == pytest.approx(
        spectral.si_sdr(clip, clip + error), abs=1e-4
    )
    assert spectral.si_sdr(clip, clip + 0.1 * error) == pytest.approx(20, abs=0.3)


def test_stft_distance_of_a_gain_is_its_logarithm():
    """Ten times the amplitude: |2 log10 10| in each window, and nine times the mean magnitude."""
    clip = noise(1.0)
    linear = sum(float(spectral.magnitude(clip, window).mean()) for window in (2048, 512))
    assert spectral.stft_distance(clip, 10 * clip) == pytest.approx(4 + 9 * linear, rel=1e-3)


def test_movement_tells_smeared_from_sharp():
    clip = music()
    steady = 0.1 * tone(3.0, 440.0).expand(2, -1)
    assert spectral.movement_ratio(clip, steady, RATE) < 0.5
    flutter = 1 + 0.9 * torch.sin(2 * math.pi * 30 * torch.arange(clip.shape[1]) / RATE)
    assert spectral.movement_ratio(clip, clip * flutter, RATE) > 1.2


def test_spectrum_fill_finds_a_low_pass():
    clip = noise(2.0)
    spectrum = torch.fft.rfft(clip)
    spectrum[:, round(8000 * 2.0) :] = 0
    filled, occupied = spectral.spectrum_fill(clip, torch.fft.irfft(spectrum), RATE)
    assert filled == pytest.approx(8000, rel=0.07)  # a band is 5 % wide there
    assert occupied == pytest.approx(RATE / 2, rel=0.01)


def test_stereo_error_sees_collapse_and_balance():
    clip = noise(2.0)  # independent channels: coherence is low
    level, coherence = stereo_image.stereo_error(clip, clip.mean(0).expand(2, -1), RATE)
    assert coherence > 0.5
    tilted = clip * torch.tensor([[1.0], [0.5]])
    level, coherence = stereo_image.stereo_error(clip, tilted, RATE)
    assert level == pytest.approx(20 * math.log10(2), abs=0.01)
    assert coherence == pytest.approx(0, abs=1e-4)


def test_mono_sum_sees_cancellation():
    clip = music()[:1].expand(2, -1)
    opposite = clip * torch.tensor([[1.0], [-0.5]])
    # mono (1 - .5) / 2 and stereo power (1 + .25) / 2 of the original's 1 and 1
    expected = 10 * math.log10(0.0625 / 0.625)
    assert stereo_image.mono_sum(clip, opposite, RATE)[0] == pytest.approx(expected, abs=0.01)
    late = torch.stack([clip[0], clip[1].roll(40)])  # a comb
    assert stereo_image.mono_sum(clip, late, RATE)[1] < -3


def test_full_scale_sine_reads_bs1770_reference():
    """ITU-R BS.1770-4: a 0 dBFS 997 Hz sine in one channel gives -3.01 LKFS."""
    for rate in (44_100, 48_000):
        loudness = integrated_loudness(tone(5.0, 997.0, rate), rate)
        assert loudness == pytest.approx(-3.01, abs=0.01)
    both = tone(5.0, 997.0).expand(2, -1)
    assert integrated_loudness(both, RATE) == pytest.approx(0.0, abs=0.01)


def test_gate_leaves_out_the_quiet_part():
    loud = tone(5.0, 997.0) * 0.1
    half_silent = torch.cat([loud, torch.zeros_like(loud)], dim=1)
    quiet_half = torch.cat([loud, loud * 0.01], dim=1)
    expected = integrated_loudness(loud, RATE)
    assert integrated_loudness(half_silent, RATE) == pytest.approx(expected, abs=0.3)
    assert integrated_loudness(quiet_half, RATE) == pytest.approx(expected, abs=0.3)


def test_clicks_are_found_where_they_are_and_attacks_are_not():
    clip = noise(2.0) * torch.exp(-10 * (torch.arange(2 * RATE) / RATE % 0.5))  # drum-like
    assert artifacts.find_clicks(clip, RATE) == []
    clicked = clip.clone()
    clicked[0, 30_000] += 0.8
    clicked[:, 60_000:] += 0.8
    found = artifacts.find_clicks(clicked, RATE)
    assert found == pytest.approx([30_000 / RATE, 60_000 / RATE], abs=1e-3)


def test_seams_stand_out_only_where_windows_do_not_fit():
    clip = music(4.0, hiss=1e-4)
    seams = [1.1, 2.3, 3.2]
    clean = artifacts.seam_excess(clip, RATE, seams)
    assert abs(clean[0]) < 3
    broken = clip.clone()
    for time in seams:
        broken[:, round(time * RATE) :] *= -1
    assert artifacts.seam_excess(broken, RATE, seams)[0] > 15
    assert artifacts.seam_excess(broken, RATE, seams)[1] > clean[1]
    with pytest.raises(UnmeasurableError, match="no seam"):
        artifacts.seam_excess(clip, RATE, [0.0, 4.0])


def test_clipping_dc_and_silence():
    clip = noise(1.0)
    assert artifacts.clipped_fraction(clip) == 0
    clipped = clip.clone()
    clipped[0, 100:110] = 1.0
    clipped[1, 200:202] = 1.0  # too short a run
    assert artifacts.clipped_fraction(clipped) == pytest.approx(10 / clip.numel())
    assert artifacts.dc_offset(torch.full((1, 1000), -0.25)) == pytest.approx(0.25)
    rest = torch.cat([clip, torch.zeros(2, RATE)], dim=1)
    assert artifacts.silent_fraction(rest, RATE) == pytest.approx(0.5)
    assert artifacts.silent_fraction(torch.zeros(1, RATE), RATE) == 1


def test_rest_noise_reads_the_level_in_rests():
    reference = torch.cat([noise(1.0), torch.zeros(2, RATE)], dim=1)
    estimate = reference + 0.01 * noise(2.0, seed=1)  # -60 dBFS
    found, original, rest_s = artifacts.rest_noise(reference, estimate, RATE)
    assert found == pytest.approx(-60, abs=0.5)
    assert original == -120
    assert rest_s == pytest.approx(0.9)
    with pytest.raises(UnmeasurableError, match="rests for"):
        artifacts.rest_noise(noise(1.0), noise(1.0), RATE)


def test_edges_have_reasons():
    silence = torch.zeros(2, RATE)
    with pytest.raises(UnmeasurableError, match="silent"):
        spectral.mel_distance(silence, silence, RATE)
    with pytest.raises(UnmeasurableError, match="silent"):
        integrated_loudness(silence, RATE)
    with pytest.raises(UnmeasurableError, match="silent"):
        perceptual.visqol(silence, silence, RATE)
    with pytest.raises(UnmeasurableError, match=r"0\.50 s is shorter than 1 s"):
        perceptual.zimtohrli(noise(0.5), noise(0.5), RATE)
    with pytest.raises(UnmeasurableError, match="not stereo"):
        stereo_image.stereo_error(noise(1.0, 1), noise(1.0, 1), RATE)
    with pytest.raises(UnmeasurableError, match=r"0\.10 s is shorter"):
        integrated_loudness(noise(0.1), RATE)
    with pytest.raises(UnmeasurableError, match="half a window"):
        spectral.stft_distance(noise(0.02), noise(0.02))
    with pytest.raises(ValueError, match="equal in shape"):
        spectral.si_sdr(noise(1.0), noise(1.1))
    with pytest.raises(ValueError, match="NaN"):
        spectral.si_sdr(noise(1.0), noise(1.0) * math.nan)
    assert spectral.mel_distance(noise(1.0, 1), noise(1.0, 1), RATE) == 0
    assert math.isfinite(spectral.mel_distance(noise(1.0), silence, RATE))


def wide(width: float) -> Tensor:
    """Unrelated middle and side of equal power, the side scaled."""
    middle, side = noise()
    return torch.stack([middle + width * side, middle - width * side])


@pytest.mark.parametrize("width_db", [-20.0, -6.0, 0.0, 6.0])
def test_side_over_mid_is_the_ratio_of_their_powers(width_db):
    found = stereo_image.side_over_mid(wide(10 ** (width_db / 20)), wide(1.0))
    assert found == (pytest.approx(width_db, abs=0.2), pytest.approx(abs(width_db), abs=0.1))


def test_mono_is_40_db_narrow_and_any_narrower_is_the_same():
    assert stereo_image.side_over_mid(wide(0.0), wide(0.001)) == (-40.0, 0.0)


def test_an_equal_clip_has_no_error():
    audio = wide(0.5)
    assert stereo_image.side_over_mid(audio, audio)[1] == 0
    original_db, estimate_db, error = stereo_image.band_image(audio, audio, RATE)
    assert torch.equal(original_db, estimate_db)
    assert (error == 0).all()
    assert stereo_image.third_octave_error(audio, audio, RATE) == 0


def test_every_band_shows_its_own_width():
    middle, side = noise(4.0)
    low = torch.fft.rfft(side)
    low[len(low) // 4 :] = 0  # side below 5.5 kHz only
    side = torch.fft.irfft(low, n=len(side))
    width_db, *_ = stereo_image.band_image(*[torch.stack([middle + side, middle - side])] * 2, RATE)
    assert (width_db[:16].abs() < 1.5).all()
    assert (width_db[-4:] < -30).all()


def test_the_coherence_error_of_a_mono_estimate_is_what_the_original_lacks():
    mono = noise(4.0)[:1].repeat(2, 1)
    _, estimate_db, error = stereo_image.band_image(noise(4.0), mono, RATE)
    assert (error[8:] > 0.6).all()
    assert (estimate_db == -40).all()


def test_third_octaves_see_a_gain_and_a_missing_band():
    audio = noise(2.0)
    found = stereo_image.third_octave_error(audio, audio * 10 ** (-3 / 20), RATE)
    assert found == pytest.approx(3.0, abs=1e-3)
    spectrum = torch.fft.rfft(audio)
    spectrum[:, round(8000 / 0.5) : round(9000 / 0.5)] *= 0.1  # inside the band at 8 kHz
    damaged = torch.fft.irfft(spectrum, n=audio.shape[1])
    assert 0 < stereo_image.third_octave_error(audio, damaged, RATE) < 0.3


def test_one_tone_lies_in_one_band():
    times = torch.arange(RATE) / RATE
    levels = stereo_image.third_octaves_db(torch.sin(2 * math.pi * 1000 * times)[None], RATE)
    assert int(levels.argmax()) == 10  # 100 Hz and ten thirds of an octave
    assert len(levels) == 23


def test_mono_clips_have_no_image():
    with pytest.raises(UnmeasurableError, match=r"not stereo: 1 channel"):
        stereo_image.side_over_mid(noise(channels=1), noise(channels=1))
    with pytest.raises(UnmeasurableError, match=r"not stereo: 1 channel"):
        stereo_image.part_quality(noise(channels=1), noise(channels=1), RATE, "left")


def test_the_side_of_a_mono_recording_is_silent():
    mono = noise(channels=1).repeat(2, 1)
    with pytest.raises(UnmeasurableError, match="the clip is silent"):
        stereo_image.part_quality(mono, mono, RATE, "side")


def test_the_picture_of_the_bands_is_written(tmp_path):
    image = stereo_image.band_image(wide(0.5), wide(0.3), RATE).flatten().tolist()
    row = {"name": "tokens", "values": dict(zip(BANDS, image, strict=True))}
    assert band_values(row, "side_db") == image[32:64]
    assert band_values({"values": dict.fromkeys(BANDS, "not stereo")}, "side_db") == []
    write_plot(tmp_path / "stereo.png", {"title": "image", "rows": [row]}, plot_stereo)
    assert (tmp_path / "stereo.png").read_bytes().startswith(b"\x89PNG")
