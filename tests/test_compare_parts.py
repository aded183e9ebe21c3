"""The comparison's parts: equal sizes, pieces, streams, returns, nats, spread."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_prior import BACKBONES, some_codes, tiny_prior

from pipelines.commands.estimate import count_parameters
from pipelines.comparison.equal_size import complete, fit_width
from pipelines.comparison.nats import LN2, bits_per_frame, held_out_bits, nats_per_frame
from pipelines.comparison.pieces import Piece, cache_info, join_tracks, part_of, write_cache
from pipelines.comparison.returns import best_matches, last_return, returning, strangest
from pipelines.comparison.row import Plot, Row, Series, Table, load_row, number, save_row
from pipelines.comparison.spread import bootstrap, fitted_slope, paired_interval, verdict
from pipelines.comparison.streams import recall_stream, repeating_stream
from pipelines.data.tokens import open_tokens, read_codes
from prior import Prior
from prior.condition import Condition
from prior.loss import PriorBatch, prior_loss

SMALL = {"num_layers": 2, "num_heads": 2, "depth_width": 16, "depth_layers": 1, "depth_heads": 2}


# -- equal sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [580_000, 1_000_000])
def test_backbones_get_equally_many_parameters(target: int):
    for backbone in BACKBONES:
        config = fit_width(SMALL | {"backbone": backbone}, target, 0.03)
        built = sum(parameter.numel() for parameter in Prior(**config).parameters())
        assert built == count_parameters("prior", config)
        assert abs(built / target - 1) <= 0.03


def test_a_size_that_no_width_gives_is_refused():
    with pytest.raises(ValueError, match="no width gives a transformer of 2 layers 60,000"):
        fit_width(SMALL | {"backbone": "transformer", "num_heads": 16}, 60_000, 0.01)


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="a Prior has no field 'depht'"):
        complete({"depht": 3})


# -- pieces -----------------------------------------------------------------------------------


def clips_of(track: str, codes: np.ndarray, length: int, between: str = "-") -> list[Piece]:
    starts = range(0, codes.shape[1], length)
    return [
        Piece(f"{track}{between}{number}", codes[:, start : start + length], is_end=False)
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


def test_a_written_cache_is_read_like_any_other(tmp_path: Path):
    codes = np.arange(12, dtype=np.int16).reshape(2, 6)
    piece = Piece("a", codes, ["a tune"], '{"ensemble": "duo"}', "here", True)
    folder = write_cache(
        tmp_path / "cache", {"train": [piece], "validation": [piece]}, cache_info("test", 2, 16)
    )
    rows = open_tokens(folder, "train")
    assert torch.equal(read_codes(rows, 0), torch.from_numpy(codes).long())
    assert rows[0]["captions"] == ["a tune"]
    assert rows[0]["is_end"]
    assert piece.ensemble == "duo"


def test_runs_that_want_one_cache_take_turns(tmp_path: Path):
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


def test_a_stream_follows_from_its_number():
    assert np.array_equal(repeating_stream(0, 3, 200, 16), repeating_stream(0, 3, 200, 16))
    assert not np.array_equal(repeating_stream(0, 3, 200, 16), repeating_stream(0, 4, 200, 16))


def test_most_of_a_long_stream_is_a_copy():
    codes = repeating_stream(0, 0, 8000, 2**14)[0]  # chance repeats are rare in this alphabet
    _, first = np.unique(codes, return_index=True)
    assert 0.6 < 1 - len(first) / len(codes) < 0.85


@pytest.mark.parametrize("gap", [0, 25])
def test_a_tested_segment_returns_once_with_its_labels(gap: int):
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


# -- returns ----------------------------------------------------------------------------------


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
    (found,) = returning(codes, 20, range(40, 300), 1)
    assert (found.start, found.lag, found.match) == (260, 200, 1.0)
    assert last_return(codes, 20, 40) == found
    assert not any(abs(place.start - 260) < 20 for place in strangest(codes, 20, 30, 2))


def test_noise_has_no_last_chorus():
    codes = np.random.default_rng(2).integers(1024, size=300)
    assert last_return(codes, 40, 60) is None


# -- nats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_nats_are_those_of_the_training_loss(backbone: str):
    prior = tiny_prior(backbone)
    codes = some_codes(prior, 2, 9)
    nats = nats_per_frame(prior, codes)
    batch = PriorBatch(
        codes,
        torch.ones(2, 9, dtype=torch.bool),
        torch.zeros(2, dtype=torch.bool),
        Condition.empty(2, prior.config["text_width"]),
    )
    with torch.no_grad():
        expected = prior_loss(prior, batch).nats_per_book
    assert torch.allclose(nats.mean((0, 2)), expected, atol=1e-5)


def test_a_piece_costs_what_its_row_of_a_batch_costs():
    prior = tiny_prior("lstm")
    codes = some_codes(prior, 3, 8)
    alone = bits_per_frame(prior, codes[1].numpy().astype(np.int16))
    assert np.allclose(alone, nats_per_frame(prior, codes)[1].sum(0) / LN2, atol=1e-5)
    pieces = [row.numpy() for row in codes]
    expected = nats_per_frame(prior, codes[..., :5]).mean((0, 2)) / LN2
    assert np.allclose(held_out_bits(prior, pieces, 5), expected, atol=1e-5)


# -- spread -----------------------------------------------------------------------------------


def test_a_power_law_gives_its_exponent():
    x = [64.0, 256.0, 1024.0]
    y = [3 * value**-0.25 for value in x]
    assert fitted_slope(x, y) == pytest.approx(-0.25)
    found = bootstrap([[value] * 3 for value in y], lambda means: fitted_slope(x, means), 20)
    assert found == pytest.approx((-0.25, -0.25, -0.25))


def test_the_interval_is_students():
    low, high = paired_interval([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) or (0, 0)
    assert (low + high) / 2 == pytest.approx(2)
    assert high - low == pytest.approx(2 * 4.303 / 3**0.5)
    assert paired_interval([1.0], [2.0]) is None


def test_a_difference_is_claimed_only_beyond_the_spread():
    said = verdict("Loss", {"A": [1.0, 1.1, 0.9], "B": [2.0, 2.1, 1.9]}, "bits")
    assert "**A** is ahead" in said
    better_high = verdict("Speed", {"A": [1.0, 1.1, 0.9], "B": [2.0, 2.1, 1.9]}, "1/s", False)
    assert "**B** is ahead" in better_high
    assert "no difference" in verdict("Loss", {"A": [1.0, 2.0], "B": [1.5, 1.4]}, "bits")
    assert "no difference is claimed" in verdict("Loss", {"A": [1.0], "B": [2.0]}, "bits")


# -- rows -------------------------------------------------------------------------------------


def test_a_row_comes_back_unless_the_settings_changed(tmp_path: Path):
    plot = Plot("p", "Title", "x", "y", {"A": Series([1.0, 2.0], [3.0, 4.0])}, True)
    row = Row("name", "Title", "How.", [Table(["a"], [["1"]])], [plot], ["read"], [], [("f", "s")])
    save_row(row, tmp_path / "row.json", "key")
    assert load_row(tmp_path / "row.json", "key") == row
    assert load_row(tmp_path / "row.json", "other") is None
    assert load_row(tmp_path / "none.json", "key") is None
    assert plot.csv() == "series,x,y,low,high\nA,1,3,3,3\nA,2,4,4,4\n"
    assert Table(["a", "b"], [["1", "2"]]).markdown() == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.012345, "0.0123"), (12.345, "12.3"), (12345.6, "12,346"), (-250.4, "-250")],
)
def test_figures_keep_what_means_something(value: float, text: str):
    assert number(value) == text
