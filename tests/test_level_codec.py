"""A codec's bands raised to the power of what it decodes."""

import pytest
import torch
from tiny_codec import noise_audio, tiny_codec
from tiny_data import write_prepared

from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from pipelines.data.codecs import hash_codec
from pipelines.training.codec_data import open_all
from pipelines.training.level_codec import (
    band_levels,
    draw_crops,
    main,
    missing_power,
    raise_levels,
)


@pytest.mark.parametrize("stereo_bands", [0, 8])
def test_gains_move_the_decoded_levels_alone(stereo_bands):
    codec = tiny_codec(stereo_bands=stereo_bands)
    audio = noise_audio(codec, 1, codec.hop_length * 8)
    codes = codec.encode(audio)
    before = codec.decode_spectrogram(codes)
    gain = torch.randn(16, generator=generator(0, "gain"))
    raise_levels(codec, gain)
    change = codec.decode_spectrogram(codes) - before
    assert torch.allclose(change[:, :, :16], gain[:, None].expand_as(change[:, :, :16]), atol=1e-4)
    assert (change[:, :, 16:] == 0).all()
    assert torch.equal(codec.encode(audio), codes)


def test_band_levels_are_root_mean_squares():
    spectrogram = torch.tensor([[[[0.0, 1.0]]]])
    expected = (0.5 * (1 + torch.e**2)) ** 0.5
    assert band_levels(spectrogram).exp() == pytest.approx(expected, rel=1e-5)


def test_levelling_brings_the_power_nearer(tmp_path):
    prepared = write_prepared(tmp_path / "prepared")
    sizes = {"sample_rate": 44_100, "n_fft": 3072, "hop_length": 441, "num_mels": 128}
    codec = tiny_codec(**sizes, stereo_bands=32)
    crop = draw_crops(codec, open_all([str(prepared)], "train"), 1, 5)[0]
    codec.save_pretrained(tmp_path / "codec")
    words = [str(tmp_path / "codec"), str(tmp_path / "levelled"), "--prepared", str(prepared)]
    assert main([*words, "--books", "3", "--crops", "4"]) == 0
    levelled = SpectralCodec.from_pretrained(tmp_path / "levelled")
    assert not torch.equal(levelled.patch_out.bias, codec.patch_out.bias)
    assert torch.equal(levelled.encode_spectrogram(crop), codec.encode_spectrogram(crop))
    lost, kept = (missing_power(crop, c.analyze(c.vocoder(crop))) for c in (codec, levelled))
    assert len(levelled.config.vocoder_gains_db) == 8
    assert hash_codec(levelled) == hash_codec(codec)
    assert kept.abs().nanmean() < lost.abs().nanmean()


def test_a_folder_without_a_codec_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), str(tmp_path / "out"), "--prepared", "nowhere"])
    assert capsys.readouterr().err.startswith("level_codec: error: ")
