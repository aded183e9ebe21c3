"""LogMel against a plain loop, its scale, its frames, and its inverse."""

import math

import pytest
import torch
from torchaudio.functional import melscale_fbanks

from codec.spectrogram import FINE_BREAK_HZ, FINE_WINDOW, LogMel, slaney_filterbank

SMALL = {"sample_rate": 8000, "n_fft": 256, "hop_length": 63, "num_mels": 20}


@pytest.fixture(scope="module")
def log_mel() -> LogMel:
    return LogMel()


@pytest.fixture(scope="module")
def small() -> LogMel:
    return LogMel(**SMALL)


def noise(samples: int, batch: int = 1, channels: int = 1) -> torch.Tensor:
    draws = torch.Generator().manual_seed(samples)
    return torch.rand((batch, channels, samples), generator=draws) * 2 - 1


def tone(frequency: float, samples: int, sample_rate: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(samples) / sample_rate)[None, None]


@pytest.mark.parametrize("band", [20, 40, 64, 90, 120])
def test_a_full_scale_sine_reads_about_zero_in_its_band(log_mel, band):
    bins = torch.arange(1025) * 44100 / 2048
    frequency = float(bins[log_mel.filterbank[:, band].argmax()])
    spectrogram = log_mel(tone(frequency, 44100, 44100))[0, 0, :, 10:-10]
    assert (spectrogram.mean(-1).argmax() == band).item()
    assert -0.3 < spectrogram[band].min() <= spectrogram[band].max() < 0.75  # ln 2 in wide bands
    quieter = log_mel(tone(frequency, 44100, 44100) / 10)[0, 0, band, 50]
    assert float(spectrogram[band, 40] - quieter) == pytest.approx(math.log(10), abs=1e-3)


def test_the_usual_break_gives_slaney_bands():
    expected = melscale_fbanks(1025, 0.0, 22050.0, 128, 44100, None, "slaney")
    assert torch.equal(slaney_filterbank(44100, 2048, 128), expected)


def test_a_lower_break_moves_bands_down():
    hertz = (FINE_BREAK_HZ, 1000.0)
    centers = {hz: LogMel(n_fft=FINE_WINDOW, mel_break_hz=hz).frequencies for hz in hertz}
    apart = {hz: float(center[20] - center[19]) for hz, center in centers.items()}
    assert apart[FINE_BREAK_HZ] == pytest.approx(16.1, abs=0.3)  # Hz
    assert apart[1000.0] == pytest.approx(30.8, abs=0.3)
    for center in centers.values():
        assert (center.diff() > 0).all()
        assert center[-1] > 21000


def test_finer_bands_and_a_longer_window_tell_low_tones_apart(log_mel):
    low, high = tone(196.0, 44100, 44100) / 2, tone(261.6, 44100, 44100) / 2  # a fourth
    fine = LogMel(n_fft=FINE_WINDOW, mel_break_hz=FINE_BREAK_HZ)

    def valley(analysis: LogMel) -> float:
        levels = analysis(low + high)[0, 0, :, 30:70].mean(-1)
        places = [int((analysis.frequencies - hz).abs().argmin()) for hz in (196.0, 261.6)]
        between = levels[places[0] : places[1] + 1].min()
        return float(levels[places].min() - between)

    assert valley(fine) > 1.5  # nats
    assert valley(log_mel) < 0.1


def test_bands_narrower_than_a_bin_do_not_blow_errors_up():
    crowded = LogMel(n_fft=2048, mel_break_hz=600.0)
    assert crowded.inverse_filterbank.abs().max() < 5


