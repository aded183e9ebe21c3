"""Folders of good and bad files, rows and names: nothing good is lost, nothing bad is silent."""

import io
import json
import os
import shutil
import struct
import tempfile
import unicodedata
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_recordings import RATE, StoppedError, config, melody, save, stop_after

from codec.audio_file import describe_audio, read_audio
from pipelines.cli import main
from pipelines.data.caption_length import MAX_TOKENS, shipped_offsets, shorten_caption
from pipelines.data.midi_file import read_midi
from pipelines.data.prepared import open_prepared
from pipelines.data.recordings import preparation
from pipelines.data.recordings.preparation import PrepareReport, prepare
from pipelines.data.row_files import read_rows

LONG = "a slow sad piano piece in D minor with a violin, " * 12


def prepared(folder: Path, output: Path, **values: object) -> PrepareReport:
    """Prepare without saying anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(config(folder, output, validation_fraction=0.0, **values))


def skipped(report: PrepareReport) -> dict[str, str]:
    """Reasons by track."""
    return {row["track"]: row["reason"] for row in report.report["skipped"]}


def as_bytes(audio: np.ndarray, format: str, subtype: str, **options: object) -> bytes:
    """Encode (S, C) samples."""
    stream = io.BytesIO()
    soundfile.write(stream, audio, RATE, format=format, subtype=subtype, **options)
    return stream.getvalue()


def mp3(seed: int, duration_s: float) -> bytes:
    """A variable-rate MP3: near silence for the first half, which costs few bits, then music."""
    audio = melody(seed, duration_s)
    audio[: len(audio) // 2] *= 1e-2
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.3}
    return as_bytes(audio, "MP3", "MPEG_LAYER_III", **options)


def without_table(data: bytes) -> bytes:
    """Take the frame off that tells an MP3's length."""
    place = max(data.find(b"Xing"), data.find(b"Info"))
    start = data.rfind(b"\xff\xfb", 0, place)
    return data[:start] + data[data.index(b"\xff\xfb", place) :]


def test_an_mp3_without_a_table_is_read_to_its_end(tmp_path):
    (tmp_path / "a.mp3").write_bytes(without_table(mp3(1, 8.0)))
    with pytest.warns(UserWarning, match="its header tells of"):
        clip = read_audio(tmp_path / "a.mp3")
    assert clip.audio.shape[1] / RATE == pytest.approx(8.0, abs=0.1)
    assert "are there" in clip.notes[0]
    result = prepared(tmp_path, tmp_path / "out", min_clip_s=0)
    assert result.hours * 3600 == pytest.approx(8.0, abs=0.2)
    assert "its header tells" in result.report["put_right"][0]["note"]


def test_joined_mp3s_are_read_to_the_end_of_the_last(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(1, 3.0) + mp3(2, 4.0))
    with pytest.warns(UserWarning, match="its header tells of"):
        joined = read_audio(path).audio
    assert joined.shape[1] / RATE == pytest.approx(7.0, abs=0.2)
    second = read_audio(mp3(2, 4.0)).audio
    end = joined[:, -2 * RATE :].norm() / second[:, -2 * RATE :].norm()
    assert float(end) == pytest.approx(1.0, abs=0.1)


def test_an_mp3_whose_header_is_right_is_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert describe_audio(mp3(1, 3.0)).duration_s == pytest.approx(3.0, abs=0.1)


def test_joined_ogg_files_are_refused_with_their_number():
    one = as_bytes(melody(1, 1.0), "OGG", "VORBIS")
    with pytest.raises(ValueError, match="holds 3 Ogg streams one after the other"):
        read_audio(3 * one)
    assert read_audio(one).audio.shape[1] == RATE


def test_a_crashed_recorders_wav_is_read(tmp_path):
    data = bytearray(as_bytes(melody(1, 2.0), "WAV", "PCM_16"))
    expected = read_audio(bytes(data)).audio
    data[4:8], data[40:44] = struct.pack("<I", 36), bytes(4)
    with pytest.warns(UserWarning, match="its header tells of no sound, 352800 bytes"):
        assert torch.equal(read_audio(bytes(data)).audio, expected)
    empty = as_bytes(np.zeros((0, 2)), "WAV", "PCM_16")
    with pytest.raises(ValueError, match="holds no samples"):
        read_audio(empty)


def test_formats_that_are_read_and_formats_that_are_not(tmp_path):
    audio = melody(1, 2.0)
    for seed, (name, kind) in enumerate(
        {"a.aiff": "AIFF", "b.caf": "CAF", "c.w64": "W64", "d.au": "AU"}.items()
    ):
        (tmp_path / name).write_bytes(as_bytes(melody(seed, 2.0), kind, "PCM_16"))
    (tmp_path / "e.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.wav").mkdir()
    save(tmp_path / "folder.wav" / "f.wav", audio)
    result = prepared(tmp_path, tmp_path / "out")
    assert skipped(result) == {"e.m4a": "unreadable"}
    assert "convert it to FLAC" in result.report["skipped"][0]["detail"]
    assert result.report["tracks_kept"] + len(result.report["duplicates"]) == 5
    assert result.report["other_files"] == {".txt": 1}


