"""Test the prepared format: levels, clips, shards."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from codec.spectral_codec import SpectralCodec
from pipelines.data import prepared
from pipelines.data.clip_levels import (
    QUANTIZED_FLOOR,
    QUANTIZED_STEP,
    analysis,
    analyze,
    check_analysis,
    dequantize_image,
    dequantize_spectrogram,
    pad_frames,
    quantize_image,
    quantize_spectrogram,
)
from pipelines.data.prepared import (
    Clip,
    PreparedWriter,
    finish_dataset,
    image_shape,
    iterate_clips,
    open_prepared,
    read_image,
    read_info,
    read_levels,
)
from pipelines.data.shards import list_shards


def make_clip(index: int, num_frames: int = 8, **values) -> Clip:
    rng = np.random.default_rng(index)
    levels = rng.integers(0, 256, (1, 128, num_frames), dtype=np.uint8)
    stereo = rng.integers(0, 256, image_shape(num_frames), dtype=np.uint8)
    names = f"clip-{index}", f"track-{index // 3}"
    return Clip(*names, 0.0, num_frames / 100, levels, stereo, **values)


def write(folder, clips, split="train", shard_clips=4):
    with PreparedWriter(folder, split, shard_clips) as writer:
        for clip in clips:
            writer.add(clip)


def test_quantizing_errs_by_at_most_half_a_step():
    spectrogram = torch.linspace(QUANTIZED_FLOOR, 4.6, 2 * 128 * 40).reshape(2, 128, 40)
    back = dequantize_spectrogram(quantize_spectrogram(spectrogram))
    assert back.dtype == torch.float32
    assert (back - spectrogram).abs().max() <= QUANTIZED_STEP / 2 + 1e-5


def test_quantizing_levels_again_changes_nothing():
    levels = np.arange(256, dtype=np.uint8)
    assert (quantize_spectrogram(dequantize_spectrogram(levels)) == levels).all()


def test_values_outside_the_levels_are_cut():
    levels = quantize_spectrogram(torch.tensor([-20.0, 9.0]))
    assert levels.tolist() == [0, 255]


def test_padding_adds_floor_frames_to_a_multiple_of_four():
    levels = np.full((2, 128, 5), 9, dtype=np.uint8)
    padded = pad_frames(levels)
    assert padded.shape == (2, 128, 8)
    assert (padded[..., :5] == 9).all()
    assert (padded[..., 5:] == 0).all()
    assert pad_frames(padded) is padded


def test_a_mono_image_is_kept_exactly_and_any_other_to_half_a_step():
    image = torch.cat([torch.linspace(-30, 30, 320), torch.linspace(0, math.pi, 320)]).view(64, 10)
    back = dequantize_image(quantize_image(image))
    assert (back - image)[:32].abs().max() <= 0.125 + 1e-5
    assert (back - image)[32:].abs().max() <= math.pi / 510 + 1e-5
    assert (dequantize_image(quantize_image(torch.zeros(64, 3))) == 0).all()


def test_channels_are_analyzed_into_total_power_and_image():
    wave = torch.randn(1, 4410 + 2048 - 441, generator=torch.Generator().manual_seed(0)) * 0.1
    mono, image = analyze(wave.repeat(2, 1))
    assert (image[0] == 128).all()  # 0 dB
    assert (image[1] == 0).all()  # coherent
    assert (mono == quantize_spectrogram(analysis().log_mel.of_padded(wave[None])[0])).all()
    _, image = analyze(torch.cat([wave, -wave]))
    assert (image[1] >= 254).all()
    levels, image = analyze(torch.cat([wave, wave * 0]))
    assert (image[0] > 240).all()  # 30 dB
    assert abs(int(mono.mean()) - int(levels.mean()) - 0.5 * math.log(2) / QUANTIZED_STEP) < 1


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.zeros((1, 128, 6), dtype=np.uint8), "num_frames must be a positive multiple of 4"),
        (np.zeros((1, 128, 0), dtype=np.uint8), "num_frames must be a positive multiple of 4"),
        (np.zeros((1, 64, 8), dtype=np.uint8), r"spectrogram must be \(1, 128, 8\) uint8"),
        (np.zeros((2, 128, 8), dtype=np.uint8), r"spectrogram must be \(1, 128, 8\) uint8"),
        (np.zeros((1, 128, 8), dtype=np.float32), "spectrogram must be"),
        (np.zeros((1, 128, 12), dtype=np.uint8), r"stereo must be \(2, 32, 3\) uint8"),
    ],
)
def test_a_clip_that_breaks_the_format_is_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        Clip("a", "b", 0.0, 1.0, levels, np.zeros((2, 32, 2), dtype=np.uint8))


def test_what_is_written_is_read(tmp_path):
    clips = [make_clip(i, captions=["slow", "sad"], labels='{"bpm": 70}') for i in range(10)]
    clips.append(make_clip(10, 12, is_end=True, audio=b"flac", license="MIT", attribution="me"))
    write(tmp_path, clips)
    finish_dataset(tmp_path, {})
    dataset = open_prepared(tmp_path)
    assert len(dataset) == 11
    assert [path.name for path in list_shards(tmp_path / "train")] == [
        "shard-00000.arrow",
        "shard-00001.arrow",
        "shard-00002.arrow",
    ]
    for index, clip in enumerate(clips):
        row = dataset[index]
        assert row["captions"] == clip.captions
        assert row["num_frames"] == clip.num_frames
        assert row["is_end"] is clip.is_end
        assert row["audio"] == clip.audio
        assert (read_levels(dataset, index) == clip.spectrogram).all()
        assert (read_image(dataset, index) == clip.stereo).all()
    again = list(iterate_clips(list_shards(tmp_path / "train")))
    assert [clip.id for clip in again] == [clip.id for clip in clips]
    assert again[10].license == "MIT"


def test_levels_are_read_through_a_shuffled_view(tmp_path):
    clips = [make_clip(i) for i in range(6)]
    write(tmp_path, clips)
    finish_dataset(tmp_path, {})
    view = open_prepared(tmp_path).select([4, 1])
    assert (read_levels(view, 0) == clips[4].spectrogram).all()
    assert (read_levels(view, 1) == clips[1].spectrogram).all()


def test_a_killed_writer_leaves_whole_shards_and_resumes(tmp_path):
    clips = [make_clip(i) for i in range(11)]
    writer = PreparedWriter(tmp_path / "killed", "train", 4)
    for clip in clips[:6]:
        writer.add(clip)
    writer._flush()  # as if killed in the middle of the second shard
    assert list((tmp_path / "killed/train").glob("*.partial*"))
    resumed = PreparedWriter(tmp_path / "killed", "train", 4)
    assert resumed.complete_rows == 4
    with resumed:
        for clip in clips[resumed.complete_rows :]:
            resumed.add(clip)
    assert resumed.complete_rows == 11
    write(tmp_path / "whole", clips)
    killed, whole = list_shards(tmp_path / "killed/train"), list_shards(tmp_path / "whole/train")
    assert [p.read_bytes() for p in killed] == [p.read_bytes() for p in whole]
    assert not list((tmp_path / "killed/train").glob("*.partial*"))


def test_an_error_while_writing_leaves_no_half_shard(tmp_path):
    def stop_after(clips):
        yield from clips
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write(tmp_path, stop_after([make_clip(index) for index in range(5)]))
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["shard-00000.arrow"]


def test_the_info_counts_clips_hours_tracks_and_sources(tmp_path):
    write(tmp_path, [make_clip(i, source="a", license="MIT") for i in range(6)])
    write(tmp_path, [make_clip(i, source="b") for i in range(2)], split="validation")
    info = finish_dataset(tmp_path, {"clip_s": 20})
    assert info == read_info(tmp_path)
    assert info["splits"]["train"]["clips"] == 6
    assert info["splits"]["train"]["tracks"] == 2
    assert info["splits"]["validation"]["clips"] == 2
    assert [row["source"] for row in info["sources"]] == ["a", "b"]
    assert info["spectrogram"]["hop_length"] == 441
    assert info["settings"] == {"clip_s": 20}


def test_opening_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="split must be one of train, validation, got 'test'"):
        open_prepared(tmp_path, "test")
    with pytest.raises(ValueError, match=r"dataset\.json is missing"):
        open_prepared(tmp_path)
    write(tmp_path, [make_clip(0)])
    finish_dataset(tmp_path, {})
    with pytest.raises(ValueError, match="no clip in its split 'validation'"):
        open_prepared(tmp_path, "validation")
    wrong = {
        json.dumps({"format_version": 99}): "version must be 3, got 99",
        json.dumps({"format_version": 2}): "version must be 3, got 2",
        "{": "is not JSON",
    }
    for text, message in wrong.items():
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            open_prepared(tmp_path)


def test_a_truncated_shard_is_named(tmp_path):
    write(tmp_path, [make_clip(i) for i in range(4)])
    path = tmp_path / "train/shard-00000.arrow"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"shard-00000\.arrow is not a whole Arrow shard"):
        PreparedWriter(tmp_path, "train", 4)


def test_the_schema_is_the_documented_one():
    assert prepared.SCHEMA.names == [
        *["id", "track", "start_s", "duration_s", "captions", "labels", "source", "license"],
        *["attribution", "is_end", "num_frames", "spectrogram", "stereo", "audio"],
    ]
    assert prepared.SCHEMA.field("spectrogram").type == pa.large_binary()


def test_shards_need_at_least_one_clip(tmp_path):
    with pytest.raises(ValueError, match="shard_rows must be at least 1, got 0"):
        PreparedWriter(tmp_path, "train", 0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_fft": 2048}, "n_fft must be the 3072 of prepared data, got 2048"),
        ({"mel_break_hz": 1000.0}, "mel_break_hz must be the 450.0 of prepared data, got 1000.0"),
        ({"patch_frames": 8}, "patch_frames must be the 4 of prepared data, got 8"),
    ],
)
def test_a_codec_that_analyzes_otherwise_is_refused(sizes, message):
    small = {"width": 8, "encoder_layers": 1, "decoder_layers": 1, "codebook_size": 2}
    check_analysis(SpectralCodec(**small).config)
    with pytest.raises(ValueError, match=message):
        check_analysis(SpectralCodec(**small, **sizes).config)
