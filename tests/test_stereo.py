"""Parametric stereo: its laws, its edges, and a codec that has it."""

import math

import pytest
import torch
from tiny_codec import noise_audio, tiny_codec

from codec.image_book import ImageBook
from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from codec.spectrogram import LogMel
from codec.stereo import ParametricStereo, decorrelating_response, mixing, stereo_image
from codec.vocoder import GriffinLim
from pipelines.evaluation.stereo_image import mono_sum, stereo_error

RATE = 44100


def noise(channels: int = 1, seconds: float = 1.0, seed: int = 0) -> torch.Tensor:
    """(1, C, S) white noise."""
    shape = (1, channels, round(seconds * RATE))
    return torch.randn(shape, generator=generator(seed, "noise")) * 0.1


@pytest.fixture(scope="module")
def vocoder() -> GriffinLim:
    log_mel = LogMel()
    return GriffinLim(log_mel, stereo=ParametricStereo(log_mel))


@pytest.fixture(scope="module")
def codec() -> SpectralCodec:
    return tiny_codec(stereo_bands=8)


def round_trip(vocoder: GriffinLim, audio: torch.Tensor) -> torch.Tensor:
    return vocoder(picture(vocoder, audio))


def picture(vocoder: GriffinLim, audio: torch.Tensor) -> torch.Tensor:
    assert vocoder.stereo is not None
    levels, image = vocoder.stereo.analyze(vocoder.log_mel.stft(vocoder.log_mel.pad(audio)))
    return torch.cat([levels, image[:, None]], dim=2)


def power_db(audio: torch.Tensor) -> float:
    return 10 * math.log10(float(audio.double().square().mean()) + 1e-20)


# -- laws -------------------------------------------------------------------------------------


def test_mixing_two_equal_uncorrelated_signals_gives_the_image_back():
    """With mono and copy of power one: levels, coherence and total power as asked."""
    difference = torch.linspace(-30, 30, 25)[:, None]
    angle = torch.linspace(0, math.pi, 21)[None, :]
    middle, side, wet = mixing(difference, angle.expand(25, 21))
    left_dry, left_wet = middle + side, wet
    right_dry, right_wet = middle - side, -wet
    left = left_dry.square() + left_wet.square()
    right = right_dry.square() + right_wet.square()
    cross = left_dry * right_dry + left_wet * right_wet
    assert torch.allclose(left + right, torch.full_like(left, 2.0), atol=1e-4)
    assert torch.allclose(10 * (left / right).log10(), difference.expand(25, 21), atol=0.02)
    assert torch.allclose(cross / (left * right).sqrt(), angle.cos().expand(25, 21), atol=1e-3)


def test_a_coherent_band_without_difference_is_exactly_mono():
    middle, side, wet = mixing(torch.zeros(3), torch.zeros(3))
    assert torch.allclose(middle, torch.ones(3))
    assert torch.equal(side, torch.zeros(3))
    assert torch.equal(wet, torch.zeros(3))


def test_the_image_of_known_powers():
    image = stereo_image(torch.tensor(4.0), torch.tensor(1.0), torch.tensor(-2.0))
    assert torch.allclose(image, torch.tensor([6.0206, math.pi]), atol=1e-3)
    silent = stereo_image(*torch.zeros(3, 1))
    assert torch.equal(silent, torch.zeros(2, 1))


def test_the_decorrelators_overlapped_sum_is_all_pass():
    """A frame-wise filter with Hann windows on both sides weighs taps by the windows' overlap."""
    window = torch.hann_window(2048)
    taps = torch.fft.irfft(decorrelating_response(window, RATE))
    overlap = torch.fft.irfft(torch.fft.rfft(window, 4096).abs().square())[:2048]
    effective = torch.fft.rfft(taps * overlap / overlap[0]).abs()
    assert abs(20 * math.log10(float(effective.square().mean().sqrt()))) < 0.3
    assert effective.log10().mul(20).std() < 3.0


