"""Sections, melody, end and known futures: what the prior reads of them, and only of them."""

import math
from dataclasses import replace

import pytest
import torch

from prior import Condition, MelodyNote, Plan, PriorBatch, Section
from prior.form import FORM_WIDTH, MELODY_WIDTH, SECTIONS_WIDTH, form_features, frame_features
from prior.frame_generator import FrameGenerator
from prior.loss import fill_loss
from prior.plan import PLAN_WIDTH, SECTIONS, ChordChange
from prior.sampling import Sampling
from tests.tiny_prior import BACKBONES, some_codes, some_text, step_through, tiny_prior

RATE = 4.0
PLAN = Plan(
    120.0,
    2,
    2,
    "minor",
    (ChordChange(0.0, 2, "minor"),),
    0.5,
    ("flute",),
    False,
    (Section("verse", 2.0), Section("chorus", 1.0), Section("verse", 1.0)),
    (MelodyNote(0.25, 0.5, 62), MelodyNote(0.75, 1.0, 64), MelodyNote(2.0, 1.5, 81)),
    7.0,
)


def plain_form(plan: Plan, frame: int) -> list[float]:
    """One frame, number by number."""
    beat = plan.first_beat + frame / RATE * plan.tempo_bpm / 60
    after = beat + plan.tempo_bpm / 60 / RATE
    section, place, times, start = "", 0.0, 0, 0.0
    counts: dict[str, int] = {}
    for item in plan.sections:
        stop = start + item.bars * plan.beats_per_bar
        if start <= beat < stop:
            section, place = item.name, (beat - start) / (stop - start)
            times = counts.get(item.name, 0)
        counts[item.name] = counts.get(item.name, 0) + 1
        start = stop
    numbers = [float(name == section) for name in SECTIONS] + [place, times / 4]
    sounding = [n for n in plan.melody if n.beat < after and beat < n.beat + n.beats]
    begun = any(beat <= n.beat < after for n in plan.melody)
    pitch = sounding[-1].pitch if sounding else None
    numbers += [float(bool(plan.melody)), float(bool(sounding)), float(begun)]
    numbers += [float(pitch is not None and pitch % 12 == p) for p in range(12)]
    numbers += [0.0 if pitch is None else (pitch - 64) / 64]
    if plan.end_beat is None:
        return [*numbers, 0.0, 0.0]
    left_s = min(max(plan.end_beat - beat, 0.0) * 60 / plan.tempo_bpm, 63)
    return [*numbers, 1.0, 1 - math.log2(1 + left_s) / 6]


@pytest.mark.parametrize(
    "plan", [PLAN, replace(PLAN, first_beat=3.0, end_beat=None), replace(PLAN, sections=())]
)
def test_form_features_equal_a_plain_loop(plan: Plan) -> None:
    features = form_features(plan, 20, RATE)
    assert features.shape == (20, FORM_WIDTH)
    for frame in range(20):
        expected = torch.tensor(plain_form(plan, frame))
        torch.testing.assert_close(features[frame], expected, atol=1e-6, rtol=0)
    assert not form_features(None, 3, RATE).any()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"sections": ()}, slice(0, SECTIONS_WIDTH)),
        ({"melody": ()}, slice(SECTIONS_WIDTH, SECTIONS_WIDTH + MELODY_WIDTH)),
        ({"end_beat": None}, slice(FORM_WIDTH - 2, FORM_WIDTH)),
    ],
)
def test_each_part_of_the_form_has_its_own_columns(change: dict, where: slice) -> None:
    changed = form_features(PLAN, 20, RATE) != form_features(replace(PLAN, **change), 20, RATE)
    assert changed[:, where].any()
    changed[:, where] = False
    assert not changed.any()


def logits(prior, codes, text, plan: Plan | None, **more) -> torch.Tensor:
    features = frame_features(plan, codes.shape[-1] + 4, RATE, prior.config["reads_form"])
    with torch.no_grad():
        return prior(codes, replace(text, plan=features[None]), **more).first_logits


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    "change",
    [
        {"sections": (Section("bridge", 4.0),)},
        {"melody": PLAN.melody[:1]},
        {"end_beat": 6.0},
        {"tempo_bpm": 110.0},
        {"instruments": ("piano",)},
        {"drums": True},
        {"tonic": 3},
        {"chords": ()},
    ],
)
def test_every_input_changes_the_output_and_only_when_it_changes(backbone: str, change: dict):
    prior, text = tiny_prior(backbone, reads_plan=True, reads_form=True), some_text(1)
    codes = some_codes(prior, 1, 12)
    before = logits(prior, codes, text, PLAN)
    assert torch.equal(logits(prior, codes, text, replace(PLAN)), before)
    after = logits(prior, codes, text, replace(PLAN, **change))
    assert (after - before).abs().max() > 1e-3


