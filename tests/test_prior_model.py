import re
from dataclasses import replace

import pytest
import torch
from tiny_prior import ALL_BACKBONES, BACKBONES, some_codes, some_text, step_through, tiny_prior

from codec.process_settings import cpu_threads
from prior import Condition, Prior

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
every_backbone = pytest.mark.parametrize("backbone", ALL_BACKBONES)


@every_backbone
@pytest.mark.parametrize("sliding_window", [None, 1, 4, 40])
@pytest.mark.parametrize("prompt_frames", [0, 1, 3, 11])
@torch.no_grad()
def test_cached_decoding_equals_the_full_forward(backbone, sliding_window, prompt_frames):
    prior = tiny_prior(backbone, sliding_window=sliding_window)
    codes, text = some_codes(prior, 2, 12), some_text(2)
    whole = prior(codes, text).first_logits[:, prompt_frames:]
    stepped = prior.first_head(step_through(prior, codes, text, prompt_frames))
    torch.testing.assert_close(stepped, whole, **CLOSE)


@every_backbone
@torch.no_grad()
def test_sampling_a_frame_sees_the_logits_of_the_full_forward(backbone):
    prior = tiny_prior(backbone)
    codes, text = some_codes(prior, 2, 6), some_text(2)
    output = prior(codes, text)
    hidden = step_through(prior, codes, text)
    seen = {}

    def choose(logits, book):
        seen[book] = logits
        return codes[:, book, 4]

    assert torch.equal(prior.sample_frame(hidden[:, 4], choose), codes[..., 4])
    torch.testing.assert_close(seen[0], output.first_logits[:, 4], **CLOSE)
    torch.testing.assert_close(seen[1], output.depth_logits[:, 0, 4], **CLOSE)
    torch.testing.assert_close(seen[2], output.depth_logits[:, 1, 4], **CLOSE)


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_the_window_hides_what_lies_before_it(backbone):
    prior = tiny_prior(backbone, sliding_window=3, num_layers=1)
    everywhere = tiny_prior(backbone, num_layers=1)
    codes, text = some_codes(prior, 1, 12), some_text(1)
    near = prior(codes, text).first_logits
    far = everywhere(codes, text).first_logits
    torch.testing.assert_close(near[:, :3], far[:, :3], **CLOSE)
    assert (near[:, 3:] - far[:, 3:]).abs().max() > 0.01
    if backbone == "transformer":  # one layer: frame t hears input t - 2 and no earlier one
        codes[..., 5] = (codes[..., 5] + 1) % 11
        changed = (prior(codes, text).first_logits - near).abs().amax((0, 2))
        assert changed.gt(1e-4).nonzero().flatten().tolist() == [6, 7, 8]


@every_backbone
@pytest.mark.parametrize("sliding_window", [None, 4])
@torch.no_grad()
def test_no_frame_hears_itself_or_the_future(backbone, sliding_window):
    prior = tiny_prior(backbone, sliding_window=sliding_window)
    codes, text = some_codes(prior, 1, 9), some_text(1)
    before = prior(codes, text)
    for t in range(9):
        for book in range(3):
            other = codes.clone()
            other[:, book, t] = (other[:, book, t] + 1) % 11
            after = prior(other, text)
            first = (after.first_logits - before.first_logits).abs().amax((0, 2))
            depth = (after.depth_logits - before.depth_logits).abs().amax((0, 3))
            assert first[: t + 1].max() == 0
            assert depth[:, :t].numel() == 0 or depth[:, :t].max() == 0
            assert depth[:book, t].numel() == 0 or depth[:book, t].max() < 1e-6
            assert t == 8 or first[t + 1] > 1e-3
            assert book == 2 or depth[book, t] > 1e-3


@every_backbone
@torch.no_grad()
def test_a_row_alone_equals_the_row_in_a_batch(backbone):
    prior = tiny_prior(backbone)
    codes, text = some_codes(prior, 3, 8), some_text(3)
    together = prior(codes, text)
    for row in range(3):
        one = slice(row, row + 1)
        alone = prior(codes[one], Condition(text.text_states[one], text.text_mask[one]))
        torch.testing.assert_close(alone.first_logits, together.first_logits[one], **CLOSE)
        torch.testing.assert_close(alone.depth_logits, together.depth_logits[one], **CLOSE)


@every_backbone
@torch.no_grad()
def test_padding_of_text_and_frames_does_not_leak(backbone):
    prior = tiny_prior(backbone)
    codes, text = some_codes(prior, 1, 8), some_text(1, num_tokens=3)
    whole = prior(codes, text).first_logits
    noise = some_text(1, num_tokens=4, seed=9).text_states
    states = torch.cat((text.text_states, 100 * noise), dim=1)
    mask = torch.tensor([[True] * 3 + [False] * 4])
    longer = torch.cat((codes, some_codes(prior, 1, 5, seed=8)), dim=-1)
    padded = prior(longer, Condition(states, mask)).first_logits[:, :8]
    torch.testing.assert_close(padded, whole, **CLOSE)


@every_backbone
@torch.no_grad()
def test_text_without_true_tokens_is_the_null_text_whatever_it_holds(backbone):
    prior = tiny_prior(backbone)
    codes, text = some_codes(prior, 1, 6), some_text(1)
    nothing = Condition.empty(1, text.text_states.shape[-1])
    dropped = prior(codes, replace(text, text_mask=torch.zeros_like(text.text_mask))).first_logits
    empty = prior(codes, nothing).first_logits
    told = prior(codes, text).first_logits
    torch.testing.assert_close(dropped, empty, **CLOSE)
    assert (told - empty).abs().max() > 0.01
    prior.null_text.add_(1.0)
    assert torch.equal(prior(codes, text).first_logits, told)
    assert (prior(codes, nothing).first_logits - empty).abs().max() > 0.01


