"""Test plans of labeled music: chords of scores, the plan cache, plans of clips."""

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import losses, metrics, settings
from torch import Tensor

from pipelines.cli import main
from pipelines.data.plans import plan_of_labels
from pipelines.data.scores.chords import best_triad, find_chords, plan_labels, transposed, triad
from pipelines.data.scores.compose import compose
from pipelines.data.scores.instruments import INSTRUMENTS
from pipelines.data.scores.plan_cache import build_plan_cache, planner_captions
from pipelines.data.scores.score import Note, Part, Score, pitch_class_weights
from pipelines.data.scores.score_sound import clip_labels
from pipelines.data.tokens import INFO_NAME, open_tokens, read_codes, read_token_info
from pipelines.train_prior import train_prior
from pipelines.training.prior_data import PriorData, TokenClip, TokenClips
from prior import ChordChange, Plan, Prior
from prior.form import FORM_WIDTH, SECTIONS_WIDTH
from prior.plan import HARMONY_WIDTH, PLAN_WIDTH, plan_features
from prior.plan import INSTRUMENTS as PLANNED_INSTRUMENTS
from prior.plan_codes import HEAD_FRAMES, decode_plan
from prior.planner import MAX_CHORDS
from prior.theory import METERS, TRIADS


def test_a_composed_piece_is_labeled_with_the_chords_that_are_played() -> None:
    for seed in range(20):
        score = compose(random.Random(seed))
        assert score.chords[0].beat == 0
        shares = []
        ends = [*(chord.beat for chord in score.chords), score.num_beats][1:]
        for chord, end in zip(score.chords, ends, strict=True):
            beat_s = 60 / score.tempo_bpm
            weights = pitch_class_weights(score, chord.beat * beat_s, end * beat_s)
            tones = [weights[(chord.root + step) % 12] for step in TRIADS[chord.quality]]
            shares.append(sum(tones) / sum(weights))
        assert sum(shares) / len(shares) > 0.6  # the rest is melody, sevenths, passing notes


def chorale(*beats: tuple[int, ...]) -> Score:
    notes = [Note(float(b), 1.0, pitch, 90) for b, chord in enumerate(beats) for pitch in chord]
    return Score(60.0, METERS["4/4"], None, [Part("organ", 19, notes)])


def test_chords_are_found_beat_by_beat_and_joined_across_silence() -> None:
    score = chorale((48, 60, 64, 67), (48, 55, 64, 72), (55, 59, 62, 67), (57, 60, 64, 69))
    assert find_chords(score) == [
        ChordChange(0.0, 0, "major"),
        ChordChange(2.0, 7, "major"),
        ChordChange(3.0, 9, "minor"),
    ]
    assert find_chords(chorale((62, 65, 69), (), (62, 65, 68))) == [
        ChordChange(0.0, 2, "minor"),
        ChordChange(2.0, 2, "diminished"),
    ]


def test_a_chord_is_named_by_the_nearest_triad_and_transposed() -> None:
    qualities = {(0, 4, 7, 11): "major", (0, 5, 7): "major", (0, 4, 8): "major",
                 (0, 3, 7, 10): "minor", (0, 3, 6, 9): "diminished"}  # fmt: skip
    assert {intervals: triad(intervals) for intervals in qualities} == qualities
    assert best_triad([float(pitch in (9, 0, 4)) for pitch in range(12)]) == (9, "minor")
    assert transposed([ChordChange(1.0, 10, "minor")], 5) == [ChordChange(1.0, 3, "minor")]


def test_labels_of_a_clip_give_the_plan_of_its_place() -> None:
    score = replace(
        chorale((48, 60, 64, 67)),
        tempo_bpm=90.0,
        chords=[ChordChange(beat, int(beat) % 12, "major") for beat in (0.0, 4.0, 8.0, 12.0)],
    )
    assert plan_labels(score, 4.0, 7.0) == {
        "first_beat": 6.0,
        "chords": [[4.0, 4, "major"], [8.0, 8, "major"]],
        "melody": [],
        "sections": [],
        "end_beat": 1.0,
    }
    labels = {"tempo_bpm": 90.0, "meter": "3/4", "key": "Bb", "mode": "minor"}
    labels |= {"instruments": ["oboe", "harp"], "drums": False}
    plan = plan_of_labels(labels | {"plan": plan_labels(score, 4.0, 7.0)})
    chords = (ChordChange(4.0, 4, "major"), ChordChange(8.0, 8, "major"))
    players = ("oboe", "harp")
    assert plan == Plan(90.0, 3, 10, "minor", chords, 6.0, players, False, end_beat=1.0)
    assert plan_of_labels(labels) is None


