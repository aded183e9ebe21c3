"""The stereo image's metrics: closed forms, identity and edges."""

import math

import pytest
import torch
from torch import Tensor

from codec.seeds import generator
from pipelines.evaluation import stereo_image
from pipelines.evaluation.pair_metrics import BAND_NAMES
from pipelines.evaluation.quality_page import band_values, plot_stereo
from pipelines.evaluation.reasons import UnmeasurableError
from pipelines.evaluation.report_files import write_plot

RATE = 44_100


def noise(seconds: float = 1.0, channels: int = 2, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(channels, round(seconds * RATE), generator=generator(seed, "noise"))


def wide(width: float) -> Tensor:
    """Unrelated middle and side of equal power, the side scaled."""
    middle, side = noise()
    return torch.stack([middle + width * side, middle - width * side])


@pytest.mark.parametrize("width_db", [-20.0, -6.0, 0.0, 6.0])
def test_side_over_mid_is_the_ratio_of_their_powers(width_db):
    found = stereo_image.side_over_mid(wide(10 ** (width_db / 20)), wide(1.0))
    assert found.original_db == pytest.approx(width_db, abs=0.2)
    assert found.error_db == pytest.approx(abs(width_db), abs=0.1)


def test_mono_is_40_db_narrow_and_any_narrower_is_the_same():
    assert stereo_image.side_over_mid(wide(0.0), wide(0.001)) == (-40.0, 0.0)


def test_an_equal_clip_has_no_error():
    audio = wide(0.5)
    assert stereo_image.side_over_mid(audio, audio).error_db == 0
    image = stereo_image.band_image(audio, audio, RATE)
    assert torch.equal(image.original_db, image.estimate_db)
    assert (image.coherence_error == 0).all()
    assert stereo_image.third_octave_error(audio, audio, RATE) == 0


def test_every_band_shows_its_own_width():
    middle, side = noise(4.0)
    low = torch.fft.rfft(side)
    low[len(low) // 4 :] = 0  # side below 5.5 kHz only
    side = torch.fft.irfft(low, n=len(side))
    image = stereo_image.band_image(*[torch.stack([middle + side, middle - side])] * 2, RATE)
    assert (image.original_db[:16].abs() < 1.5).all()
    assert (image.original_db[-4:] < -30).all()


def test_the_coherence_error_of_a_mono_estimate_is_what_the_original_lacks():
    image = stereo_image.band_image(noise(4.0), noise(4.0)[:1].repeat(2, 1), RATE)
    assert (image.coherence_error[8:] > 0.6).all()
    assert (image.estimate_db == -40).all()


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


def band_row(name: str, values: list) -> dict:
    names = [f"{name}/{band:02}" for name in BAND_NAMES for band in range(32)]
    return {"name": name, "values": dict(zip(names, values, strict=True))}


def test_a_row_keeps_every_band_by_name():
    row = band_row("tokens", [float(number) for number in range(96)])
    assert band_values(row, "side_db") == [float(number) for number in range(32, 64)]
    assert band_values(band_row("mono", ["not stereo"] * 96), "side_db") == []


def test_the_picture_is_written(tmp_path):
    image = torch.cat(stereo_image.band_image(wide(0.5), wide(0.3), RATE)).tolist()
    content = {"title": "image", "rows": [band_row("tokens", image)]}
    write_plot(tmp_path / "stereo.png", content, plot_stereo)
    assert (tmp_path / "stereo.png").read_bytes().startswith(b"\x89PNG")
