"""Test which copies the fingerprint finds, and which tracks are dropped."""

import numpy as np
import pytest
import torch
from tiny_recordings import RATE, config, melody, save

from codec.spectrogram import LogMel
from pipelines.data.clip_levels import quantize_spectrogram
from pipelines.data.prepared import open_prepared
from pipelines.data.recordings import duplicates
from pipelines.data.recordings.preparation import prepare


def test_duplicates_are_dropped_and_the_longest_stays(tmp_path):
    folder = tmp_path / "in"
    audio = melody(1, 14.0)
    save(folder / "a_loop.ogg", audio[3 * RATE : 11 * RATE] * 0.5)
    save(folder / "b.wav", audio)
    (folder / "c.wav").write_bytes((folder / "b.wav").read_bytes())
    save(folder / "d.wav", melody(2, 14.0))
    report = prepare(config(folder, tmp_path / "out", validation_fraction=0)).report
    rows = {row["track"]: (row["duplicate_of"], row["kind"]) for row in report["duplicates"]}
    assert rows == {"a_loop.ogg": ("b.wav", "same recording"), "c.wav": ("b.wav", "same file")}
    assert set(open_prepared(tmp_path / "out")["track"]) == {"b.wav", "d.wav"}


def test_of_equal_files_the_one_with_a_caption_stays(tmp_path):
    folder = tmp_path / "in"
    save(folder / "a.wav", melody(1, 14.0))
    for name in ("b.wav", "c.wav"):
        (folder / name).write_bytes((folder / "a.wav").read_bytes())
    (folder / "metadata.csv").write_text("file_name,text\nb.wav,a slow waltz\n")
    report = prepare(config(folder, tmp_path / "out", validation_fraction=0)).report
    dropped = {row["track"]: row["duplicate_of"] for row in report["duplicates"]}
    assert dropped == {"a.wav": "b.wav", "c.wav": "b.wav"}
    assert open_prepared(tmp_path / "out")["captions"][0] == ["a slow waltz"]


def words(audio: np.ndarray) -> np.ndarray:
    """Fingerprint (S, C) samples."""
    levels = quantize_spectrogram(LogMel()(torch.from_numpy(audio.T.copy())[None])[0])
    return duplicates.fingerprint(duplicates.band_levels(levels))


def test_the_fingerprint_finds_a_shifted_quieter_noisier_copy_and_nothing_else():
    audio = melody(1, 14.0)
    rng = np.random.default_rng(0)
    copy = audio[round(4.03 * RATE) :] * 0.3
    copy += 0.001 * rng.standard_normal(copy.shape).astype(np.float32)
    others = [melody(seed, 14.0) for seed in range(2, 5)]
    tracks = [words(track) for track in (audio, copy, *others)]
    matches = duplicates.find_matches(tracks)
    assert [(match.first, match.second) for match in matches] == [(0, 1)]
    assert matches[0].shared_fraction > 0.9
    assert matches[0].shared_s == pytest.approx(10, abs=1)


def test_a_shared_passage_is_leakage_but_no_duplicate():
    first, second = melody(1, 30.0), melody(2, 30.0)
    second[10 * RATE : 18 * RATE] = first[2 * RATE : 10 * RATE]
    (match,) = duplicates.find_matches([words(first), words(second)])
    assert match.shared_s == pytest.approx(8, abs=2)
    assert match.shared_fraction < 0.5
    assert duplicates.choose_duplicates([match], [30.0, 30.0]) == {}


def test_silence_matches_nothing():
    silence = words(np.zeros((10 * RATE, 2), dtype=np.float32))
    assert (silence == 0).all()
    assert duplicates.find_matches([silence, silence]) == []
    assert len(words(np.zeros((RATE // 10, 2), dtype=np.float32))) == 0


def test_a_chain_of_duplicates_loses_only_those_that_match_a_kept_track():
    matches = [duplicates.Match(0, 1, 60.0, 1.0), duplicates.Match(1, 2, 60.0, 0.9)]
    assert duplicates.choose_duplicates(matches, [60.0, 60.0, 60.0]) == {1: 0}
    assert duplicates.choose_duplicates(matches, [60.0, 90.0, 60.0]) == {0: 1, 2: 1}
