import math

import pytest
import torch
from tiny_prior import BACKBONES, some_codes, some_text, tiny_prior

from pipelines.training.acceleration import choose_precision
from prior import Condition, Prior, PriorBatch, prior_loss
from prior.loss import draw_depth_frames

both_backbones = pytest.mark.parametrize("backbone", BACKBONES)


def some_batch(prior, depth_frames=None):
    """Four clips of 7, 4, 1 and 7 frames; the second and the last end their piece."""
    text = some_text(4)
    lengths = torch.tensor([7, 4, 1, 7])
    return PriorBatch(
        codes=some_codes(prior, 4, 7),
        frame_mask=torch.arange(7) < lengths[:, None],
        ends=torch.tensor([False, True, False, True]),
        condition=Condition(
            text.text_states, text.text_mask & torch.tensor([[True], [True], [False], [True]])
        ),
        depth_frames=depth_frames,
    )


def rows(batch, start, stop):
    part = slice(start, stop)
    frames = None if batch.depth_frames is None else batch.depth_frames[part]
    return PriorBatch(
        batch.codes[part],
        batch.frame_mask[part],
        batch.ends[part],
        row_condition(batch, part),
        frames,
    )


def row_condition(batch, part):
    return Condition(batch.condition.text_states[part], batch.condition.text_mask[part])


def slow_nats(prior, batch):
    """Row by row, frame by frame, on clips without padding and with one frame more for the end."""
    books = [[] for _ in range(prior.num_codebooks)]
    for row in range(batch.codes.shape[0]):
        n = int(batch.frame_mask[row].sum())
        codes = torch.nn.functional.pad(batch.codes[row : row + 1, :, :n], (0, 1))
        output = prior(codes, row_condition(batch, slice(row, row + 1)))
        first, depth = (
            output.first_logits[0].log_softmax(-1),
            output.depth_logits[0].log_softmax(-1),
        )
        nats = [-first[t, codes[0, 0, t]] for t in range(n)]
        if batch.ends[row]:
            nats.append(-first[n, prior.codebook_size])
        books[0].append(sum(nats) / len(nats))
        frames = range(n) if batch.depth_frames is None else batch.depth_frames[row].tolist()
        for book in range(1, prior.num_codebooks):
            nats = [-depth[book - 1, t, codes[0, book, t]] for t in frames if t < n]
            books[book].append(sum(nats) / max(len(nats), 1))
    return torch.tensor([sum(book) / len(book) for book in books])


@both_backbones
@pytest.mark.parametrize("num_codebooks", [1, 3])
@pytest.mark.parametrize("chosen", [False, True])
@torch.no_grad()
def test_equals_a_slow_plain_loop(backbone, num_codebooks, chosen):
    prior = tiny_prior(backbone, num_codebooks=num_codebooks)
    frames = torch.tensor([[0, 6, 6], [3, 5, 1], [0, 0, 0], [4, 3, 2]]) if chosen else None
    batch = some_batch(prior, frames)
    loss = prior_loss(prior, batch)
    expected = slow_nats(prior, batch)
    torch.testing.assert_close(loss.nats_per_book, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.loss, expected.mean(), rtol=1e-4, atol=1e-4)


@both_backbones
def test_what_padding_holds_does_not_count(backbone):
    prior = tiny_prior(backbone)
    batch = some_batch(prior)
    other = some_codes(prior, 4, 7, seed=9)
    codes = torch.where(batch.frame_mask[:, None], batch.codes, other)
    changed = batch._replace(codes=codes)
    assert not torch.equal(codes, batch.codes)
    torch.testing.assert_close(prior_loss(prior, changed).loss, prior_loss(prior, batch).loss)


@both_backbones
def test_two_processes_with_equal_rows_train_as_one(backbone):
    prior = tiny_prior(backbone)
    mask = some_batch(prior).frame_mask
    frames = draw_depth_frames(mask, 3, torch.Generator().manual_seed(0))
    batch = some_batch(prior, frames)
    parameters = list(prior.parameters())
    whole = torch.autograd.grad(prior_loss(prior, batch).loss, parameters)
    halves = [
        torch.autograd.grad(prior_loss(prior, rows(batch, start, start + 2)).loss, parameters)
        for start in (0, 2)
    ]
    for one, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close(one, (first + second) / 2, rtol=1e-3, atol=1e-5)


@both_backbones
def test_every_parameter_gets_a_gradient_in_every_batch(backbone):
    prior = tiny_prior(backbone)
    prior_loss(prior, rows(some_batch(prior), 0, 1)).loss.backward()
    assert [name for name, value in prior.named_parameters() if value.grad is None] == []


@both_backbones
def test_an_untrained_prior_knows_nothing(backbone):
    torch.manual_seed(0)
    prior = Prior(backbone=backbone, codebook_size=50, width=32, num_heads=2, text_width=12)
    nats = prior_loss(prior, some_batch(tiny_prior(backbone, num_codebooks=2))).nats_per_book
    torch.testing.assert_close(nats, torch.tensor([math.log(51), math.log(50)]), rtol=0, atol=0.2)


@both_backbones
def test_loss_falls_below_a_fifth_of_a_nat_on_one_batch(backbone):
    torch.manual_seed(0)
    prior = Prior(
        backbone=backbone,
        num_codebooks=2,
        codebook_size=11,
        width=32,
        num_layers=2,
        num_heads=4,
        text_width=12,
        depth_width=32,
        depth_layers=1,
        depth_heads=2,
    )
    batch = some_batch(prior)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    for _ in range(120):
        loss = prior_loss(prior, batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert prior_loss(prior, batch).loss < 0.2


@both_backbones
def test_autocast_keeps_the_loss_in_float32_and_near(backbone):
    if backbone == "lstm" and choose_precision("auto", torch.device("cpu")) == "no":
        pytest.skip("PyTorch has no bfloat16 LSTM on this processor")
    prior = tiny_prior(backbone)
    batch = some_batch(prior)
    exact = prior_loss(prior, batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        rough = prior_loss(prior, batch).loss
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0)
    rough.backward()


def test_depth_frames_are_never_padding():
    mask = torch.arange(9) < torch.tensor([[9], [1], [4]])
    frames = draw_depth_frames(mask, 500, torch.Generator().manual_seed(0))
    assert frames.shape == (3, 500)
    assert mask.gather(1, frames).all()
    assert frames[0].unique().numel() == 9