@pytest.mark.parametrize("difference_db", [0.0, 12.0])
@pytest.mark.parametrize("coherence", [-0.5, 0.0, 0.7])
def test_level_coherence_and_width_come_back(vocoder, difference_db, coherence):
    one, other = noise(2, seconds=3.0)[0]
    right = coherence * one + math.sqrt(1 - coherence**2) * other
    audio = torch.stack([one, right * 10 ** (-difference_db / 20)])
    heard = round_trip(vocoder, audio[None])[0]
    level_difference_db, coherence_error = stereo_error(audio, heard, RATE)
    assert level_difference_db < 2.0
    assert coherence_error < 0.25
    found = power_db(heard[0]) - power_db(heard[1])
    assert found == pytest.approx(difference_db, abs=0.5)
    level_db, worst_band_db = mono_sum(audio, heard, RATE)
    assert abs(level_db) < 0.7
    assert worst_band_db > -3.0


def test_out_of_phase_channels_keep_their_level(vocoder):
    mono = noise()
    both = power_db(round_trip(vocoder, torch.cat([mono, mono], dim=1)))
    inverted = round_trip(vocoder, torch.cat([mono, -mono], dim=1))
    assert power_db(inverted) == pytest.approx(both, abs=0.7)
    assert power_db(inverted.mean(1)) < both - 20


def test_one_silent_channel_stays_far_below_the_other(vocoder):
    mono = noise()
    heard = round_trip(vocoder, torch.cat([mono, torch.zeros_like(mono)], dim=1))[0]
    assert power_db(heard[0]) - power_db(heard[1]) > 25


# -- equivalences -----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1] * 150, [7, 1, 80, 62], [149, 1]])
def test_a_stream_equals_the_whole(vocoder, sizes):
    spectrogram = picture(vocoder, noise(2, seconds=1.5))
    whole = vocoder(spectrogram)
    streamed = torch.cat(list(vocoder.stream(spectrogram.split(sizes, dim=-1))), dim=-1)
    assert torch.equal(streamed, whole)


def test_a_saved_stage_continues_exactly(vocoder):
    spectrogram = picture(vocoder, noise(2, seconds=1.5))
    whole = vocoder(spectrogram)
    stage = vocoder.stage()
    stage.input.push(spectrogram[..., :100])
    pieces = list(iter(stage.pull, None))
    resumed = vocoder.stage()
    resumed.load_state_dict(stage.state_dict())
    resumed.input.push(spectrogram[..., 100:])
    resumed.input.end()
    pieces += list(iter(resumed.pull, None))
    assert torch.equal(torch.cat(pieces, dim=-1), whole)


def test_decoding_in_pieces_equals_decoding_the_whole(codec):
    audio = noise_audio(codec, 2, codec.hop_length * 60)
    codes = codec.encode(audio)
    whole = codec.decode(codes)
    pieces = codec.decode_stream(codes.split([3, 20, 37], dim=-1), window=16)
    assert torch.allclose(torch.cat(list(pieces), dim=-1), whole, atol=1e-4)


@pytest.mark.parametrize("error_feedback", [0.0, 0.6])
def test_encoding_in_pieces_equals_encoding_the_whole(error_feedback):
    codec = tiny_codec(stereo_bands=8, error_feedback=error_feedback)
    audio = noise_audio(codec, 1, codec.hop_length * 60 + 17)
    pieces = codec.encode_stream(audio.split(1000, dim=-1), window=16)
    assert torch.equal(torch.cat(list(pieces), dim=-1), codec.encode(audio))


# -- a codec with an image --------------------------------------------------------------------


def test_shapes(codec):
    audio = noise_audio(codec, 2, codec.hop_length * 5 + 1)
    assert codec.analyze(audio).shape == (2, 1, 16 + 16, 21)
    codes = codec.encode(audio)
    assert codes.shape == (2, 3, 6)
    assert codec.decode_spectrogram(codes[:, :1]).shape == (2, 1, 32, 24)
    assert codec.decode(codes).shape == (2, 2, 6 * codec.hop_length)


