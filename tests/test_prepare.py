"""Test the way from audio files to a prepared dataset on real small files."""

import errno
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_recordings import RATE, StoppedError, config, melody, save, stop_after

from codec.audio_file import read_audio
from pipelines import cli
from pipelines.data.clip_levels import (
    QUANTIZED_STEP,
    analysis,
    dequantize_spectrogram,
    quantize_spectrogram,
)
from pipelines.data.prepared import PreparedWriter, open_prepared, read_image, read_levels
from pipelines.data.recordings import cutting, preparation
from pipelines.data.recordings.preparation import prepare
from pipelines.data.recordings.tracks import find_tracks
from pipelines.data.shards import list_shards

SHORT_CLIPS = ("--clip", "2", "--min-track", "1")


def main(source: Path, output: Path, *options: str) -> int:
    return cli.main(["prepare", "audio", str(source), "--output", str(output), "--quiet", *options])


def all_bytes(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".npz"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """Four tracks of two albums, one each in another format or rate."""
    folder = tmp_path_factory.mktemp("music")
    save(folder / "loud/one.wav", melody(1, 5.3), title="First Light", genre="Ambient")
    save(folder / "loud/two.flac", melody(2, 4.0))
    save(folder / "quiet/three.ogg", melody(3, 3.0, 48_000), 48_000, artist="Ann")
    save(folder / "quiet/four.wav", melody(4, 2.5)[:, :1])
    return folder


@pytest.fixture(scope="module")
def prepared_music(music, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    return prepare(config(music, output, validation_source=("quiet",), license="CC0-1.0"))


def test_a_folder_becomes_clips(prepared_music):
    train = open_prepared(prepared_music.folder, "train")
    ids = [("one.wav", 0), ("one.wav", 1), ("one.wav", 2), ("two.flac", 0), ("two.flac", 1)]
    assert train["id"][:] == [f"loud/{name}#{number:04d}" for name, number in ids]
    assert train["num_frames"][:3] == [200, 200, 132]
    assert train["duration_s"][2] == pytest.approx(1.3, abs=1e-3)
    assert train["is_end"][:] == [False, False, True, False, True]
    assert train["start_s"][:3] == [0.0, 2.0, 4.0]
    assert set(train["source"]) == {"loud"}
    assert set(train["license"]) == {"CC0-1.0"}
    validation = open_prepared(prepared_music.folder, "validation")
    assert not set(train["track"]) & set(validation["track"])
    assert set(validation["source"]) == {"quiet"}


def test_captions_come_from_tags_and_names(prepared_music):
    train = open_prepared(prepared_music.folder, "train")
    validation = open_prepared(prepared_music.folder, "validation")
    assert train[0]["captions"] == ["First Light, ambient", "ambient"]
    assert train[3]["captions"] == ["two"]
    assert dict(zip(validation["track"], validation["attribution"], strict=True)) == {
        "quiet/four.wav": "",
        "quiet/three.ogg": "Ann",
    }


def whole_levels(audio: torch.Tensor) -> torch.Tensor:
    """(2, S) audio -> (1, M, F) log-mel of the root mean square of both channels."""
    spectrum = analysis().log_mel.stft(analysis().log_mel.pad(audio[None]))
    return analysis().analyze(spectrum)[0][0]


def test_the_spectrogram_is_that_of_the_stored_audio(prepared_music):
    train = open_prepared(prepared_music.folder, "train")
    for index in (0, 2):
        audio = read_audio(train[index]["audio"])
        assert audio.sample_rate == RATE
        expected = whole_levels(audio.audio)
        stored = dequantize_spectrogram(read_levels(train, index))
        frames = expected.shape[-1]
        error = (stored[..., :frames] - expected)[..., 3 : frames - 3].abs()
        assert error.max() <= QUANTIZED_STEP  # half a step, and the FLAC's sixteen bits
        assert (read_levels(train, index)[..., frames:] == 0).all()


def test_clips_join_without_a_seam(music, prepared_music):
    train = open_prepared(prepared_music.folder, "train")
    joined = np.concatenate([read_levels(train, index) for index in range(3)], axis=-1)
    whole = quantize_spectrogram(whole_levels(read_audio(music / "loud/one.wav").audio))
    difference = joined[..., : whole.shape[-1]].astype(int) - whole.astype(int)
    assert np.abs(difference).max() <= 1


def test_other_rates_and_mono_become_stereo_at_44100(prepared_music):
    validation = open_prepared(prepared_music.folder, "validation")
    assert all(read_levels(validation, index).shape[0] == 1 for index in range(len(validation)))
    mono = [i for i, row in enumerate(validation) if row["track"] == "quiet/four.wav"]
    assert mono
    assert all((read_image(validation, index)[0] == 128).all() for index in mono)
    assert all((read_image(validation, index)[1] == 0).all() for index in mono)
    three = [row for row in validation if row["track"] == "quiet/three.ogg"]
    assert sum(row["duration_s"] for row in three) == pytest.approx(3.0, abs=1e-3)
    assert prepared_music.report["sample_rates"] == {"44100 Hz": 3, "48000 Hz": 1}


def test_a_fraction_is_drawn_by_track(music, tmp_path):
    result = prepare(config(music, tmp_path, validation_fraction=0.3, audio="none"))
    train, validation = open_prepared(tmp_path, "train"), open_prepared(tmp_path, "validation")
    assert len(set(validation["track"])) == 2
    assert not set(train["track"]) & set(validation["track"])
    assert set(train["audio"]) == {b""}
    assert result.hours == pytest.approx(14.3 / 3600, abs=3e-4)


def test_the_report_says_what_is_in(prepared_music):
    report = json.loads((prepared_music.folder / "report.json").read_text())
    assert report["tracks_kept"] == report["tracks_listed"] == 4
    assert report["leakage"] == []
    assert sum(report["loudness_db"].values()) == 8
    text = (prepared_music.folder / "report.md").read_text()
    assert "| loud | CC0-1.0 |" in text
    assert "## Loudness" in text


def test_running_again_does_nothing_and_other_settings_or_files_are_refused(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    save(folder / "a.wav", melody(1, 2.0))
    prepare(config(folder, output))
    assert prepare(config(folder, output)).seconds == 0
    with pytest.raises(ValueError, match=r"made with clip_s=2\.0 \(now 1\.0\)"):
        prepare(config(folder, output, clip_s=1.0))
    save(folder / "b.wav", melody(2, 2.0))
    with pytest.raises(ValueError, match="made with other or changed audio files"):
        prepare(config(folder, output))


def test_two_workers_give_the_same_bytes(music, tmp_path):
    prepare(config(music, tmp_path / "one", workers=1))
    prepare(config(music, tmp_path / "two", workers=2))
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "two")


@pytest.mark.parametrize("after", [0, 1, 3])
def test_stopped_while_cutting_then_resumed_equals_undisturbed(music, tmp_path, monkeypatch, after):
    monkeypatch.setattr(cutting, "Clip", stop_after(after, cutting.Clip))
    with pytest.raises(StoppedError):
        prepare(config(music, tmp_path / "stopped"))
    monkeypatch.undo()
    prepare(config(music, tmp_path / "stopped"))
    prepare(config(music, tmp_path / "whole"))
    assert all_bytes(tmp_path / "stopped") == all_bytes(tmp_path / "whole")


@pytest.mark.parametrize("after", [1, 2, 3, 4, 7])
def test_stopped_while_joining_then_resumed_equals_undisturbed(music, tmp_path, monkeypatch, after):
    monkeypatch.setattr(PreparedWriter, "add", stop_after(after, PreparedWriter.add))
    with pytest.raises(StoppedError):
        prepare(config(music, tmp_path / "stopped", shard_clips=2))
    monkeypatch.undo()
    monkeypatch.setattr(preparation, "cut_one", cut_nothing_again)
    prepare(config(music, tmp_path / "stopped", shard_clips=2))
    monkeypatch.undo()
    prepare(config(music, tmp_path / "whole", shard_clips=2))
    assert all_bytes(tmp_path / "stopped") == all_bytes(tmp_path / "whole")
    assert not (tmp_path / "stopped/.work").exists()


def cut_nothing_again(job):
    track, settings, staged = job
    assert staged.with_suffix(".json").is_file()
    return cutting.cut_track(track, settings, staged)


def test_stopped_before_the_report_then_resumed(music, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "write_report", stop_after(0, preparation.write_report))
    with pytest.raises(StoppedError):
        prepare(config(music, tmp_path))
    monkeypatch.undo()
    assert prepare(config(music, tmp_path)).report["tracks_kept"] == 4
    assert not (tmp_path / ".work").exists()


def test_unusable_files_are_skipped_with_their_reason(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    save(folder / "good.wav", melody(1, 3.0))
    save(folder / "short.wav", melody(2, 0.5))
    save(folder / "silent.wav", np.zeros((3 * RATE, 2), dtype=np.float32))
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_text("not music at all")
    ogg = save(folder / "cut.ogg", melody(3, 4.0)).read_bytes()
    (folder / "cut.ogg").write_bytes(ogg[: len(ogg) // 2])
    (folder / "broken.zip").write_bytes(b"PK broken")
    soundfile.write(folder / "nan.wav", np.full((2 * RATE, 2), np.nan), RATE, subtype="FLOAT")
    report = prepare(config(folder, output)).report
    unreadable = ["broken.zip", "cut.ogg", "empty.wav", "nan.wav", "text.mp3"]
    assert {row["track"]: row["reason"] for row in report["skipped"]} == {
        **dict.fromkeys(unreadable, "unreadable"),
        "short.wav": "too short",
        "silent.wav": "silent",
    }
    assert all(row["detail"] for row in report["skipped"])
    assert set(open_prepared(output)["track"]) == {"good.wav"}


def test_a_damaged_archive_member_is_skipped(music, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(music / "loud/one.wav", "one.wav")
        archive.write(music / "loud/two.flac", "two.flac")
        offset = archive.getinfo("two.flac").header_offset
    data = bytearray((folder / "a.zip").read_bytes())
    data[offset + 1000] ^= 255
    (folder / "a.zip").write_bytes(data)
    report = prepare(config(folder, tmp_path / "out")).report
    assert [(row["track"], row["reason"]) for row in report["skipped"]] == [
        ("a.zip/two.flac", "unreadable")
    ]


def test_a_full_disk_stops_and_blames_no_file(music, tmp_path, monkeypatch, capsys):
    def no_space(**values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cutting, "Clip", no_space)
    assert main(music, tmp_path, *SHORT_CLIPS) == 2
    assert capsys.readouterr().err == "partita: error: [Errno 28] No space left on device\n"
    monkeypatch.undo()
    assert main(music, tmp_path, *SHORT_CLIPS) == 0
    assert json.loads((tmp_path / "report.json").read_text())["skipped"] == []


def test_silent_clips_are_dropped(tmp_path):
    audio = melody(1, 6.0)
    audio[2 * RATE : 4 * RATE] = 0
    save(tmp_path / "in/a.wav", audio)
    result = prepare(config(tmp_path / "in", tmp_path / "out"))
    assert open_prepared(tmp_path / "out")["start_s"][:] == [0.0, 4.0]
    assert result.report["silent_clips"] == 1


def test_samples_beyond_full_scale_are_scaled_and_said(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    loud = melody(1, 2.0) * 2
    soundfile.write(folder / "a.wav", loud, RATE, subtype="FLOAT")
    result = prepare(config(folder, tmp_path / "out"))
    row = open_prepared(tmp_path / "out")[0]
    audio = read_audio(row["audio"]).audio
    assert audio.abs().max() == pytest.approx(1.0, abs=1e-3)
    expected = torch.from_numpy(loud.T) / np.abs(loud).max()
    assert (audio - expected).abs().max() < 1e-3
    assert result.report["scaled_clips"] == 1


def test_nothing_usable_is_one_clear_error(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"")
    (folder / "b.mp3").write_bytes(b"noise")
    assert main(folder, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"no usable audio file in {folder}: 2 files skipped (see" in error
    assert "a.wav" in (tmp_path / "out/report.md").read_text()
    save(folder / "c.wav", melody(1, 6.0))
    assert main(folder, tmp_path / "out") == 0


def test_the_command_line_prints_the_hours(music, tmp_path, capsys):
    assert main(music, tmp_path, *SHORT_CLIPS) == 0
    assert "hours of audio a minute" in capsys.readouterr().out
    assert main(tmp_path / "nowhere", tmp_path / "x") == 2
    assert "nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip_s": 0.05}, "clip_s must be a multiple of 0.04"),
        ({"clip_s": float("nan")}, "clip_s must be a multiple of 0.04"),
        ({"min_clip_s": 3.0}, r"min_clip_s must lie in \[0, clip_s\]"),
        ({"min_track_s": -1.0}, "min_track_s must be 0 or more"),
        ({"audio": "mp3"}, "audio must be keep or none"),
        ({"validation_fraction": 1.5}, "validation_fraction must lie in"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, tmp_path, **values)


def test_an_unknown_validation_source_is_named(music, tmp_path):
    with pytest.raises(ValueError, match="got 'loudest'; there are"):
        prepare(config(music, tmp_path, validation_source=("loudest",)))


def test_metadata_jsonl_describes_files(tmp_path):
    folder = tmp_path / "in"
    save(folder / "a.wav", melody(1, 2.0), genre="ignored")
    save(folder / "b.wav", melody(2, 2.0))
    rows = [
        {"file_name": "a.wav", "text": "a slow tune", "license": "CC-BY-4.0", "bpm": 70},
        {"file_name": "b.wav", "captions": ["one", "two"], "labels": {"key": "D minor"}},
        {"file_name": "gone.wav", "caption": "lost"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    result = prepare(config(folder, tmp_path / "out", validation_fraction=0, attribution="Me"))
    a, b = list(open_prepared(tmp_path / "out"))
    assert a["captions"] == ["a slow tune"]
    assert a["license"] == "CC-BY-4.0"
    assert json.loads(a["labels"]) == {"bpm": 70}
    assert a["attribution"] == "Me"
    assert b["captions"] == ["one", "two"]
    assert json.loads(b["labels"]) == {"key": "D minor"}
    assert result.report["skipped"][0]["reason"] == "missing"
    assert result.report["labels"] == {"bpm": {"70": 1}, "key": {"D minor": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"file_name": "a.wav"}\n{"text": "b"}\n', "line 2: file_name must be a text"),
        (b'{"file_name": "a.wav"}\n{\n', "line 2: is not JSON"),
        (
            b'{"file_name": "a.wav"}\n{"file_name": "b.wav", "text": "caf\xe9"}',
            "line 2: is not UTF-8",
        ),
        (
            b'{"file_name": "a.wav", "bpm": 1}\n{"file_name": "a.wav", "bpm": 2}',
            "line 2: bpm of a.wav",
        ),
    ],
)
def test_a_bad_metadata_line_is_named_and_costs_no_other(tmp_path, text, message):
    (tmp_path / "metadata.jsonl").write_bytes(text)
    found = find_tracks(tmp_path)
    assert [track.name for track in found.tracks] == ["a.wav"]
    assert len(found.faults) == 1
    assert message in found.faults[0]


def test_a_list_of_paths_is_an_input(music, tmp_path):
    listing = music / "list.txt"
    listing.write_text("# my favorites\nloud/two.flac\n\nquiet/none.wav\n")
    result = prepare(config(listing, tmp_path))
    listing.unlink()
    assert set(open_prepared(tmp_path)["track"]) == {"loud/two.flac"}
    assert [row["reason"] for row in result.report["skipped"]] == ["missing"]


@pytest.mark.parametrize("inside_a_folder", [True, False])
def test_an_archive_is_read_in_place(music, tmp_path, inside_a_folder):
    folder = tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(folder / "songs.pk3", "w") as archive:
        archive.write(music / "quiet/three.ogg", "music/three.ogg")
        archive.writestr("readme.txt", "hello")
    source = folder if inside_a_folder else folder / "songs.pk3"
    prepare(config(source, tmp_path / "out"))
    name = "songs.pk3/music/three.ogg" if inside_a_folder else "music/three.ogg"
    assert set(open_prepared(tmp_path / "out")["track"]) == {name}


def test_stems_are_added(tmp_path):
    whole = melody(1, 2.0)
    rng = np.random.default_rng(0)
    part = (0.1 * rng.standard_normal(whole.shape)).astype(np.float32)
    for name, audio in (("song", whole - part), ("guitar", part), ("short", part[: RATE // 2])):
        soundfile.write(tmp_path / f"{name}.wav", audio, RATE, subtype="FLOAT")
    chunks = list(cutting.read_mix([tmp_path / "song.wav", tmp_path / "guitar.wav"], 1.0))
    assert torch.allclose(torch.cat(chunks, -1), torch.from_numpy(whole.T), atol=1e-6)
    with pytest.raises(ValueError, match="equally long"):
        list(cutting.read_mix([tmp_path / "song.wav", tmp_path / "short.wav"], 1.0))


def test_shards_hold_the_wanted_number_of_clips(music, tmp_path):
    prepare(config(music, tmp_path, shard_clips=3, validation_fraction=0))
    assert len(list_shards(tmp_path / "train")) == 3
