"""Test ``partita prepare scores``: what it needs, what it skips, how it resumes.

The fast tests put a program named ``fluidsynth`` on the path that plays the same few seconds for
every piece; the slow ones use the real one.
"""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipelines.cli import main
from pipelines.data.clip_levels import quantize_image
from pipelines.data.prepared import Clip, iterate_clips, open_prepared
from pipelines.data.scores import score_dataset, score_jobs
from pipelines.data.scores.compose import compose
from pipelines.data.scores.instruments import BASSES, INSTRUMENTS
from pipelines.data.scores.score import Score
from pipelines.data.scores.score_dataset import ScoreDataset, prepare_scores, render_piece
from pipelines.data.scores.score_jobs import ScoreJob, compose_piece, free_drums, free_lead
from pipelines.data.scores.score_sound import (
    SAMPLE_RATE,
    SOUNDFONT,
    TARGET_DB,
    RenderError,
    clip_labels,
    cut_clips,
    normalize,
    render,
    trim_end,
)
from pipelines.data.shards import list_shards

SECONDS = 5.3


def tones(seconds: float) -> np.ndarray:
    """Return (2, S) samples, another tone in each channel."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return 0.1 * np.stack([np.sin(2765 * t), np.sin(4147 * t)]).astype(np.float32)


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a ``fluidsynth`` that copies a file to the path after ``-F``; return its script."""
    programs = tmp_path / "bin"
    programs.mkdir()
    soundfile.write(programs / "sound.wav", tones(SECONDS).T, SAMPLE_RATE, subtype="FLOAT")
    (programs / "bank.sf2").write_bytes(b"RIFF")
    script = programs / "fluidsynth"
    script.write_text(
        "#!/bin/sh\n"
        f'while [ "$1" != "-F" ]; do shift; done\nexec /bin/cp {programs}/sound.wav "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(score_jobs, "VALIDATION_EVERY", 3)
    return script


def wanted(player: Path, out: Path, clips: int, audio: str = "none") -> ScoreDataset:
    hours = (clips - 0.5) * SECONDS / 3600
    bank = player.parent / "bank.sf2"
    return ScoreDataset(out, hours, 0, 1, ("generated",), audio, bank, shard_clips=3)


def command(soundfont: Path, out: Path, *more: object) -> list[str]:
    words = ["prepare", "scores", "--output", out, "--soundfont", soundfont]
    words += ["--hours", SECONDS / 7200, "--sources", "generated", *more]
    return [*map(str, words)]


def rows(folder: Path) -> dict[str, list[Clip]]:
    return {s: list(iterate_clips(list_shards(folder / s))) for s in ("train", "validation")}


def same(first: list[Clip], second: list[Clip]) -> bool:
    return [clip.to_row() for clip in first] == [clip.to_row() for clip in second]


def test_clips_carry_labels_captions_and_both_splits(player, tmp_path):
    info = prepare_scores(wanted(player, tmp_path / "out", 8))
    clips = rows(tmp_path / "out")
    assert info["splits"]["train"]["clips"] == 6
    assert [clip.track[-1] for clip in clips["validation"]] == ["2", "5"]
    for clip in clips["train"]:
        known = {"tempo_bpm", "key", "mode", "meter", "instruments", "lead", "drums"}
        assert known <= json.loads(clip.labels).keys()
        assert len(clip.captions) == 6
        assert clip.is_end
        assert clip.duration_s == pytest.approx(SECONDS, abs=0.01)
        assert clip.num_frames == 532
        assert clip.audio == b""
    assert len(open_prepared(tmp_path / "out", "train")) == 6
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert sum(report["labels"]["mode"].values()) == 8


def test_a_stopped_run_resumes_to_an_equal_dataset(player, tmp_path):
    prepare_scores(wanted(player, tmp_path / "whole", 14))
    prepare_scores(wanted(player, tmp_path / "cut", 14))
    for split in ("train", "train", "validation"):
        list_shards(tmp_path / "cut" / split)[-1].unlink()
    (tmp_path / "cut" / "dataset.json").unlink()
    prepare_scores(wanted(player, tmp_path / "cut", 14))
    whole, cut = rows(tmp_path / "whole"), rows(tmp_path / "cut")
    assert all(same(whole[split], cut[split]) for split in whole)


def test_a_finished_dataset_grows_and_audio_is_kept_when_wanted(player, tmp_path):
    prepare_scores(wanted(player, tmp_path / "whole", 8))
    prepare_scores(wanted(player, tmp_path / "grown", 4))
    prepare_scores(wanted(player, tmp_path / "grown", 8))
    assert same(rows(tmp_path / "whole")["train"], rows(tmp_path / "grown")["train"])
    prepare_scores(wanted(player, tmp_path / "out", 1, "keep"))
    (clip,) = rows(tmp_path / "out")["train"]
    assert clip.audio[:4] == b"fLaC"


def test_dying_renders_are_skipped_counted_and_reported(player, tmp_path, capsys):
    copy = player.read_text()
    flag = tmp_path / "flag"
    turn = f"#!/bin/sh\nif [ -e {flag} ]; then /bin/rm {flag}; kill -9 $$; fi\n: > {flag}\n"
    player.write_text(turn + copy.removeprefix("#!/bin/sh\n"))
    prepare_scores(wanted(player, tmp_path / "out", 4))
    assert [clip.track[-1] for clip in rows(tmp_path / "out")["train"]] == ["0", "4", "6"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["skipped"]) == ["scores-0-0000001", "scores-0-0000003", "scores-0-0000005"]
    assert "fluidsynth ended with code -9" in capsys.readouterr().err


def test_a_player_that_always_dies_ends_the_run(player, tmp_path, capsys):
    player.write_text("#!/bin/sh\nexit 3\n")
    assert main(command(player.parent / "bank.sf2", tmp_path / "out")) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{score_dataset.MAX_FAILURE_RUN} pieces in a row" in last


@pytest.mark.parametrize(
    ("source", "present", "message"),
    [
        ("generated", [], "fluidsynth is not installed: apt-get install fluidsynth"),
        ("mma", ["fluidsynth", "none.sf2"], "mma is not installed: apt-get install mma"),
        ("generated", ["fluidsynth"], "apt-get install fluid-soundfont-gm"),
    ],
)
def test_missing_programs_are_named_with_their_package(
    tmp_path, monkeypatch, mistake, source, present, message
):
    for name in present:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    more = ("--sources", source)
    assert message in mistake(*command(tmp_path / "none.sf2", tmp_path / "out", *more))


def test_other_settings_and_numbers_out_of_range_are_refused(player, tmp_path, mistake):
    bank = player.parent / "bank.sf2"
    assert main(command(bank, tmp_path / "out")) == 0
    said = mistake(*command(bank, tmp_path / "out", "--seed", 1))
    assert "holds a dataset made with seed=0 (now 1)" in said
    for option, value in (("hours", 0), ("hours", "nan"), ("workers", 0), ("shard-clips", 0)):
        error = mistake(*command(bank, tmp_path / "new", f"--{option}", value))
        assert f"{option.replace('-', '_')} must be" in error
        assert f"got {value}" in error


def test_silence_and_damaged_samples_are_render_errors(player):
    score = compose(random.Random(0))
    for samples, message in ((np.zeros((4410, 2)), "silence"), (np.full((9, 2), np.nan), "finite")):
        soundfile.write(player.parent / "sound.wav", samples, SAMPLE_RATE, subtype="FLOAT")
        with pytest.raises(RenderError, match=message):
            render(score)


def test_loudness_and_peak_are_set_and_the_silent_end_is_cut_and_faded():
    quiet = normalize(0.01 * tones(3), -20.0)
    assert 10 * np.log10(np.square(quiet).mean()) == pytest.approx(-20, abs=0.1)
    click = tones(3) * 0.001
    click[:, 5000] = 0.5
    assert np.abs(normalize(click, -6.0)).max() <= 0.95 + 1e-6
    audio = np.concatenate([tones(2), np.zeros((2, 3 * SAMPLE_RATE), np.float32)], axis=1)
    cut = trim_end(audio)
    assert 2.0 < cut.shape[1] / SAMPLE_RATE < 2.2
    assert abs(cut[:, -1]).max() == 0.0


def test_long_pieces_become_clips_that_join():
    score: Score = compose(random.Random(2))
    clips = cut_clips(score, tones(46.0), "piece", 0, keep_audio=False)
    assert [(clip.start_s, clip.is_end) for clip in clips] == [(0, False), (20, False), (40, True)]
    assert [clip.num_frames for clip in clips] == [2000, 2000, 600]
    assert len(cut_clips(score, tones(44.0), "piece", 0, keep_audio=False)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("source", ["generated", "mma", "bach"])
def test_real_renders_are_equal_twice_clean_and_stereo(source):
    job = (ScoreJob(3, 1, (source,)), SOUNDFONT, True, 20.0)
    _, clips, reason = render_piece(job)
    _, again, _ = render_piece(job)
    assert not reason
    assert same(clips, again)
    assert clips[0].spectrogram.mean() > 20
    for clip in clips:
        mono = quantize_image(torch.zeros(2 * clip.stereo.shape[1], 1))
        assert (clip.stereo != mono).mean() > 0.2
        assert json.loads(clip.labels)["source"] == source


@pytest.mark.slow
@pytest.mark.parametrize("dynamics", TARGET_DB)
def test_real_loudness_follows_the_dynamics(dynamics):
    seeds = (s for s in range(200) if compose(random.Random(s)).labels["dynamics"] == dynamics)
    audio = render(compose(random.Random(next(seeds))))
    assert np.abs(audio).max() <= 0.951
    assert 20 * np.log10(audio.std()) == pytest.approx(TARGET_DB[dynamics], abs=4)


@pytest.mark.slow
def test_two_workers_write_what_one_writes(tmp_path):
    for workers in (1, 2):
        more = ("--workers", workers, "--hours", 0.03)
        assert main(command(SOUNDFONT, tmp_path / str(workers), *more)) == 0
    assert same(rows(tmp_path / "1")["train"], rows(tmp_path / "2")["train"])


def test_wanted_instruments_lead(player, tmp_path):
    folder = tmp_path / "out"
    settings = replace(wanted(player, folder, 6), leads=("oboe", "glockenspiel"))
    prepare_scores(settings)
    labels = [json.loads(clip.labels) for clips in rows(folder).values() for clip in clips]
    assert {label["lead"] for label in labels} - {None} == {"oboe", "glockenspiel"}
    with pytest.raises(ValueError, match="leads"):
        prepare_scores(replace(settings, leads=("oboe",)))
    with pytest.raises(ValueError, match=r"leads must be among piano, .* got 'kazoo'"):
        replace(settings, leads=("kazoo",))
    with pytest.raises(ValueError, match="leads needs the source"):
        replace(settings, sources=("bach",))


def test_any_instrument_leads_and_a_coin_gives_drums_in_some_pieces():
    jobs = [ScoreJob(0, index, ("generated",)) for index in range(1000)]
    free = [(job, free_lead(job)) for job in jobs]
    leads = [lead for _, lead in free if lead]
    assert {*leads} == {*INSTRUMENTS} - {*BASSES}
    assert 700 < len(leads) < 800
    rare = [job for job, lead in free if lead in ("pizzicato strings", "harpsichord", "oboe")]
    labels = [clip_labels(score, 0.0, score.duration_s) for score in map(compose_piece, rare)]
    leads = {label["lead"] for label in labels} - {None}  # which drums alone have
    assert leads == {"pizzicato strings", "harpsichord", "oboe"}
    assert {label["drums"] for label in labels} == {False, True}
    coins = [free_drums(job) for job in jobs]
    assert 430 < sum(coin is None for coin in coins) < 570
    for drums in (True, False):
        assert 200 < sum(coin is drums for coin in coins) < 300