def test_the_image_is_constant_within_a_token(codec):
    for rows in (
        codec.analyze(noise_audio(codec, 1, codec.hop_length * 5))[:, :, 16:],
        codec.decode_spectrogram(torch.zeros(1, 1, 3, dtype=torch.int64))[:, :, 16:],
    ):
        assert (rows.unflatten(-1, (-1, 4)).diff(dim=-1) == 0).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a,
        lambda a: torch.stack([a[:, 0], a[:, 0]], dim=1),
        lambda a: torch.stack([a[:, 0], -a[:, 0]], dim=1),
        lambda a: torch.stack([a[:, 0], 0 * a[:, 0]], dim=1),
        lambda a: 0 * a,
    ],
    ids=["stereo", "equal channels", "out of phase", "one silent channel", "silence"],
)
def test_no_input_gives_nan(codec, make):
    audio = make(noise_audio(codec, 1, codec.hop_length * 12))
    spectrogram = codec.analyze(audio)
    assert torch.isfinite(spectrogram).all()
    assert torch.isfinite(codec.vocoder(spectrogram)).all()
    assert torch.isfinite(codec.decode(codec.encode(audio))).all()


def test_equal_channels_come_back_equal_to_the_last_bit(codec, vocoder):
    mono = noise(seconds=1.0)
    heard = round_trip(vocoder, torch.cat([mono, mono], dim=1))
    assert torch.equal(heard[:, 0], heard[:, 1])
    audio = noise_audio(codec, 1, codec.hop_length * 40)[:, :1].repeat(1, 2, 1)
    heard = codec.vocoder(codec.analyze(audio))
    assert torch.equal(heard[:, 0], heard[:, 1])


def test_an_almost_mono_frame_is_mono(vocoder):
    """What a decoder gets wrong by a hair does not widen a mono recording."""
    spectrogram = picture(vocoder, noise().repeat(1, 2, 1))
    spectrogram[:, :, 128:160] += 0.05  # dB
    spectrogram[:, :, 160:] += 0.01  # rad
    heard = vocoder(spectrogram)
    assert torch.equal(heard[:, 0], heard[:, 1])


def test_an_image_needs_two_channels_and_fewer_bands_than_mel_bands():
    with pytest.raises(ValueError, match="stereo_bands must be 0 unless channels is 2"):
        tiny_codec(channels=1, stereo_bands=8)
    with pytest.raises(ValueError, match=r"stereo_bands must lie in \[1, num_mels=16\], got 17"):
        tiny_codec(stereo_bands=17)


def test_a_mono_recording_comes_back_mono_to_the_last_bit(codec):
    audio = noise_audio(codec, 1, codec.hop_length * 40)[:, :1].repeat(1, 2, 1)
    codes = codec.encode(audio)
    assert (codes[:, codec.image_places[0]] == 0).all()
    heard = codec.decode(codes)
    assert torch.equal(heard[:, 0], heard[:, 1])


def test_books_before_the_images_decode_to_mono(codec):
    codes = codec.encode(noise_audio(codec, 1, codec.hop_length * 20))
    assert codec.image_places == (2,)
    heard = codec.decode(codes[:, :2])
    assert torch.equal(heard[:, 0], heard[:, 1])
    wide = codec.decode(codes)
    assert not torch.equal(wide[:, 0], wide[:, 1])
    levels = codec.decode_spectrogram(codes)[:, :, :16]
    assert torch.equal(levels, codec.decode_spectrogram(codes[:, :2])[:, :, :16])


def test_a_number_of_books_counts_the_image(codec):
    codes = codec.encode(noise_audio(codec, 3, codec.hop_length * 5))
    latents = codec.decode_latents(codes, torch.tensor([1, 2, 3]))
    for row, residual in enumerate((1, 2, 2)):
        expected = codec.quantizer.decode(codes[row : row + 1, :residual])[0]
        assert torch.equal(latents[row], expected)


def test_an_image_needs_a_book_beside_the_spectrograms():
    with pytest.raises(ValueError, match="num_codebooks must be at least 2 with stereo_bands"):
        tiny_codec(num_codebooks=1, stereo_bands=8)


# -- the book of images -----------------------------------------------------------------------


