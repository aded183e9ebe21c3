"""Test the token cache with real small codecs."""

import io
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_recordings import StoppedError, stop_after

from codec import EncodecCodec, SpectralCodec
from codec.audio_file import read_audio
from codec.whole_file import write_json
from pipelines.cli import main
from pipelines.data import token_cache
from pipelines.data.codecs import hash_codec, load_codec
from pipelines.data.prepared import (
    Clip,
    PreparedWriter,
    finish_dataset,
    image_shape,
    open_prepared,
    read_crop,
)
from pipelines.data.token_cache import build_token_cache
from pipelines.data.tokens import open_all_tokens, open_tokens, read_codes, read_token_info

FRAMES = (40, 40, 24, 40, 24, 40, 40)


def flac(seed: int, num_samples: int) -> bytes:
    rng = np.random.default_rng(seed)
    stream = io.BytesIO()
    audio = 0.1 * rng.standard_normal((num_samples, 2))
    soundfile.write(stream, audio, 44_100, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def prepare_clips(folder, with_audio=True):
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("validation", 2)):
        with PreparedWriter(folder, split, 3) as writer:
            for index, num_frames in enumerate(FRAMES[:count]):
                writer.add(
                    Clip(
                        f"{split}-{index}",
                        f"track-{index}",
                        0.0,
                        num_frames / 100,
                        rng.integers(60, 200, (1, 128, num_frames), dtype=np.uint8),
                        rng.integers(60, 200, image_shape(num_frames), dtype=np.uint8),
                        ["a tune"],
                        '{"bpm": 90}',
                        source="here",
                        is_end=index % 2 == 0,
                        audio=flac(index, num_frames * 441) if with_audio else b"",
                    )
                )
    finish_dataset(folder, {})
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_clips(tmp_path_factory.mktemp("prepared"))


def make_spectral(seed: int = 0) -> SpectralCodec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = SpectralCodec(width=16, encoder_layers=1, decoder_layers=1, latent_dim=8,
                              num_codebooks=3, codebook_size=16)  # fmt: skip
        codec.quantizer.initialize(torch.randn(64, 8))
    return codec.eval()


@pytest.fixture(scope="module")
def spectral():
    return make_spectral()


@pytest.fixture(scope="module")
def encodec():
    return EncodecCodec.untrained("24khz", 1.5, num_filters=2).eval()


def shard_bytes(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.arrow")
    }


def test_the_cache_equals_encoding_each_spectrogram(prepared, spectral, tmp_path):
    info = build_token_cache(prepared, spectral, tmp_path, batch_clips=3, quiet=True)
    assert info.clips == {"train": 7, "validation": 2}
    assert (info.num_codebooks, info.codebook_size, info.frame_rate) == (3, 16, 25.0)
    assert info == read_token_info(tmp_path)
    for split in ("train", "validation"):
        clips, rows = open_prepared(prepared, split), open_tokens(tmp_path, split)
        assert rows["id"][:] == clips["id"][:]
        for index in range(len(clips)):
            whole = read_crop(clips, index, 0, clips[index]["num_frames"])
            direct = spectral.encode_spectrogram(whole[None])[0]
            codes = read_codes(rows, index)
            assert codes.dtype == torch.int64
            assert torch.equal(codes, direct)
            assert rows[index]["num_frames"] == direct.shape[-1] == FRAMES[index] // 4
        for kept in ("captions", "labels", "source", "is_end"):
            assert rows[kept][:] == clips[kept][:]


def test_a_codec_of_waveforms_is_fed_the_stored_audio(prepared, encodec, tmp_path):
    info = build_token_cache(prepared, encodec, tmp_path, batch_clips=2, quiet=True)
    assert info.frame_rate == 75.0
    clips, rows = open_prepared(prepared), open_tokens(tmp_path)
    with pytest.warns(UserWarning, match="resampled"):
        audio = read_audio(clips[2]["audio"], sample_rate=24_000, channels=1).audio
    direct = encodec.encode(audio[None])[0]
    codes = read_codes(rows, 2)
    assert codes.shape == direct.shape
    assert (codes == direct).float().mean() > 0.99  # batches may round a tie the other way


def test_without_audio_a_codec_of_waveforms_is_refused(encodec, tmp_path):
    folder = prepare_clips(tmp_path / "silent", with_audio=False)
    with pytest.raises(ValueError, match="EncodecCodec encodes audio, and"):
        build_token_cache(folder, encodec, tmp_path / "out", quiet=True)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_stopped_then_resumed_equals_undisturbed(prepared, spectral, tmp_path, monkeypatch, after):
    settings: dict[str, Any] = {"batch_clips": 2, "shard_clips": 3, "quiet": True}
    monkeypatch.setattr(token_cache, "to_int16", stop_after(after, token_cache.to_int16))
    with pytest.raises(StoppedError):
        build_token_cache(prepared, spectral, tmp_path / "stopped", **settings)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"tokens\.json is missing"):
        open_tokens(tmp_path / "stopped")
    build_token_cache(prepared, spectral, tmp_path / "stopped", **settings)
    build_token_cache(prepared, spectral, tmp_path / "whole", **settings)
    assert shard_bytes(tmp_path / "stopped") == shard_bytes(tmp_path / "whole")
    assert not (tmp_path / "stopped/unfinished.json").exists()