@every_backbone
@torch.no_grad()
def test_chosen_depth_frames_equal_those_of_all_frames(backbone):
    prior = tiny_prior(backbone)
    codes, text = some_codes(prior, 2, 9), some_text(2)
    frames = torch.tensor([[0, 8, 3], [5, 5, 1]])
    every = prior(codes, text).depth_logits
    chosen = prior(codes, text, frames).depth_logits
    assert chosen.shape == (2, 2, 3, 11)
    for row in range(2):
        torch.testing.assert_close(chosen[row], every[row][:, frames[row]], **CLOSE)


@every_backbone
@torch.no_grad()
def test_one_frame_and_one_codebook(backbone):
    prior = tiny_prior(backbone, num_codebooks=1)
    assert prior.depth is None
    codes, text = some_codes(prior, 2, 1), some_text(2)
    output = prior(codes, text)
    assert output.first_logits.shape == (2, 1, 12)
    assert output.depth_logits.shape == (2, 0, 1, 11)
    frame = prior.sample_frame(step_through(prior, codes, text)[:, 0], lambda x, _: x.argmax(-1))
    assert frame.shape == (2, 1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_nothing_in_the_state_grows(backbone):
    prior = tiny_prior(backbone, sliding_window=4)
    text = some_text(1)
    with torch.no_grad():
        state = prior.init_state(text, 20)
        prior.prefill(some_codes(prior, 1, 2), state)
        history = state.layers[-1].history
        address, size = history.keys.data_ptr(), history.keys.shape[2]
        for _ in range(17):
            prior.decode_one_frame(some_codes(prior, 1, 1)[..., 0], state)
    assert (history.keys.data_ptr(), size) == (address, 4)
    with pytest.raises(ValueError, match="state holds 20 frames, frame 20 is too many"):
        prior.decode_one_frame(some_codes(prior, 1, 1)[..., 0], state)


def test_a_state_is_prefilled_once_and_must_hold_the_prompt():
    prior, text = tiny_prior("transformer"), some_text(1)
    state = prior.init_state(text, 5)
    with pytest.raises(ValueError, match="holds 5 frames"):
        prior.prefill(some_codes(prior, 1, 5), state)
    prior.prefill(some_codes(prior, 1, 4), state)
    with pytest.raises(ValueError, match="fresh state, got one at frame 5"):
        prior.prefill(some_codes(prior, 1, 1), state)


def public(config):
    return {key: value for key, value in config.items() if not key.startswith("_")}


@every_backbone
@torch.no_grad()
def test_saving_and_loading_is_exact_and_strict(backbone, tmp_path):
    prior = tiny_prior(backbone, sliding_window=6)
    prior.save_pretrained(tmp_path)
    loaded = Prior.from_pretrained(tmp_path)
    assert public(loaded.config) == public(prior.config)
    weights = prior.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    config = tmp_path / "config.json"
    config.write_text(re.sub(r'"num_layers": 2', '"num_layers": 3', config.read_text()))
    with pytest.raises(ValueError, match="lacks the tensor"):
        Prior.from_pretrained(tmp_path)


@every_backbone
@torch.no_grad()
def test_bfloat16_weights_run_and_stay_near(backbone):
    prior = tiny_prior(backbone)
    codes, text = some_codes(prior, 1, 6), some_text(1)
    exact = prior(codes, text).first_logits
    half = prior.to(torch.bfloat16)
    rough = half(codes, text).first_logits
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.1 * exact.norm()
    step_through(half, codes, text)


def test_the_defaults_are_the_size_that_the_docstring_states():
    for backbone, millions in (("transformer", "11.0M"), ("lstm", "10.1M")):
        with torch.device("meta"):
            prior = Prior(backbone=backbone)
        count = sum(parameter.numel() for parameter in prior.parameters())
        assert f"{count / 1e6:.1f}M" == millions
        assert millions in Prior.__doc__


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"width": 96, "num_heads": 5},
            "num_heads must divide width, got width=96 and num_heads=5",
        ),
        (
            {"depth_width": 32, "depth_heads": 3},
            "depth_heads must divide depth_width, got depth_width=32 and depth_heads=3",
        ),
        ({"width": 15, "num_heads": 5}, "width / num_heads must be even"),
        (
            {"backbone": "mamba"},
            r"backbone must be one of \['transformer', 'lstm', 'lstm-plain'\], got 'mamba'",
        ),
        ({"num_codebooks": 0}, "num_codebooks must be positive, got 0"),
        ({"sliding_window": 0}, "sliding_window must be positive, got 0"),
        ({"frame_rate": -1.0}, "frame_rate must be positive, got -1.0"),
    ],
)
def test_a_bad_config_names_field_rule_and_value(changes, message):
    with pytest.raises(ValueError, match=message):
        Prior(**changes)


@torch.inference_mode()
def test_a_row_does_not_depend_on_its_place_in_the_batch_to_the_last_bit():
    prior, text = tiny_prior("transformer"), some_text(4)
    codes = some_codes(prior, 4, 9)

    def hidden(rows):
        condition = Condition(text.text_states[rows], text.text_mask[rows])
        return step_through(prior, codes[rows], condition)

    with cpu_threads(1):  # two may share a product's rows out, as docs/rendering.md says
        expected = hidden([0, 1, 2, 3, 0, 1])
        for rows in ([1, 0, 3, 2, 1, 0], [2, 2, 2, 2, 2, 2], [3, 0, 0, 0, 0, 0]):
            assert torch.equal(hidden(rows), expected[rows])