@pytest.mark.parametrize("samples", [1, 62, 63, 64, 126, 127, 1000, 1009])
def test_the_frames_of_any_length(small, samples):
    spectrogram = small(noise(samples, batch=2, channels=2))
    assert spectrogram.shape == (2, 2, 20, -(-samples // 63))
    assert torch.isfinite(spectrogram).all()


def test_a_hundred_frames_a_second(log_mel):
    assert log_mel(torch.zeros(1, 1, 44100)).shape == (1, 1, 128, 100)


def test_a_shift_by_a_hop_shifts_the_frames(small):
    audio = noise(63 * 40)
    shifted = small(torch.nn.functional.pad(audio, (63 * 3, 0)))
    assert torch.allclose(shifted[..., 3:], small(audio), atol=1e-4)


def test_silence_reads_the_floor(small):
    assert torch.allclose(small(torch.zeros(1, 1, 500)), torch.tensor(small.log_floor))
    assert small.log_floor == pytest.approx(math.log(1e-5))
    higher = LogMel(**SMALL, floor=0.01)
    assert higher(noise(1000) * 1e-3).min() == pytest.approx(math.log(0.01))


def test_it_equals_a_plain_loop(small):
    """Frame by frame, bin by bin: frame f is centered on sample (f + 1/2) hop."""
    audio = noise(63 * 5 + 10)[0, 0].double()
    window = torch.hann_window(256, dtype=torch.float64)
    times = torch.arange(256)
    expected = torch.empty(20, 6, dtype=torch.float64)
    for frame in range(6):
        start = 63 * frame - (256 - 63) // 2
        piece = torch.tensor(
            [audio[start + n] if 0 <= start + n < len(audio) else 0.0 for n in range(256)]
        ).double()
        magnitude = torch.stack(
            [
                (piece * window * torch.exp(-2j * math.pi * k * times / 256)).sum().abs()
                for k in range(129)
            ]
        )
        mel = small.filterbank.double().T @ magnitude * 2 / window.sum()
        expected[:, frame] = mel.clamp(min=1e-5).log()
    assert torch.allclose(small(audio.float()[None, None])[0, 0].double(), expected, atol=1e-3)


def test_it_equals_torchaudio(log_mel):
    import torchaudio  # behind the guard that codec imports

    peer = torchaudio.transforms.MelSpectrogram(
        44100, 2048, hop_length=441, n_mels=128, power=1.0, center=False, mel_scale="slaney"
    )
    audio = noise(44100 // 2)
    padded = torch.nn.functional.pad(audio, (log_mel.padding, 2048))
    expected = (peer(padded)[..., :50] * 2 / log_mel.window.sum()).clamp(min=1e-5).log()
    assert torch.allclose(log_mel(audio), expected, atol=1e-3)


def test_padded_pieces_equal_the_whole(small):
    audio = noise(63 * 30, channels=2)
    padded = torch.nn.functional.pad(audio, (small.padding, 256))
    pieces = [small.of_padded(padded[..., 63 * f : 63 * (f + 9) + 256]) for f in (0, 10, 20)]
    assert torch.allclose(torch.cat(pieces, dim=-1), small(audio), atol=1e-4)


def test_the_inverse_of_the_bands(log_mel):
    """Bands -> magnitudes -> bands returns within a twentieth of a neper on average."""
    spectrogram = log_mel(noise(44100, channels=2) * 0.3)
    magnitude = log_mel.magnitude(spectrogram)
    assert magnitude.shape == (1, 2, 100, 1025)
    assert magnitude.min() >= 0
    mel = magnitude @ log_mel.filterbank * 2 / log_mel.window.sum()
    again = mel.clamp(min=1e-5).log().transpose(-1, -2)
    assert (again - spectrogram).abs().mean() < 0.05


def test_overlap_add_undoes_the_transform(small):
    audio = noise(63 * 20 + 256)[0]
    spectrum = small.stft(audio)
    samples, weight = small.overlap_add(spectrum), small.weight(spectrum.shape[1])
    inner = slice(256, -256)
    covered = samples.shape[-1]
    assert covered == (audio.shape[-1] - 256) // 63 * 63 + 256
    rebuilt = (samples / weight)[..., inner]
    assert torch.allclose(rebuilt, audio[..., :covered][..., inner], atol=1e-5)


def test_a_row_alone_equals_the_row_in_a_batch(small):
    audio = noise(1009, batch=3, channels=2)
    together = small(audio)
    for row in range(3):
        assert torch.allclose(small(audio[row : row + 1])[0], together[row], atol=1e-5)


def test_nothing_is_saved(log_mel):
    assert log_mel.state_dict() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hop_length": 0}, r"hop_length must lie in \[1, n_fft / 2\], got 0"),
        ({"hop_length": 129}, r"hop_length must lie in \[1, n_fft / 2\], got 129 with n_fft=256"),
        ({"sample_rate": 0}, "sample_rate must be positive, got 0"),
        ({"num_mels": 0}, "num_mels must be positive, got 0"),
        ({"floor": 0.0}, "floor must be positive, got 0.0"),
    ],
)
def test_sizes_that_make_no_spectrogram(change, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**(SMALL | change))