def test_another_codec_is_refused_and_the_same_one_does_nothing(prepared, spectral, tmp_path):
    first = build_token_cache(prepared, spectral, tmp_path, quiet=True)
    assert build_token_cache(prepared, make_spectral(), tmp_path, quiet=True) == first
    with pytest.raises(ValueError, match="holds tokens made with codec_hash="):
        build_token_cache(prepared, make_spectral(1), tmp_path, quiet=True)


def test_a_setting_of_later_versions_counts_where_it_changes_codes(spectral):
    hashed = hash_codec(spectral)
    spectral.register_to_config(error_feedback=0.5)
    assert hash_codec(spectral) != hashed
    del spectral.config["error_feedback"]  # as a codec of an earlier version
    assert hash_codec(spectral) == hashed


def test_a_codec_is_known_by_what_makes_its_codes(spectral):
    audio = torch.randn(
        1, spectral.channels, 20 * spectral.hop_length, generator=torch.manual_seed(0)
    )
    codes = spectral.encode(audio)
    for name in spectral.state_dict():
        other = make_spectral()
        tensor = other.state_dict()[name]
        with torch.no_grad():
            tensor.copy_(tensor + 1 if tensor.is_floating_point() else tensor)
        if name.split(".")[0] in SpectralCodec.SOUND_PARTS:
            assert hash_codec(other) == hash_codec(spectral), name
            assert torch.equal(other.encode(audio), codes), name
        elif tensor.is_floating_point():
            assert hash_codec(other) != hash_codec(spectral), name


def test_an_unfinished_cache_goes_on_only_with_the_same_settings(prepared, spectral, tmp_path):
    begun = asdict(token_cache.describe(prepared, spectral)) | {"batch_clips": 2, "shard_clips": 3}
    write_json(tmp_path / token_cache.UNFINISHED_NAME, begun)
    with pytest.raises(ValueError, match=r"made with batch_clips=2 \(now 16\)"):
        build_token_cache(prepared, spectral, tmp_path, shard_clips=3, quiet=True)


def test_several_caches_are_one_pool_if_one_codec_made_them(prepared, spectral, tmp_path):
    for name, codec in (("a", spectral), ("b", spectral), ("c", make_spectral(1))):
        build_token_cache(prepared, codec, tmp_path / name, quiet=True)
    pool = open_all_tokens([str(tmp_path / "a"), str(tmp_path / "b")], "validation")
    assert len(pool) == 4
    assert torch.equal(read_codes(pool, 0), read_codes(pool, 2))
    with pytest.raises(ValueError, match="made with different codecs"):
        open_all_tokens([str(tmp_path / "a"), str(tmp_path / "c")], "train")
    with pytest.raises(ValueError, match="must name at least one folder"):
        open_all_tokens([], "train")


def test_opening_says_what_is_wrong(prepared, spectral, tmp_path):
    build_token_cache(prepared, spectral, tmp_path, quiet=True)
    with pytest.raises(ValueError, match="split must be one of"):
        open_tokens(tmp_path, "test")
    path = tmp_path / "tokens.json"
    for text, said in (
        ('{"format_version": 7}', "format_version must be 1, got 7"),
        ('{"format_version": 1}', r"tokens\.json: .* missing"),
        ("?", "is not JSON"),
        ("[]", "is not a JSON object"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            open_tokens(tmp_path)
    with pytest.raises(ValueError, match="nowhere is not a folder: no token cache there"):
        open_tokens(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere is not a folder: no prepared dataset there"):
        build_token_cache(tmp_path / "nowhere", spectral, tmp_path / "x")


def test_settings_out_of_range_are_refused(prepared, spectral, tmp_path):
    with pytest.raises(ValueError, match="batch_clips must be at least 1, got 0"):
        build_token_cache(prepared, spectral, tmp_path, batch_clips=0)


def test_the_command_line_encodes_with_a_saved_codec(prepared, spectral, tmp_path, capsys):
    spectral.save_pretrained(tmp_path / "codec")
    arguments = [
        str(prepared),
        "--codec",
        str(tmp_path / "codec"),
        "--output",
        str(tmp_path / "out"),
    ]
    clips = open_prepared(prepared)
    assert main(["prepare", "tokens", *arguments, "--quiet"]) == 0
    assert "train 7 clips, validation 2 clips, 3 books of 16" in capsys.readouterr().out
    assert torch.equal(
        read_codes(open_tokens(tmp_path / "out"), 0),
        spectral.encode_spectrogram(read_crop(clips, 0, 0, clips[0]["num_frames"])[None])[0],
    )
    arguments[2:] = [str(tmp_path), "--output", str(tmp_path / "x")]
    assert main(["prepare", "tokens", *arguments]) == 2
    assert "is not a saved codec" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            b'{"_class_name": "TransformerPrior"}',
            "must be one of SpectralCodec, EncodecCodec, TransformersCodec, NoteTokenizer",
        ),
        (b"[]", r"config\.json is not a JSON object"),
        (b"\xff\xfe", r"config\.json is not JSON"),
    ],
)
def test_only_our_codecs_are_loaded(config, message, tmp_path):
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(ValueError, match=message):
        load_codec(tmp_path)