def test_names_that_are_not_utf8_or_decomposed(tmp_path):
    os.mkdir(tmp_path / "in")
    bad = os.fsencode(tmp_path / "in") + b"/caf\xe9.wav"
    with open(bad, "wb") as file:
        file.write(as_bytes(melody(1, 2.0), "WAV", "PCM_16"))
    save(tmp_path / "in" / unicodedata.normalize("NFD", "été.wav"), melody(2, 2.0))
    row = {"file_name": unicodedata.normalize("NFC", "été.wav"), "text": "summer"}
    (tmp_path / "in" / "metadata.jsonl").write_text(json.dumps(row))
    rows = open_prepared(prepared(tmp_path / "in", tmp_path / "out").folder)
    captions = dict(zip(rows["track"], rows["captions"], strict=True))
    assert captions.pop(unicodedata.normalize("NFD", "été.wav")) == ["summer"]
    assert [*captions] == ["caf\\xe9.wav"]
    metadata = prepared(tmp_path / "in" / "metadata.jsonl", tmp_path / "listed")
    assert metadata.report["tracks_kept"] == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_metadata_of_spreadsheets(encoding, tmp_path):
    save(tmp_path / "a.wav", melody(1, 2.0))
    save(tmp_path / "b.wav", melody(2, 2.0))
    text = 'file_name,text,bpm\na.wav,"Käse, slowly",90\na.wav,another caption,90\nb.wav,x,\n'
    (tmp_path / "metadata.csv").write_bytes(text.encode(encoding))
    rows = open_prepared(prepared(tmp_path, tmp_path / "out").folder)
    assert rows["captions"][:] == [["Käse, slowly", "another caption"], ["x"]]
    assert json.loads(rows[0]["labels"]) == {"bpm": "90"}


