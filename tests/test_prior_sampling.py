import math

import pytest
import torch

from prior.sampling import (
    Sampling,
    apply_temperature,
    choose_code,
    draw_uniform,
    guide,
    keep_top_k,
    keep_top_p,
    uniform_of_book,
)

PROBABILITIES = torch.tensor([[0.1, 0.4, 0.05, 0.3, 0.15]])
LOGITS = PROBABILITIES.log()
EVERYTHING = Sampling(top_k=None)


def kept(logits):
    return logits.isfinite().nonzero()[:, 1].tolist()


def test_guidance_moves_from_unconditional_through_conditional_and_beyond():
    conditional, unconditional = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 4.0]])
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)
    assert torch.equal(guide(conditional, unconditional, 1.0), conditional)
    expected = unconditional + 3 * (conditional - unconditional)
    torch.testing.assert_close(guide(conditional, unconditional, 3.0), expected)


def test_temperature_raises_probabilities_to_its_inverse():
    warm = apply_temperature(LOGITS, 0.5).softmax(-1)
    torch.testing.assert_close(warm, PROBABILITIES**2 / (PROBABILITIES**2).sum())


@pytest.mark.parametrize(
    ("top_k", "expected"), [(1, [1]), (2, [1, 3]), (4, [0, 1, 3, 4]), (5, [*range(5)]), (9, None)]
)
def test_top_k_keeps_the_largest(top_k, expected):
    assert kept(keep_top_k(LOGITS, top_k)) == (expected or [*range(5)])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(0.01, [1]), (0.39, [1]), (0.41, [1, 3]), (0.84, [1, 3, 4]), (0.86, [0, 1, 3, 4])],
)
def test_top_p_keeps_the_fewest_that_hold_the_probability(top_p, expected):
    assert kept(keep_top_p(LOGITS, top_p)) == expected


def test_top_p_of_one_keeps_every_code_that_matters():
    torch.testing.assert_close(keep_top_p(LOGITS, 1.0), LOGITS)


def test_filters_treat_every_row_by_itself():
    rows = torch.randn(6, 30, generator=torch.Generator().manual_seed(0))
    for keep, value in ((keep_top_k, 7), (keep_top_p, 0.6)):
        alone = torch.cat([keep(row[None], value) for row in rows])
        assert torch.equal(keep(rows, value), alone)


def test_draws_follow_the_probabilities():
    uniform = torch.rand(40_000, 5, generator=torch.Generator().manual_seed(0))
    drawn = choose_code(LOGITS.expand(40_000, 5), uniform, EVERYTHING)
    shares = drawn.bincount(minlength=5) / 40_000
    torch.testing.assert_close(shares, PROBABILITIES[0], rtol=0, atol=0.01)


def test_filtered_codes_are_never_drawn():
    uniform = torch.rand(2_000, 5, generator=torch.Generator().manual_seed(0))
    uniform[:10] = 0.0
    drawn = choose_code(LOGITS.expand(2_000, 5), uniform, Sampling(temperature=5.0, top_k=2))
    assert set(drawn.tolist()) == {1, 3}
    drawn = choose_code(LOGITS.expand(2_000, 5), uniform, Sampling(top_k=None, top_p=0.8))
    assert set(drawn.tolist()) == {1, 3, 4}


def test_temperature_zero_takes_the_likeliest():
    assert choose_code(LOGITS, torch.rand(1, 5), Sampling(temperature=0.0)).tolist() == [1]


def test_noise_is_a_function_of_seed_and_frame_alone():
    together = draw_uniform([3, 4, 3], 7, num_codebooks=2, codebook_size=5)
    assert together.shape == (3, 11)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1:2], draw_uniform([4], 7, 2, 5))
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[:1], draw_uniform([3], 8, 2, 5))


def test_books_share_a_frame_of_noise_without_overlap():
    uniform = torch.arange(16.0)[None]
    books = [uniform_of_book(uniform, book, 5) for book in range(3)]
    assert [book.shape[1] for book in books] == [6, 5, 5]
    assert torch.equal(torch.cat(books, dim=1), uniform)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1.0}, "temperature must be finite and at least 0, got -1.0"),
        ({"temperature": math.nan}, "temperature must be finite and at least 0, got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"top_p must lie in \(0, 1\], got 1.5"),
        ({"guidance": -0.5}, "guidance must be finite and at least 0, got -0.5"),
        ({"guidance": math.inf}, "guidance must be finite and at least 0, got inf"),
        ({"fine_temperature": 0.0}, "fine_temperature must be finite and positive, got 0.0"),
    ],
)
def test_bad_settings_name_field_rule_and_value(changes, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**changes)