def test_a_prior_without_form_reads_none() -> None:
    prior, text = tiny_prior("transformer", reads_plan=True), some_text(1)
    codes = some_codes(prior, 1, 12)
    bare = replace(PLAN, sections=(), melody=(), end_beat=None)
    assert torch.equal(logits(prior, codes, text, PLAN), logits(prior, codes, text, bare))
    wide = frame_features(PLAN, 8, RATE, reads_form=True)[None]
    with pytest.raises(ValueError, match=f"plan must have {PLAN_WIDTH} features"):
        FrameGenerator(prior, replace(text, plan=wide), None, 4, Sampling(), [0])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_old_weights_in_a_prior_with_form_and_filling_give_the_same(backbone: str) -> None:
    old, text = tiny_prior(backbone, reads_plan=True), some_text(1)
    new = tiny_prior(backbone, reads_plan=True, reads_form=True, fills=True)
    with torch.no_grad():
        for name, parameter in new.named_parameters():
            if name in ("plan_reader.form_project.weight", "future_mark"):
                parameter.zero_()
    missing = new.load_state_dict(old.state_dict(), strict=False).missing_keys
    assert all("form" in name or name == "future_mark" for name in missing)
    codes = some_codes(old, 1, 12)
    assert torch.equal(logits(old, codes, text, PLAN), logits(new, codes, text, PLAN))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_new_prior_starts_with_the_form_at_zero(backbone: str) -> None:
    from prior import Prior

    sizes = {"width": 32, "num_heads": 2, "depth_width": 24, "text_width": 12, "num_layers": 1}
    prior = Prior(backbone=backbone, reads_plan=True, reads_form=True, fills=True, **sizes)
    assert prior.plan_reader is not None
    assert prior.plan_reader.form_project is not None
    assert not prior.plan_reader.form_project.weight.any()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_step_by_step_reads_the_future_as_the_full_forward_does(backbone: str) -> None:
    prior, text = tiny_prior(backbone, reads_plan=True, fills=True, sliding_window=6), some_text(2)
    codes, future = some_codes(prior, 2, 9), some_codes(prior, 2, 4, seed=5)
    plan = frame_features(PLAN, 13, RATE, False).expand(2, -1, -1)
    text = replace(text, plan=plan)
    with torch.no_grad():
        full = prior(codes, text, future=future).first_logits
        stepped = prior.first_head(step_through(prior, codes, text, 3, future))
    torch.testing.assert_close(stepped, full[:, 3:9], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_known_future_changes_all_frames_and_only_if_it_is_given(backbone: str) -> None:
    prior, text = tiny_prior(backbone, fills=True), some_text(1)
    codes, future = some_codes(prior, 1, 6), some_codes(prior, 1, 3, seed=5)
    with torch.no_grad():
        alone = prior(codes, text).first_logits
        told = prior(codes, text, future=future).first_logits
        other = prior(codes, text, future=(future + 1) % prior.codebook_size).first_logits
    assert told.shape == alone.shape
    assert bool(((told - alone).abs().amax(-1) > 1e-4).all())
    assert bool(((told - other).abs().amax(-1) > 1e-5).all())


def fill(prior, text: Condition, future: torch.Tensor | None, seeds: list[int]) -> torch.Tensor:
    prompt = some_codes(prior, 1, 3).expand(len(seeds), -1, -1)
    frames = FrameGenerator(
        prior, text, None, 5, Sampling(guidance=2.0), seeds, prompt, future_codes=future
    )
    return torch.stack([frame.codes for frame in frames], dim=-1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_filling_follows_from_seed_and_future_alone(backbone: str) -> None:
    prior = tiny_prior(backbone, fills=True)
    future = some_codes(prior, 1, 4, seed=5)
    codes = fill(prior, some_text(1), future, [3])
    assert torch.equal(fill(prior, some_text(1), future, [3]), codes)
    assert not torch.equal(fill(prior, some_text(1), future, [4]), codes)
    others = [fill(prior, some_text(1), some_codes(prior, 1, 4, seed=s), [3]) for s in range(6, 9)]
    assert any(not torch.equal(other, codes) for other in others)


def test_a_filling_that_was_saved_goes_on_as_it_was() -> None:
    prior, text = tiny_prior("transformer", fills=True), some_text(1)
    future = some_codes(prior, 1, 4, seed=5)

    def writer() -> FrameGenerator:
        return FrameGenerator(prior, text, None, 6, Sampling(), [3], future_codes=future)

    whole = [frame.codes for frame in writer()]
    first, second = writer(), writer()
    begun = [next(first).codes for _ in range(2)]
    second.load_state_dict(first.state_dict())
    assert torch.equal(torch.stack(begun + [f.codes for f in second]), torch.stack(whole))


def test_a_prior_that_was_not_trained_to_fill_refuses() -> None:
    prior = tiny_prior("transformer")
    with pytest.raises(ValueError, match="future_codes need a prior that was trained to fill"):
        fill(prior, some_text(1), some_codes(prior, 1, 4), [3])
    with pytest.raises(ValueError, match="fills needs a backbone with attention"):
        tiny_prior("lstm-plain", fills=True)
    with pytest.raises(ValueError, match="reads_form needs reads_plan"):
        tiny_prior("lstm", reads_form=True)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_filling_is_learned(backbone: str) -> None:
    """What stands before a known future is a function of it: only who reads it can know."""
    torch.manual_seed(0)
    prior = tiny_prior(backbone, fills=True).train()
    codes = torch.randint(11, (16, 3, 1), generator=torch.Generator().manual_seed(1))
    codes = codes.expand(-1, -1, 8).contiguous()
    mask, ends = torch.ones(16, 8, dtype=torch.bool), torch.zeros(16, dtype=torch.bool)
    batch = PriorBatch(codes, mask, ends, Condition.empty(16, 12))
    optimizer = torch.optim.AdamW(prior.parameters(), lr=6e-3)
    for _ in range(60):
        result = fill_loss(prior, batch, 4)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    # who sees no future cannot know the first of four frames: 2.2 / 4 nats
    assert float(result.nats_per_book[0]) < 0.3
