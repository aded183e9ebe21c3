import math
from dataclasses import replace

import pytest
import torch
from tiny_prior import ALL_BACKBONES, TEXT_WIDTH, some_codes, some_text, tiny_prior

from prior import Condition, Sampling
from prior.frame_generator import FrameGenerator
from prior.sampling import choose_code, draw_uniform, guide, uniform_of_book

every_backbone = pytest.mark.parametrize("backbone", ALL_BACKBONES)
GUIDED = Sampling(top_k=8, guidance=2.0)
PLAIN = Sampling(guidance=1.0)


def written(prior, text, seeds, num_frames=10, sampling=GUIDED, negative=None, **rest):
    """(B, K, T) codes of a whole generation."""
    frames = FrameGenerator(prior, text, negative, num_frames, sampling, seeds, **rest)
    return torch.stack([frame.codes for frame in frames], dim=-1).clone()


def rows(text, *indices):
    return Condition(text.text_states[list(indices)], text.text_mask[list(indices)])


def written_slowly(prior, text, away, seeds, num_frames, sampling):
    """The same codes from the full forward alone: no cache, two separate batches."""
    codes = torch.zeros(len(seeds), prior.num_codebooks, 0, dtype=torch.long)
    for t in range(num_frames):
        uniform = draw_uniform(seeds, t, prior.num_codebooks, prior.codebook_size)
        codes = torch.nn.functional.pad(codes, (0, 1))
        for book in range(prior.num_codebooks):
            logits = []
            for condition in (text, away):
                output = prior(codes, condition)
                first, depth = output.first_logits[:, t, :-1], output.depth_logits[..., t, :]
                logits.append(first if book == 0 else depth[:, book - 1])
            noise = uniform_of_book(uniform, book, prior.codebook_size)[:, : prior.codebook_size]
            fine = sampling.fine_temperature if book > 1 else 1.0
            settings = replace(sampling, temperature=sampling.temperature * fine)
            codes[:, book, t] = choose_code(guide(*logits, sampling.guidance), noise, settings)
    return codes


@every_backbone
@pytest.mark.parametrize("sliding_window", [None, 4])
@torch.no_grad()
def test_equals_a_slow_loop_over_the_full_forward(backbone, sliding_window):
    prior = tiny_prior(backbone, sliding_window=sliding_window)
    text, nothing = some_text(2), Condition.empty(2, TEXT_WIDTH)
    slow = written_slowly(prior, text, nothing, [5, 6], 10, GUIDED)
    assert torch.equal(written(prior, text, [5, 6]), slow)


@torch.no_grad()
def test_the_third_book_is_drawn_with_a_temperature_of_its_own():
    prior, text, nothing = tiny_prior("transformer"), some_text(2), Condition.empty(2, TEXT_WIDTH)
    fine = replace(GUIDED, fine_temperature=0.2)
    cool = written(prior, text, [5, 6], sampling=fine)
    assert torch.equal(cool, written_slowly(prior, text, nothing, [5, 6], 10, fine))
    warm = written(prior, text, [5, 6])
    assert torch.equal(cool[:, :2, 0], warm[:, :2, 0])
    assert not torch.equal(cool[:, 2], warm[:, 2])


@every_backbone
@torch.no_grad()
def test_a_negative_prompt_takes_the_place_of_the_unconditional_prior(backbone):
    prior = tiny_prior(backbone)
    text, away = some_text(2), some_text(2, num_tokens=9, seed=4)
    slow = written_slowly(prior, text, away, [5, 6], 10, GUIDED)
    assert torch.equal(written(prior, text, [5, 6], negative=away), slow)
    assert not torch.equal(written(prior, text, [5, 6]), slow)


@every_backbone
def test_a_row_alone_equals_the_row_in_a_batch(backbone):
    prior = tiny_prior(backbone)
    text, prompt = some_text(3), some_codes(prior, 3, 4)
    together = written(prior, text, [5, 6, 5], prompt_codes=prompt)
    for row, seed in enumerate([5, 6, 5]):
        one = prompt[row : row + 1]
        alone = written(prior, rows(text, row), [seed], prompt_codes=one)
        assert torch.equal(alone[0], together[row])


@every_backbone
@pytest.mark.parametrize("sliding_window", [None, 3])
def test_two_parts_equal_the_whole(backbone, sliding_window):
    prior = tiny_prior(backbone, sliding_window=sliding_window)
    text = some_text(2)
    whole = written(prior, text, [1, 2], num_frames=12)
    begun = written(prior, text, [1, 2], num_frames=7)
    rest = written(prior, text, [1, 2], num_frames=5, prompt_codes=begun)
    assert torch.equal(torch.cat((begun, rest), dim=-1), whole)


def test_codes_follow_from_the_seed():
    prior, text = tiny_prior("transformer"), some_text(1)
    assert torch.equal(written(prior, text, [1]), written(prior, text, [1]))
    assert not torch.equal(written(prior, text, [1]), written(prior, text, [2]))