def test_a_csv_in_another_encoding_loses_its_own_rows_only(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_bytes(b"file_name,text\na.wav,fine\nb.wav,caf\xe9\nc.wav,fine\n")
    file = read_rows(path)
    assert [row["file_name"] for row in file.rows.values()] == ["a.wav", "c.wav"]
    assert [str(fault) for fault in file.faults] == ["line 3: is not UTF-8"]


def test_what_a_trainer_would_refuse_is_mended_or_left_out_by_name(tmp_path):
    for seed, name in enumerate(("a", "b", "c", "d")):
        save(tmp_path / f"{name}.wav", melody(seed, 2.0))
    save(tmp_path / "short.wav", melody(9, 0.5))
    rows = [
        {"file_name": "a.wav", "text": LONG},
        {"file_name": "b.wav", "text": "x", "split": "test"},
        {"file_name": "c.wav", "text": "half \ud800 a pair"},
        {"file_name": "d.wav", "text": "x", "plan": "fast"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metadata.jsonl").write_text(lines)
    result = prepared(tmp_path, tmp_path / "out", min_track_s=0, min_clip_s=0)
    assert skipped(result) == {"b.wav": "left out"}
    assert "split must be one of train, validation, got 'test'" in str(result.report["skipped"])
    notes = {row["track"]: row["note"] for row in result.report["put_right"]}
    assert sorted(notes) == ["a.wav", "c.wav", "d.wav"]
    found = open_prepared(tmp_path / "out")
    assert len(shipped_offsets(found[0]["captions"][0])) <= MAX_TOKENS
    assert LONG.startswith(found[0]["captions"][0])
    assert "every trainer needs it: it takes two recordings" in str(result.report["warnings"])


@given(st.text(max_size=600))
@settings(max_examples=60, deadline=None)
def test_a_shortened_caption_fits_and_begins_the_caption(text):
    short = shorten_caption(text)
    assert text.startswith(short)
    assert len(shipped_offsets(short)) <= MAX_TOKENS
    if len(shipped_offsets(text)) <= MAX_TOKENS:
        assert short == text


def test_mended_metadata_cost_no_finished_work(tmp_path, monkeypatch):
    for seed in range(3):
        save(tmp_path / "in" / f"{seed}.wav", melody(seed, 2.0))
    metadata = tmp_path / "in" / "metadata.jsonl"
    metadata.write_text('{"file_name": "0.wav", "text": "x", "split": "tst"}\n')
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "join_clips", stop_after(0, preparation.join_clips))
        with pytest.raises(StoppedError):
            prepared(tmp_path / "in", tmp_path / "out")
    metadata.write_text('{"file_name": "0.wav", "text": "x", "split": "validation"}\n')
    staged = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    result = prepared(tmp_path / "in", tmp_path / "out")
    assert result.report["tracks_kept"] == 3
    assert len([path for path in staged if path.name != "settings.json"]) == 3
    whole = prepared(tmp_path / "in", tmp_path / "whole")
    for split in ("train", "validation"):
        one, other = (open_prepared(r.folder, split).to_list() for r in (result, whole))
        assert one == other


def test_midi_escapes_swallow_no_notes():
    on, off = b"\x00\x90\x3c\x40", b"\x83\x60\x80\x3c\x00"
    for escape in (b"\xf7\x02\xf3\x01", b"\xf7\x04\xff\x90\x07\xf7", b"\xf7\x03\x41\x90\x90"):
        track = on + off + b"\x00" + escape + on + off + b"\x00\xff\x2f\x00"
        head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480)
        score = read_midi(head + b"MTrk" + struct.pack(">I", len(track)) + track)
        assert [(n.start, n.end) for n in score.tracks[0].notes] == [(0, 480), (480, 960)]


GOOD: dict[str, Callable[[int], bytes]] = {
    "wav": lambda seed: as_bytes(melody(seed, 1.2), "WAV", "PCM_16"),
    "flac": lambda seed: as_bytes(melody(seed, 1.2), "FLAC", "PCM_16"),
    "aiff": lambda seed: as_bytes(melody(seed, 1.2), "AIFF", "PCM_16"),
}
BAD: dict[str, Callable[[int], bytes]] = {
    "wav": lambda seed: b"",
    "flac": lambda seed: GOOD["flac"](seed)[:-2000],
    "ogg": lambda seed: b"not audio at all",
    "zip": lambda seed: b"PK\x03\x04 torn",
    "m4a": lambda seed: b"\0\0\0\x20ftypM4A " + bytes(50),
}
STEMS = st.sampled_from([b"a", b"b c", b"caf\xe9", "été".encode(), b"-x", b"\xff\xfe", b"n'n"])
ROWS = st.sampled_from(
    [
        b'{"file_name": "a.wav", "text": "good"}',
        b'{"file_name": "gone.wav"}',
        b'{"file_name": 3}',
        b'{"file_name": "b c.flac", "text": ["x", null, ""], "bpm": NaN}',
        b'{"file_name": "caf\xe9.wav"}',
        b"{torn",
        b"[1]",
        b'{"file_name": "a\\u0000.wav"}',
        b'{"file_name": ""}',
        b'{"file_name": ".."}',
        b'{"file_name": "-x.wav", "text": "' + LONG.encode() + b'"}',
        b'{"file_name": "b c.wav", "captions": "\\udc00", "split": "train"}',
    ]
)
FAULTY_ROWS = (b"3}", b"torn", b"[1]", b"\xe9", b"u0000", b'""}')
"""Endings and bytes by which a row is known that must be named in the report."""


@given(
    good=st.dictionaries(STEMS, st.sampled_from([*GOOD]), max_size=4),
    bad=st.dictionaries(STEMS, st.sampled_from([*BAD]), max_size=4),
    rows=st.lists(ROWS, max_size=5, unique=True),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mixture_of_good_and_bad(good, bad, rows):
    work = Path(tempfile.mkdtemp())
    folder = os.fsencode(work / "in")
    os.mkdir(folder)
    for seed, (stem, kind) in enumerate(good.items()):
        with open(folder + b"/" + stem + b"." + kind.encode(), "wb") as file:
            file.write(GOOD[kind](seed))
    os.mkdir(folder + b"/bad")
    for seed, (stem, kind) in enumerate(bad.items()):
        with open(folder + b"/bad/" + stem + b"." + kind.encode(), "wb") as file:
            file.write(BAD[kind](seed))
    (work / "in" / "metadata.jsonl").write_bytes(b"\n".join(rows))
    with nullcontext() if good else pytest.raises(ValueError, match="no usable audio file"):
        prepared(work / "in", work / "out", min_track_s=1.0)
    report = json.loads((work / "out" / "report.json").read_text())
    named = {row["track"] for row in report["skipped"]}
    kept = report["tracks_kept"] + len(report["duplicates"])
    assert kept == len(good)
    assert {name for name in named if name.startswith("bad/")} == {
        f"bad/{stem.decode(errors='backslashreplace')}.{kind}" for stem, kind in bad.items()
    }
    faulty = [row for row in rows if any(mark in row for mark in FAULTY_ROWS)]
    assert len(report["metadata"]) == len(faulty)
    for row in faulty:
        line = f"line {rows.index(row) + 1}:"
        assert any(line in fault for fault in report["metadata"])
    shutil.rmtree(work)


def test_the_command_says_what_it_passed_over(tmp_path, capsys):
    save(tmp_path / "in" / "a.wav", melody(1, 6.0))
    (tmp_path / "in" / "b.wav").write_bytes(b"x")
    (tmp_path / "in" / "metadata.jsonl").write_text("{}\n")
    arguments = ["prepare", "audio", str(tmp_path / "in"), "--quiet"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "skipped: b.wav: " in said
    assert "metadata.jsonl, line 1: file_name must be a text" in said
    assert "the split 'validation' is empty, and every trainer needs it" in said
