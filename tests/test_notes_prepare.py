"""``prepare notes``: MIDI files and the scores behind a rendered dataset as a token cache."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from tiny_notes import write_midi_folder, write_rendered

from pipelines.cli import main
from pipelines.data.codecs import hash_codec, load_codec
from pipelines.data.midi_file import read_midi
from pipelines.data.notes.note_cache import build_note_cache
from pipelines.data.notes.note_pieces import cut
from pipelines.data.notes.note_tokenizer import NoteTokenizer
from pipelines.data.prepared import finish_dataset
from pipelines.data.scores.score_jobs import ScoreJob, compose_piece
from pipelines.data.scores.score_midi import write_midi
from pipelines.data.tokens import open_tokens, read_codes, read_token_info

pytest.importorskip("miditok")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "scores"
    return write_rendered(folder, {"train": [0, 1, 2], "validation": [32]})


def onsets(codes: torch.Tensor) -> list[int]:
    return codes[0].cumsum(0).tolist()


def test_a_folder_of_midi_becomes_a_cache(tmp_path, capsys):
    midi = write_midi_folder(tmp_path / "midi")
    out = tmp_path / "notes"
    assert main(["prepare", "notes", str(midi), "--output", str(out), "--quiet"]) == 0
    assert "train 3 pieces" in capsys.readouterr().out
    info = read_token_info(out)
    assert (info.codec_class, info.num_codebooks, info.codebook_size) == ("NoteTokenizer", 6, 256)
    assert info.frame_rate is None
    codec = load_codec(out / "codec")
    rows = [
        (tokens[index], read_codes(tokens, index))
        for split in ("train", "validation")
        for tokens in [open_tokens(out, split)]
        for index in range(len(tokens))
    ]
    assert sorted(row["id"] for row, _ in rows) == [f"piece-{index}.mid" for index in range(4)]
    for row, codes in rows:
        assert torch.equal(codes, codec.encode(midi / row["id"])[0])
        index = int(row["id"][6])
        assert row["captions"] == ([f"tune {index}"] if index < 2 else [])
        assert row["is_end"]


def test_notes_of_a_rendered_dataset_are_those_of_its_clips(rendered, tmp_path):
    codec = NoteTokenizer()
    info = build_note_cache(rendered, codec, tmp_path / "notes", quiet=True)
    assert info.clips["validation"] >= 1
    tokens = open_tokens(tmp_path / "notes")
    for index in range(len(tokens)):
        row, codes = tokens[index], read_codes(tokens, index)
        piece, number = int(row["id"].split("-")[2]), int(row["id"].split("-")[3])
        score = compose_piece(ScoreJob(5, piece, ("generated",)))
        assert row["captions"] == [f"piece {piece}"]
        assert json.loads(row["labels"])["tempo_bpm"] == score.tempo_bpm
        starts = [note.start * 60 / score.tempo_bpm for part in score.parts for note in part.notes]
        here = sorted(s - 20 * number for s in starts if 20 * number <= s < 20 * (number + 1))
        assert codes.shape[1] >= len(here)
        seconds = torch.cumsum(codec.shift_s(codes.T), 0)
        struck = seconds[codes[1] != 128].tolist()
        step_s = 60 / score.tempo_bpm / 24 * 1.5  # a dotted quarter is a beat in 6/8
        assert struck == pytest.approx(here, abs=step_s)


def test_a_clip_is_cut_from_its_piece():
    score = compose_piece(ScoreJob(5, 0, ("generated",)))
    notes = read_midi(write_midi(score))
    ticks = notes.tempos[0].qpm / 60 * notes.ticks_per_quarter
    part = cut(notes, 2.0, 5.0)
    expected = sorted(
        (n.start, min(n.end, round(5 * ticks)), n.pitch, n.velocity, track.is_drum)
        for track in notes.tracks
        for n in track.notes
        if round(2 * ticks) <= n.start < round(5 * ticks)
    )
    shift = round(2 * ticks)
    assert expected == sorted(
        (n.start + shift, n.end + shift, n.pitch, n.velocity, track.is_drum)
        for track in part.tracks
        for n in track.notes
    )


def test_one_voice_and_another_grid(tmp_path):
    midi = write_midi_folder(tmp_path / "midi", 2)
    command = ["prepare", "notes", str(midi), "--quiet", "--monophonic", "--steps-per-beat", "4"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    codec = load_codec(tmp_path / "out" / "codec")
    assert isinstance(codec, NoteTokenizer)
    assert (codec.config.monophonic, codec.config.steps_per_beat) == (True, 4)
    codes = read_codes(open_tokens(tmp_path / "out"), 0)
    (score,) = codec.decode(codes[None])
    times = sorted((n.start, n.end) for track in score.tracks for n in track.notes)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(times))


def test_a_tokenizer_saved_under_its_old_name_loads(tmp_path):
    tokenizer = NoteTokenizer(12)
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("NoteTokenizer", "NoteCodec"))
    loaded = load_codec(tmp_path)
    assert isinstance(loaded, NoteTokenizer)
    assert loaded.config.steps_per_beat == 12
    assert (
        hash_codec(NoteTokenizer()) == "7304f6d071992d267166ee0dc8cc8c78"
    )  # of the caches made under that name


def test_bad_files_are_skipped_and_said(tmp_path, capsys):
    midi = write_midi_folder(tmp_path / "midi", 2)
    (midi / "broken.mid").write_bytes(b"MThd")
    (midi / "empty.mid").write_bytes(write_midi_without_notes())
    out = tmp_path / "out"
    assert main(["prepare", "notes", str(midi), "--output", str(out), "--quiet"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.rsplit("/", 1)[-1] for line in lines) == [
        "broken.mid is not a MIDI file: it must start with MThd",
        "empty.mid holds no notes",
    ]


def write_midi_without_notes() -> bytes:
    return b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x18MTrk\x00\x00\x00\x04\x00\xff\x2f\x00"


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (lambda folder: None, (), "is not a folder"),
        (lambda folder: folder.mkdir(), (), "holds no MIDI files"),
        (lambda folder: write_midi_folder(folder, 1), ("--steps-per-beat", "0"), "got 0"),
        (lambda folder: write_midi_folder(folder, 1), ("--validation-fraction", "1"), "got 1.0"),
        (lambda folder: bad_folder(folder), (), "has no piece with notes"),
        (lambda folder: other_dataset(folder), (), "not made by `partita prepare scores`"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, make, more, message):
    source, out = tmp_path / "source", tmp_path / "out"
    make(source)
    assert main(["prepare", "notes", str(source), "--output", str(out), "--quiet", *more]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert not out.exists()


def bad_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "bad.mid").write_bytes(b"?")


def other_dataset(folder: Path) -> None:
    folder.mkdir()
    finish_dataset(folder, {"command": "prepare audio"})


def test_an_existing_folder_is_kept(tmp_path, mistake):
    midi = write_midi_folder(tmp_path / "midi", 2)
    assert "exists already" in mistake("prepare", "notes", midi, "--output", midi, "--quiet")
    assert (midi / "piece-0.mid").is_file()


def test_a_score_that_comes_out_otherwise_is_refused(tmp_path):
    folder = write_rendered(tmp_path / "scores", {"train": [0]})
    info = json.loads((folder / "dataset.json").read_text())
    info["settings"]["seed"] = 6
    (folder / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="composed otherwise than when it was rendered"):
        build_note_cache(folder, NoteTokenizer(), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()