def test_global_random_state_is_neither_read_nor_changed():
    prior, text = tiny_prior("transformer"), some_text(1)
    torch.manual_seed(1)
    first, state = written(prior, text, [1]), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(written(prior, text, [1]), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@every_backbone
def test_guidance_of_one_never_reads_the_negative_text(backbone):
    prior, text = tiny_prior(backbone), some_text(1)
    poison = Condition(torch.full((1, 2, TEXT_WIDTH), torch.nan), torch.ones(1, 2).bool())
    plain = written(prior, text, [1], sampling=PLAIN)
    assert torch.equal(written(prior, text, [1], sampling=PLAIN, negative=poison), plain)


def test_greedy_ignores_the_seed():
    prior, text = tiny_prior("transformer"), some_text(2)
    greedy = Sampling(temperature=0.0, guidance=1.0)
    codes = written(prior, rows(text, 0, 0), [1, 2], sampling=greedy)
    assert torch.equal(codes[0], codes[1])


def make_ending_likely(prior, probability):
    """Give the end this probability, whatever the hidden state."""
    plain, odds = prior.first_head.forward, math.log(probability / (1 - probability))

    def forward(hidden):
        codes = plain(hidden)[..., :-1]
        return torch.cat((codes, codes.logsumexp(-1, keepdim=True) + odds), dim=-1)

    prior.first_head.forward = forward


def test_the_duration_is_exact_unless_asked_otherwise():
    prior, text = tiny_prior("transformer"), some_text(2)
    make_ending_likely(prior, 1 - 1e-12)
    frames = list(FrameGenerator(prior, text, None, 6, PLAIN, [1, 2]))
    assert len(frames) == 6
    assert not any(frame.ended.any() for frame in frames)


@every_backbone
def test_a_piece_may_end_from_min_frames_on_and_stops_the_loop(backbone):
    prior, text = tiny_prior(backbone), some_text(2)
    make_ending_likely(prior, 1 - 1e-12)
    assert len(list(FrameGenerator(prior, text, None, 6, PLAIN, [1, 2], min_frames=3))) == 3
    assert list(FrameGenerator(prior, text, None, 6, PLAIN, [1, 2], min_frames=0)) == []


@every_backbone
def test_an_ended_row_is_padded_and_never_restarts(backbone):
    prior, text = tiny_prior(backbone), some_text(6)
    make_ending_likely(prior, 0.2)
    seeds = [1, 2, 3, 4, 5, 6]
    frames = list(FrameGenerator(prior, text, None, 40, PLAIN, seeds, min_frames=2))
    ended = torch.stack([frame.ended for frame in frames], dim=1)
    codes = torch.stack([frame.codes for frame in frames], dim=-1)
    lengths = (~ended).sum(1)
    assert lengths.unique().numel() > 1
    assert lengths.max() == len(frames) < 40
    assert torch.equal(ended, torch.arange(len(frames)) >= lengths[:, None])
    assert codes.masked_select(ended[:, None]).eq(0).all()
    for row, seed in enumerate(seeds):
        alone = list(FrameGenerator(prior, rows(text, row), None, 40, PLAIN, [seed], min_frames=2))
        assert len(alone) == lengths[row]


def test_a_frame_is_computed_when_it_is_asked_for():
    prior, text = tiny_prior("transformer"), some_text(1)
    calls = []
    frames = FrameGenerator(prior, text, None, 1000, PLAIN, [1])
    step = frames.next_frame
    frames.next_frame = lambda *arguments: calls.append(1) or step(*arguments)
    next(frames), next(frames), next(frames)
    assert len(calls) == 2
    assert not torch.is_inference_mode_enabled()


@every_backbone
def test_one_frame_of_one_codebook(backbone):
    prior = tiny_prior(backbone, num_codebooks=1)
    assert written(prior, some_text(2), [1, 2], num_frames=1).shape == (2, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"min_frames": 11}, "min_frames must lie in 0 to num_frames, got min_frames=11"),
        ({"seeds": [1]}, "condition must have one row per seed, got 2 and 1 seeds"),
        ({"negative": some_text(3)}, "negative must have one row per seed, got 3 and 2 seeds"),
        (
            {"condition": Condition.empty(2, 5)},
            f"condition states must be {TEXT_WIDTH} wide, got 5",
        ),
        (
            {"prompt_codes": torch.zeros(2, 2, 4, dtype=torch.long)},
            r"prompt_codes must be \(2, 3, 'P'\), got \(2, 2, 4\)",
        ),
        (
            {"prompt_codes": torch.full((2, 3, 4), 11)},
            r"prompt_codes must lie in \[0, 11\), got 11 to 11",
        ),
    ],
)
def test_bad_arguments_raise_at_the_call(arguments, message):
    defaults = {"condition": some_text(2), "negative": None, "num_frames": 10, "seeds": [1, 2]}
    with pytest.raises(ValueError, match=message):
        FrameGenerator(tiny_prior("transformer"), sampling=GUIDED, **(defaults | arguments))


def test_a_condition_is_padded_and_never_cropped():
    assert some_text(2).padded(7).text_mask.sum(1).tolist() == [5, 5]
    with pytest.raises(ValueError, match="length must be at least the text's 5 tokens, got 4"):
        some_text(2).padded(4)


def test_a_condition_checks_its_shapes():
    with pytest.raises(ValueError, match=r"states \(B, L, Dt\) and a mask \(B, L\)"):
        Condition(torch.zeros(2, 3, 4), torch.ones(2, 4).bool())
    with pytest.raises(ValueError, match=r"mask must be bool, got torch.float32"):
        Condition(torch.zeros(2, 3, 4), torch.ones(2, 3))
