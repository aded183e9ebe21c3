"""The comparison's parts: equal sizes, pieces, streams, returns, nats, spread."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tiny_codec import tiny_codec
from tiny_prior import BACKBONES, some_codes, some_text, tiny_prior

from codec.audio_file import AudioClip
from pipelines.comparison.comparison_row import ComparisonRow, Plot, Series
from pipelines.comparison.context import best_matches, find_new, find_returning
from pipelines.comparison.equal_size import complete, count_parameters, fit_width
from pipelines.comparison.generation_cost import state_bytes
from pipelines.comparison.piece_cache import (
    TrackPiece,
    cache_info,
    code_bits,
    held_out_bits,
    join_tracks,
    part_of,
    write_cache,
)
from pipelines.comparison.recall import recall_stream
from pipelines.comparison.reconstruction import compare_clips, from_tokens, match_level
from pipelines.comparison.spread import fit_exponent, number, paired_interval, verdict
from pipelines.data.tokens import open_tokens, read_codes
from pipelines.evaluation.held_out import nats_per_code
from pipelines.evaluation.systems import TokenCodec
from prior import Prior

SMALL = {"num_layers": 2, "num_heads": 2, "depth_width": 16, "depth_layers": 1, "depth_heads": 2}


# -- equal sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [580_000, 1_000_000])
def test_backbones_get_equally_many_parameters(target):
    for backbone in BACKBONES:
        config = fit_width(SMALL | {"backbone": backbone}, target, 0.03)
        built = sum(parameter.numel() for parameter in Prior(**config).parameters())
        assert built == count_parameters(config)
        assert abs(built / target - 1) <= 0.03


def test_a_size_that_no_width_gives_is_refused():
    with pytest.raises(ValueError, match="no width gives a transformer of 2 layers 60,000"):
        fit_width(SMALL | {"backbone": "transformer", "num_heads": 16}, 60_000, 0.01)


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="a Prior has no field 'depht'"):
        complete({"depht": 3})


# -- pieces -----------------------------------------------------------------------------------


def clips_of(track: str, codes: np.ndarray, length: int, between: str = "-") -> list[TrackPiece]:
    starts = range(0, codes.shape[1], length)
    return [
        TrackPiece(f"{track}{between}{number}", codes[:, start : start + length], is_end=False)
        for number, start in enumerate(starts)
    ]


def test_joining_undoes_cutting():
    codes = np.arange(46, dtype=np.int16).reshape(2, 23)
    clips = clips_of("a-0", codes, 10) + clips_of("music/b.ogg", codes + 50, 10, "#")
    joined = join_tracks(clips[::-1])  # whatever the order
    assert sorted(piece.codes.shape[1] for piece in joined) == [23, 23]
    for piece in joined:
        assert np.array_equal(piece.codes, codes + 50 * piece.id.startswith("music"))


def test_a_missing_clip_parts_a_track():
    clips = clips_of("a", np.arange(50, dtype=np.int16)[None], 10)
    del clips[2]
    assert [piece.codes.shape[1] for piece in join_tracks(clips)] == [20, 20]


def test_parts_are_nested_and_hold_whole_tracks():
    codes = np.zeros((1, 30), dtype=np.int16)
    clips = [clip for track in range(8) for clip in clips_of(f"track{track}", codes, 10)]
    half, quarter = part_of(clips, 0.5, 0), part_of(clips, 0.25, 0)
    assert (len(half), len(quarter)) == (12, 6)
    assert {clip.id for clip in quarter} < {clip.id for clip in half}


def test_a_written_cache_is_read_like_any_other(tmp_path):
    codes = np.arange(12, dtype=np.int16).reshape(2, 6)
    piece = TrackPiece("a", codes, ["a tune"], "{}", "here", True)
    folder = write_cache(
        tmp_path / "cache", {"train": [piece], "validation": [piece]}, cache_info("test", 2, 16)
    )
    rows = open_tokens(folder, "train")
    assert torch.equal(read_codes(rows, 0), torch.from_numpy(codes).long())
    assert rows[0]["captions"] == ["a tune"]
    assert rows[0]["is_end"]


def test_runs_that_want_one_cache_take_turns(tmp_path):
    clips = clips_of("x", np.arange(2000, dtype=np.int16).reshape(2, 1000), 5)
    with ThreadPoolExecutor(4) as pool:
        wanted = [
            pool.submit(write_cache, tmp_path / "cache", {"train": clips}, cache_info("x", 2, 999))
            for _ in range(4)
        ]
        folders = {future.result() for future in wanted}
    assert len(open_tokens(folders.pop(), "train")) == len(clips)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "cache.lock"]


# -- streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0, 25])
def test_a_tested_segment_returns_once_with_its_labels(gap):
    values, labels = recall_stream(0, 0, 60, 10, 256, gap)
    (first, again) = np.flatnonzero(labels == 0)
    for start in (first, again):
        assert np.array_equal(labels[start : start + 10], np.arange(10))
    assert np.array_equal(values[first : first + 10], values[again : again + 10])
    assert (labels == 10).sum() == 40
    assert again + 10 == 60
    assert again - first == 10 + gap


def test_a_training_segment_returns_as_long_as_there_is_room():
    gaps = []
    for index in range(50):
        values, labels = recall_stream(0, index, 200, 10, 256)
        places = np.flatnonzero(labels == 0)
        assert len(places) >= 2
        for start in places:
            assert np.array_equal(labels[start : start + 10], np.arange(10))
            assert np.array_equal(values[start : start + 10], values[places[0] : places[0] + 10])
        assert (labels < 10).sum() == 10 * len(places)
        assert places[0] <= 10
        assert len(values) - places[-1] - 10 < 10  # no other return fits
        gaps += [*(np.diff(places) - 10)]
    assert min(gaps) == 0
    assert max(gaps) > 100


# -- passages ---------------------------------------------------------------------------------


def with_return(start: int, lag: int, window: int) -> np.ndarray:
    codes = np.random.default_rng(0).integers(64, size=300)
    codes[start : start + window] = codes[start - lag : start - lag + window]
    return codes


def test_matches_equal_a_plain_loop():
    codes = np.random.default_rng(1).integers(4, size=60)
    match, lag = best_matches(codes, 8, range(10, 40))
    for start in range(len(codes) - 7):
        shares = [
            (codes[start : start + 8] == codes[start - d : start - d + 8]).mean()
            for d in range(10, 40)
            if start - d >= 0
        ]
        assert match[start] == pytest.approx(max(shares, default=0))
        if shares and match[start]:
            assert shares[lag[start] - 10] == pytest.approx(match[start])


def test_a_planted_return_is_found():
    codes = with_return(260, 200, 20)
    (found,) = find_returning(codes, 20, range(40, 300), 1)
    assert (found.start, found.lag, found.match) == (260, 200, 1.0)
    (new,) = find_new(codes, 20, 30)
    assert new.start >= 30
    assert abs(new.start - 260) >= 20


def test_noise_has_no_returning_passage():
    codes = np.random.default_rng(2).integers(1024, size=300)
    assert find_returning(codes, 40, range(60, 300), 4) == []


# -- held-out bits ----------------------------------------------------------------------------

PLAN_LABELS = {
    "tempo_bpm": 96.0,
    "meter": "3/4",
    "key": "D",
    "mode": "minor",
    "instruments": ["flute"],
    "drums": False,
    "plan": {"first_beat": 0.5, "chords": [[0.0, 2, "minor"]]},
}


def test_held_out_bits_average_over_all_frames():
    prior = tiny_prior("lstm")
    codes = some_codes(prior, 2, 9)
    pieces = [TrackPiece("", row.numpy().astype(np.int16)) for row in codes]
    nats = nats_per_code(prior, codes[..., :7]).mean((0, 2))
    assert np.allclose(held_out_bits(prior, pieces, 7), nats / math.log(2), atol=1e-5)


def test_a_passage_read_from_its_middle_has_the_plan_of_its_place():
    prior = tiny_prior("lstm", reads_plan=True)
    codes = some_codes(prior, 1, 9)[0].numpy().astype(np.int16)
    later = PLAN_LABELS | {"plan": PLAN_LABELS["plan"] | {"first_beat": 0.5 + 4 / 25 * 96 / 60}}
    here = code_bits(prior, TrackPiece("", codes, labels=json.dumps(PLAN_LABELS)), 4)
    alone = code_bits(prior, TrackPiece("", codes[:, 4:], labels=json.dumps(later)))
    assert np.allclose(here, alone, atol=1e-4)


# -- spread -----------------------------------------------------------------------------------


def test_a_power_law_gives_its_exponent():
    x = [64.0, 256.0, 1024.0]
    y = [3 * value**-0.25 for value in x]
    assert fit_exponent(x, [[value * 0.9, value * 1.1] for value in y], 20) == pytest.approx(
        (-0.25, -0.25, -0.25), abs=0.1
    )
    middle, low, high = fit_exponent(x, [[value] for value in y], 20)
    assert middle == pytest.approx(-0.25)
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_interval_is_students():
    low, high = paired_interval([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) or (0, 0)
    assert (low + high) / 2 == pytest.approx(2)
    assert high - low == pytest.approx(2 * 4.303 / 3**0.5, rel=1e-4)
    assert paired_interval([1.0], [2.0]) is None


def test_a_difference_is_claimed_only_beyond_the_spread():
    said = verdict("Loss", {"A": [1.0, 1.1, 0.9], "B": [2.0, 2.1, 1.9]}, "bits")
    assert "**A** is ahead" in said
    better_high = verdict("Speed", {"A": [1.0, 1.1, 0.9], "B": [2.0, 2.1, 1.9]}, "1/s", False)
    assert "**B** is ahead" in better_high
    assert "no difference" in verdict("Loss", {"A": [1.0, 2.0], "B": [1.5, 1.4]}, "bits")
    assert "no difference is claimed" in verdict("Loss", {"A": [1.0], "B": [2.0]}, "bits")


# -- rows -------------------------------------------------------------------------------------


def test_a_section_links_its_picture_and_its_numbers(tmp_path):
    plot = Plot("p", "Title", "x", "y", {"A": Series([1.0, 2.0], [3.0, 4.0])}, True)
    row = ComparisonRow("Row", "How.", ["| a |"], [plot], ["read"], ["no data"])
    section = row.write(tmp_path / "figures")
    assert section.startswith("## Row\n\nHow.\n\n| a |\n\n![Title](figures/p.png)")
    assert section.endswith("[numbers](figures/p.csv)\n\n- read\n\nNot measured:\n\n- no data")
    numbers = (tmp_path / "figures" / "p.csv").read_text()
    assert numbers == "series,x,y,low,high\nA,1,3,3,3\nA,2,4,4,4\n"
    assert (tmp_path / "figures" / "p.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.012345, "0.0123"), (12.345, "12.3"), (12345.6, "12,346"), (-250.4, "-250")],
)
def test_figures_keep_what_means_something(value, text):
    assert number(value) == text


# -- generation and reconstruction ------------------------------------------------------------


def test_the_state_counts_what_the_frames_fill():
    prior, text = tiny_prior("lstm"), some_text(1)
    sizes = []
    for length in (4, 8):
        state = prior.init_state(text, 50)
        prior.prefill(some_codes(prior, 1, length), state)
        sizes.append(state_bytes(state))
    width, layers = prior.config.width, prior.config.num_layers
    assert sizes[1] - sizes[0] == 4 * 2 * width * 4  # keys and values of four frames
    assert sizes[0] == 5 * 2 * width * 4 + layers * 2 * width * 4


def test_a_reconstruction_is_as_loud_and_as_long_as_the_original():
    found = match_level(torch.full((2, 100), 0.5), torch.full((2, 150), 0.1))
    assert found.shape == (2, 150)
    assert torch.allclose(found[:, :100], torch.tensor(0.1))
    assert not found[:, 100:].any()


class Noise:
    """A clip of three seconds of noise; as a silent one, ViSQOL cannot measure it."""

    def __init__(self, level: float) -> None:
        draws = torch.Generator().manual_seed(0)
        self.sound = AudioClip(level * torch.randn(2, 3 * 44_100, generator=draws), 44_100)

    def read(self) -> AudioClip:
        return self.sound


def test_tokens_become_sound_again_and_silence_is_reported_as_missing():
    reconstruct, row = from_tokens(TokenCodec(tiny_codec()), 2), ComparisonRow("Title", "Method")
    clip: Any = Noise(0.1)
    assert reconstruct(clip, clip.read()).shape == (2, 3 * 44_100)
    silence: Any = Noise(0.0)
    assert compare_clips([silence, silence], reconstruct, row) == ["-", "-", "0"]
    assert len(row.missing) == 1