def test_a_later_clip_has_the_frames_of_the_whole_piece() -> None:
    score = compose(random.Random(5))
    late = plan_of_labels(clip_labels(score, 8.0, 16.0))
    whole = plan_of_labels(clip_labels(score, 0.0, 16.0))
    expected = plan_features(whole, 400, 25.0)[200:]
    torch.testing.assert_close(plan_features(late, 200, 25.0), expected, atol=1e-4, rtol=0)


def test_a_plan_names_the_instruments_that_pieces_are_written_for() -> None:
    assert tuple(INSTRUMENTS) == PLANNED_INSTRUMENTS


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans") / "plans"
    assert build_plan_cache(folder, 70, seed=3, sources=("generated",)) == {
        "train": 68,
        "validation": 2,
    }
    return folder


def test_the_cache_holds_whole_plans_with_captions(cache: Path) -> None:
    info = read_token_info(cache)
    assert (info.num_codebooks, info.codebook_size, info.frame_rate) == (2, 128, None)
    rows = open_tokens(cache, "train")
    for index in range(len(rows)):
        row = rows[index]
        labels = json.loads(row["labels"])
        plan = decode_plan(read_codes(rows, index))
        known = plan_of_labels(labels)
        assert known is not None
        assert abs(plan.tempo_bpm / labels["tempo_bpm"] - 1) < 0.0075
        assert (plan.tonic, plan.mode) == (known.tonic, known.mode)
        assert (plan.instruments, plan.drums) == (known.instruments, known.drums)
        assert plan.chords == known.chords[: len(plan.chords)]
        assert row["num_frames"] <= HEAD_FRAMES + MAX_CHORDS
        assert row["is_end"] == (len(plan.chords) == len(known.chords))
        assert len(row["captions"]) == 15


def test_equal_seeds_give_equal_caches_whatever_the_workers(cache: Path, tmp_path: Path) -> None:
    build_plan_cache(tmp_path / "again", 70, seed=3, sources=("generated",), workers=2)
    first, again = (open_tokens(folder, "train") for folder in (cache, tmp_path / "again"))
    assert first.to_list() == again.to_list()