def images(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 2 N, T) images around five centers, N = 8, and (1, M, T) levels, M = 16."""
    draws = generator(seed, "images")
    centers = torch.randn(5, 16, 1, generator=generator(9, "centers")) * 3
    chosen = torch.randint(5, (frames,), generator=draws)
    image = centers[chosen, :, 0].T + 0.01 * torch.randn(16, frames, generator=draws)
    return image[None], torch.randn(1, 16, frames, generator=draws)


def test_k_means_finds_the_centers_and_keeps_mono():
    book = ImageBook(8, 32)
    assert not book.is_set
    image, levels = images(400)
    book.initialize(image, levels)
    assert book.is_set
    assert (book.entries[0] == 0).all()
    other, levels = images(50, seed=1)
    assert (book.decode(book.encode(other, levels)) - other).abs().mean() < 0.05
    assert (book.encode(torch.zeros(1, 16, 3), torch.zeros(1, 16, 3)) == 0).all()


def test_the_nearest_entry_is_that_of_a_plain_loop():
    book = ImageBook(2, 6)
    book.entries.copy_(torch.randn(6, 4, generator=generator(0, "entries")) * 3)
    image = torch.randn(1, 4, 7, generator=generator(1, "image")) * 3
    levels = torch.randn(1, 2, 7, generator=generator(2, "levels")) * 2
    codes = book.encode(image, levels)
    for frame in range(7):
        loudest = float(levels[0, :, frame].max())
        weight = [max(0.1, 1 - (loudest - float(x)) / 5.756) for x in levels[0, :, frame]] * 2
        errors = [
            sum(
                w * ((float(a) - float(b)) / float(s)) ** 2
                for w, a, b, s in zip(weight, image[0, :, frame], entry, book.scale, strict=True)
            )
            for entry in book.entries
        ]
        assert int(codes[0, frame]) == errors.index(min(errors))


def test_error_feedback_lowers_the_errors_of_images_that_last():
    image, levels = images(400)
    held, flat = 0.5 * image[:, :, :1].expand(-1, -1, 60), torch.zeros(1, 16, 60)
    lasting = {}
    for feedback in (0.0, 0.6):
        book = ImageBook(8, 32, feedback)
        book.initialize(image, levels)
        error = book.decode(book.encode(held, flat)) - held  # halfway between two entries
        lasting[feedback] = error.mean(-1).square().mean()
    assert lasting[0.6] < 0.5 * lasting[0.0]


def test_mono_stays_mono_after_stereo_with_error_feedback():
    book = ImageBook(8, 4, 0.9)
    image, levels = images(60)
    book.initialize(image, levels)
    image[:, :, 30:] = 0
    assert (book.encode(image, levels)[:, 30:] == 0).all()
    errors: list[torch.Tensor] = []
    stretches = zip(image.split(7, dim=-1), levels.split(7, dim=-1), strict=True)
    pieces = [book.encode(*stretch, errors) for stretch in stretches]
    assert torch.equal(torch.cat(pieces, dim=1), book.encode(image, levels))


def test_k_means_refuses_fewer_images_than_entries():
    with pytest.raises(ValueError, match="at least codebook_size - 1 = 31 images, got 10"):
        ImageBook(8, 32).initialize(*images(10))


def test_a_codec_saved_before_images_loads_as_it_was(tmp_path):
    before = tiny_codec()
    before.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('  "stereo_bands": 0,\n', ""))
    assert "stereo_bands" not in (tmp_path / "config.json").read_text()
    after = SpectralCodec.from_pretrained(tmp_path)
    audio = noise_audio(before, 1, before.hop_length * 10)
    assert torch.equal(before.encode(audio), after.encode(audio))
    assert torch.equal(before.decode(before.encode(audio)), after.decode(before.encode(audio)))


def test_saving_and_loading_changes_nothing(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    again = SpectralCodec.from_pretrained(tmp_path)
    audio = noise_audio(codec, 1, codec.hop_length * 10)
    assert torch.equal(codec.decode(codec.encode(audio)), again.decode(again.encode(audio)))
