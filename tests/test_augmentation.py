"""Versions of training crops: closed forms, and the sound that they stand for."""

import pytest
import torch

from codec.seeds import generator
from pipelines.data.clip_levels import NUM_MELS, STEREO_BANDS, analysis, left_right
from pipelines.training import augmentation
from pipelines.training.augmentation import Augmentation, augment

RATE = 44100


def audio(seed: int) -> torch.Tensor:
    """(2, S) two noises that share a third."""
    left, right, shared = torch.randn(3, RATE, generator=generator(seed, "noise")) * 0.1
    return torch.stack([left + shared, 0.5 * right + shared])


def crop(sound: torch.Tensor) -> torch.Tensor:
    stereo = analysis()
    levels, image = stereo.analyze(stereo.log_mel.stft(stereo.log_mel.pad(sound[None])))
    return torch.cat([levels, image[:, None]], dim=2)[0]


def test_gain_and_tilt_are_exact():
    original = crop(audio(0))
    louder = augmentation.with_gain(original, 6.0206)
    assert torch.allclose(louder, crop(2 * audio(0)), atol=1e-3)
    change = augmentation.with_tilt(original, 8.6859)[:, :NUM_MELS] - original[:, :NUM_MELS]
    assert torch.allclose(change[0, [0, -1], 0], torch.tensor([-0.5, 0.5]), atol=1e-4)


def test_swapping_equals_swapped_channels():
    assert torch.allclose(augmentation.swapped(crop(audio(0))), crop(audio(0).flip(0)), atol=1e-3)


def test_mono_is_exact_and_has_the_power_of_the_middle():
    mono = augmentation.with_width(crop(audio(0)), 0.0)
    assert (mono[:, NUM_MELS:] == 0).all()
    expected = crop(audio(0).mean(0, keepdim=True).repeat(2, 1))
    assert (mono - expected)[:, :NUM_MELS].abs().mean() < 0.15


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_width_is_that_of_a_scaled_side_signal(width):
    left, right = audio(0)
    middle, side = (left + right) / 2, (left - right) / 2 * width
    expected = crop(torch.stack([middle + side, middle - side]))
    found = augmentation.with_width(crop(audio(0)), width)
    assert (found - expected)[:, :NUM_MELS].abs().mean() < 0.15  # nats
    assert (found - expected)[:, NUM_MELS : NUM_MELS + STEREO_BANDS].abs().mean() < 1.0  # dB
    assert (found - expected)[:, NUM_MELS + STEREO_BANDS :].abs().mean() < 0.1  # rad


def test_mixing_is_near_the_sum_of_both_sounds():
    found = augmentation.mixed(crop(audio(0)), crop(audio(1)))
    expected = crop(audio(0) + audio(1))
    assert abs(float((found - expected)[:, :NUM_MELS].mean())) < 0.2
    assert (found - expected)[:, NUM_MELS + STEREO_BANDS :].abs().mean() < 0.3


def test_left_and_right_follow_from_power_and_difference():
    sound = torch.stack([audio(0)[0], 0.25 * audio(0)[0]])
    whole = crop(sound)
    found = left_right(whole[:, :NUM_MELS], whole[0, NUM_MELS:])
    expected = analysis().log_mel(sound[None])[0]
    assert torch.allclose(found, expected, atol=0.05)


def test_the_same_draws_give_the_same_version():
    settings = Augmentation(6, 3, 0.5, 0.5, 0.1)
    versions = [
        augment(crop(audio(0)), crop(audio(1)), settings, generator(1, "draws")) for _ in range(2)
    ]
    assert torch.equal(*versions)
    assert torch.isfinite(versions[0]).all()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"mix_share must lie in \[0, 1\], got 2"):
        Augmentation(mix_share=2)
    with pytest.raises(ValueError, match="gain_db must not be negative, got -1"):
        Augmentation(gain_db=-1)