def test_a_planner_learns_from_the_cache(cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    planner = Prior(num_codebooks=2, codebook_size=128, width=32, num_layers=1, num_heads=2,
                    depth_width=16, depth_layers=1, depth_heads=2, frame_rate=None)  # fmt: skip
    data = PriorData([str(cache)], crop_frames=16, validation_clips=2, depth_share=1.0)
    training = settings(tmp_path, steps=30, batch_size=4, learning_rate=1e-2, validate_every=30)
    folder = train_prior(planner, data, training)
    found = losses(tmp_path)
    assert found[0] > 4.7  # log 128 is 4.85
    assert found[-1] < 3.8
    assert Prior.from_pretrained(folder).config.frame_rate is None


@pytest.fixture(scope="module")
def timed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache as if its frames were of sound, 25 a second, so that plans can be read in time."""
    folder = tmp_path_factory.mktemp("timed") / "plans"
    shutil.copytree(cache, folder)
    info = json.loads((folder / INFO_NAME).read_text())
    (folder / INFO_NAME).write_text(json.dumps(info | {"frame_rate": 25.0}))
    return folder


def training_clips(
    cache: Path, count: int, **shares: float
) -> tuple[list[TokenClip], list[Tensor]]:
    """Items of a plan-reading prior's data, and their plans."""
    data = PriorData([str(cache)], crop_frames=16, text_dropout=0.3, **shares)
    clips = TokenClips(data, 2, True, "train", seed=0)
    items = [clips[n] for n in range(count)]
    return items, [item.plan for item in items if item.plan is not None]


def test_clips_carry_their_plans_and_may_lose_them(timed: Path) -> None:
    items, plans = training_clips(timed, 300, whole_plan_dropout=0.4, players_dropout=0.2)
    assert [plan.shape for plan in plans] == [(16, PLAN_WIDTH)] * 300
    planned = [bool(plan.any()) for plan in plans]
    captioned = [bool(item.caption) for item in items]
    assert not any(plan and not text for plan, text in zip(planned, captioned, strict=True))
    assert 0.25 < 1 - sum(captioned) / 300 < 0.35
    assert 0.3 < 1 - sum(planned) / sum(captioned) < 0.5
    led = [bool(plan[:, HARMONY_WIDTH:].any()) for plan in plans]
    assert 0.1 < 1 - sum(led) / sum(planned) < 0.3
    data = PriorData([str(timed)], crop_frames=16, text_dropout=0.3)
    plain = TokenClips(data, 2, False, "train", seed=0)[0]
    assert plain.plan is None
    assert torch.equal(plain.codes, items[0].codes)


def test_captions_may_leave_everything_to_the_plan(timed: Path) -> None:
    shares = {"whole_plan_dropout": 0.2, "players_dropout": 0.2, "caption_dropout": 0.5}
    items, plans = training_clips(timed, 400, **shares)
    whole = [item for item, plan in zip(items, plans, strict=True) if plan[:, -2:].any()]
    assert 0.4 < sum(item.caption == "" for item in whole) / len(whole) < 0.6
    pairs = zip(items, plans, strict=True)
    silent = [plan for item, plan in pairs if not plan[:, -2:].any() and item.caption == ""]
    assert 0.25 < len(silent) / len(items) < 0.35  # the text dropout alone
    assert not any(plan.any() for plan in silent)


def test_clips_carry_their_form_and_may_lose_each_part_of_it(timed: Path) -> None:
    shares = {"sections_dropout": 0.0, "melody_dropout": 0.5, "end_dropout": 0.25}
    data = PriorData([str(timed)], crop_frames=16, text_dropout=0.0, **shares)
    clips = TokenClips(data, 2, True, "train", seed=0, reads_form=True)
    plans = torch.stack([clips[n].plan for n in range(200)])  # type: ignore[misc]
    assert plans.shape == (200, 16, PLAN_WIDTH + FORM_WIDTH)
    planned = plans[..., 0].any(1)
    melody = plans[planned][..., PLAN_WIDTH + SECTIONS_WIDTH].any(1).float().mean()
    end = plans[planned][..., -2].any(1).float().mean()
    assert 0.35 < float(melody) < 0.65
    assert 0.65 < float(end) < 0.85
    whole = TokenClips(data, 2, True, "train", seed=0, reads_form=True)
    assert torch.equal(plans[7], whole[7].plan)  # type: ignore[arg-type]
    bare = TokenClips(data, 2, True, "train", seed=0)[7]
    assert bare.plan is not None
    assert torch.equal(bare.plan, plans[7, :, :PLAN_WIDTH])


def test_a_share_of_the_items_is_cut_from_the_end_of_a_piece(timed: Path) -> None:
    data = PriorData([str(timed)], crop_frames=4, end_share=0.4)
    ended = [TokenClips(data, 2, True, "train", seed=0)[n].ends for n in range(200)]
    unforced = TokenClips(replace(data, end_share=0.0), 2, True, "train", seed=0)
    last = [unforced[n].ends for n in range(200)]
    assert 0.3 < (sum(ended) - sum(last)) / 200 < 0.5


@pytest.mark.parametrize("backbone", ["transformer", "lstm"])
def test_a_prior_trains_on_form_and_filling(timed: Path, tmp_path: Path, backbone: Any) -> None:
    torch.manual_seed(0)
    prior = Prior(backbone, num_codebooks=2, codebook_size=128, width=32, num_layers=1, num_heads=2,
                  depth_width=16, depth_layers=1, depth_heads=2, reads_plan=True,
                  reads_form=True, fills=True)  # fmt: skip
    data = PriorData([str(timed)], crop_frames=16, validation_clips=2, fill_share=0.5)
    training = settings(tmp_path, steps=6, learning_rate=1e-2, validate_every=6)
    folder = train_prior(prior, data, training)
    assert any("loss_fill" in name for line in metrics(tmp_path) for name in line)
    trained = Prior.from_pretrained(folder)
    assert trained.config.fills
    assert trained.future_mark is not None
    assert bool(trained.future_mark.any())
    plain = Prior(num_codebooks=2, codebook_size=128, width=32, num_layers=1, num_heads=2,
                  depth_width=16, depth_layers=1, depth_heads=2)  # fmt: skip
    with pytest.raises(ValueError, match="fill_share needs a prior with fills=true"):
        train_prior(plain, data, replace(training, output_dir=str(tmp_path / "no")))


def test_most_captions_of_a_planner_name_no_key_and_many_no_tempo() -> None:
    labels = clip_labels(compose(random.Random(5)), 0.0, 8.0)
    texts = [planner_captions(labels, seed) for seed in range(40)]
    assert {len(each) for each in texts} == {15}

    def share(pattern: str, which: slice) -> float:
        found = [bool(re.search(pattern, text)) for each in texts for text in each[which]]
        return sum(found) / len(found)

    assert share("major|minor", slice(0, 6)) > 0.7
    assert share("major|minor", slice(6, 15)) == 0
    assert share("(?i)bpm|minute", slice(6, 9)) > 0.9
    assert share("(?i)bpm|minute", slice(9, 15)) < 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pieces", "0"], "pieces must be at least 1, got 0"),
        (["--pieces", "3", "--workers", "0"], "workers must be at least 1, got 0"),
        (["--pieces", "x"], "--pieces"),
    ],
)
def test_bad_options_are_one_line(options, message, tmp_path, capsys):
    argv = ["prepare", "plans", "--output", str(tmp_path / "out"), "--sources", "generated"]
    assert main([*argv, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_folder_that_exists_is_not_touched(cache: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        build_plan_cache(cache, 5, sources=("generated",))
