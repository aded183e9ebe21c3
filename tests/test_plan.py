"""Plans: numbers by frame, codes and back, what a prior hears of them."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_prior import ALL_BACKBONES, BACKBONES, some_codes, some_text, step_through, tiny_prior

from pipelines.inference.conditioning import stated_tempo
from prior.condition import Condition
from prior.frame_generator import FrameGenerator
from prior.plan import (
    INSTRUMENTS,
    PLAN_WIDTH,
    QUALITIES,
    ChordChange,
    Plan,
    contrary_features,
    plan_features,
)
from prior.plan_codes import (
    CODEBOOK_SIZE,
    HEAD_FRAMES,
    NUM_BOOKS,
    decode_plan,
    decode_tempo,
    encode_plan,
)
from prior.plan_draft import PlanDraft, repeated
from prior.planner import write_plan
from prior.sampling import Sampling
from prior.theory import MODES

PLAN = Plan(
    tempo_bpm=120.0,
    beats_per_bar=4,
    tonic=2,
    mode="minor",
    chords=(ChordChange(0.0, 2, "minor"), ChordChange(4.0, 9, "major")),
    instruments=("flute", "piano"),
    drums=False,
)


def plain_features(plan: Plan, frame: int, frame_rate: float) -> list[float]:
    """One frame, number by number."""
    beat = plan.first_beat + frame / frame_rate * plan.tempo_bpm / 60
    turns = [1 * beat, 2 * beat, 3 * beat, 4 * beat, beat / plan.beats_per_bar]
    numbers = [1.0]
    numbers += [math.cos(2 * math.pi * turn) for turn in turns]
    numbers += [math.sin(2 * math.pi * turn) for turn in turns]
    numbers += [math.log2(plan.tempo_bpm / 100)]
    numbers += [float(pitch == plan.tonic) for pitch in range(12)]
    numbers += [float(mode == plan.mode) for mode in MODES]
    after = beat + plan.tempo_bpm / 60 / frame_rate
    sounding = [chord for chord in plan.chords if chord.beat < after - 1e-9]
    triads = {"major": (0, 4, 7), "minor": (0, 3, 7), "diminished": (0, 3, 6)}
    root = sounding[-1].root if sounding else None
    tones = [(root + step) % 12 for step in triads[sounding[-1].quality]] if sounding else []
    numbers += [float(pitch == root) for pitch in range(12)]
    numbers += [float(pitch in tones) for pitch in range(12)]
    numbers += [float(name == next(iter(plan.instruments), None)) for name in INSTRUMENTS]
    numbers += [float(name in plan.instruments) for name in INSTRUMENTS]
    return [*numbers, float(plan.drums is False), float(plan.drums is True)]


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, first_beat=3.25, tempo_bpm=97.0, beats_per_bar=3),
        replace(PLAN, chords=(ChordChange(2.0, 11, "diminished"),)),
        replace(PLAN, instruments=("synth bass",), drums=True),
        Plan(150.0),
    ],
)
def test_features_equal_a_plain_loop(plan: Plan) -> None:
    features = plan_features(plan, 90, 25.0)
    assert features.shape == (90, PLAN_WIDTH)
    for frame in range(90):
        expected = torch.tensor(plain_features(plan, frame, 25.0))
        torch.testing.assert_close(features[frame], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("tempo", "number"), [(20.0, -2.3219), (100.0, 0.0), (400.0, 2.0)])
def test_the_range_of_features_is_as_documented(tempo: float, number: float) -> None:
    features = plan_features(replace(PLAN, tempo_bpm=tempo), 50, 25.0)
    beyond = features.abs().amax(0) > 1
    assert beyond.sum() == (tempo != 100.0)
    assert abs(number) < 1 or features[:, beyond].unique().item() == pytest.approx(number, abs=1e-4)
    assert "log2(bpm / 100)" in (plan_features.__doc__ or "")


def test_nothing_known_is_zero_and_differs_from_every_plan() -> None:
    assert not plan_features(None, 7, 25.0).any()
    assert bool((plan_features(Plan(100.0), 7, 25.0)[:, 0] == 1).all())


@pytest.mark.parametrize("drums", [None, False, True])
def test_the_contrary_of_a_plan_is_its_drums_alone(drums: bool | None) -> None:
    plan = replace(PLAN, drums=drums)
    contrary = contrary_features(plan_features(plan, 5, 25.0))
    expected = torch.zeros(5, PLAN_WIDTH)
    other = None if drums is None else not drums
    expected[:, -2:] = plan_features(replace(plan, drums=other), 5, 25.0)[:, -2:]
    assert torch.equal(contrary, expected)
    assert bool(contrary.any()) is (drums is not None)


def test_guidance_moves_away_from_the_contrary_of_the_plan() -> None:
    prior = tiny_prior("transformer", reads_plan=True)
    text = planned(2, replace(PLAN, drums=True), PLAN)
    writer = FrameGenerator(prior, text, None, 8, Sampling(guidance=2.0), [4, 5])
    assert writer.condition.plan is not None
    assert text.plan is not None
    assert torch.equal(writer.condition.plan[:2], text.plan)
    assert torch.equal(writer.condition.plan[2:], contrary_features(text.plan))
    unguided = FrameGenerator(prior, text, None, 8, Sampling(guidance=1.0), [4, 5])
    assert unguided.condition.plan is not None
    assert torch.equal(unguided.condition.plan, text.plan)


def test_a_clip_later_in_the_piece_continues_its_plan() -> None:
    whole = plan_features(PLAN, 100, 25.0)
    later = plan_features(replace(PLAN, first_beat=40 / 25 * 2), 60, 25.0)
    torch.testing.assert_close(later, whole[40:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tempo_bpm": 0.0}, r"tempo_bpm must lie in \[20, 400\], got 0.0"),
        ({"tempo_bpm": math.nan}, "tempo_bpm must lie"),
        ({"beats_per_bar": 0}, "beats_per_bar must lie"),
        ({"tonic": 12}, "tonic must be a pitch class"),
        ({"mode": "dorian"}, "mode must be one of"),
        ({"tonic": None}, "tonic and mode go together"),
        ({"chords": (ChordChange(0.0, 1, "sus4"),)}, "a chord must have a root"),
        ({"instruments": ("kazoo",)}, "instruments must be among piano, .*, got 'kazoo'"),
    ],
)
def test_a_bad_plan_names_field_rule_and_value(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **change)


chords_of = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from(QUALITIES), st.integers(1, 32)), max_size=20
)


@settings(max_examples=60, deadline=None)
@given(
    tempo=st.floats(40, 240),
    beats=st.sampled_from((2, 3, 4)),
    key=st.none() | st.tuples(st.integers(0, 11), st.sampled_from(MODES)),
    drawn=chords_of,
    instruments=st.lists(st.sampled_from(INSTRUMENTS), unique=True, max_size=5),
    drums=st.sampled_from((None, False, True)),
)
def test_codes_hold_a_plan(tempo, beats, key, drawn, instruments, drums):
    chords, beat = [], 0.0
    for root, quality, steps in drawn:
        chords.append(ChordChange(beat, root, quality))
        beat += steps / 2
    tonic, mode = key or (None, None)
    plan = Plan(tempo, beats, tonic, mode, tuple(chords), 0.0, tuple(instruments), drums)
    codes = encode_plan(plan, beat)
    assert codes.shape == (NUM_BOOKS, HEAD_FRAMES + len(chords))
    assert int(codes.min()) >= 0
    assert int(codes.max()) < CODEBOOK_SIZE
    back = decode_plan(codes)
    assert back == replace(plan, tempo_bpm=back.tempo_bpm)
    assert abs(back.tempo_bpm / tempo - 1) < 0.0075


def test_codes_have_room_for_five_instruments() -> None:
    plan = replace(PLAN, instruments=INSTRUMENTS[3:10])
    assert decode_plan(encode_plan(plan, 8)).instruments == INSTRUMENTS[3:8]


def test_any_codes_are_a_plan() -> None:
    drawn = torch.randint(CODEBOOK_SIZE, (NUM_BOOKS, 500), generator=torch.Generator())
    for start in range(0, 500, 5):
        decode_plan(drawn[:, start : start + 5])  # raises where a number leaves its range
    assert decode_tempo(0, 0) == 40
    assert decode_tempo(15, 7) == decode_tempo(127, 127) == pytest.approx(240)


def test_a_tempo_or_meter_without_a_code_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tempo_bpm must lie in \[40.0, 240.0\], got 300"):
        encode_plan(Plan(300.0), 4)
    with pytest.raises(ValueError, match=r"beats_per_bar must be one of \(4, 3, 2\), got 5"):
        encode_plan(Plan(100.0, 5), 4)


def test_chords_return_until_the_piece_ends() -> None:
    longer = repeated(PLAN.chords, 8.0, 20.0)
    assert [chord.beat for chord in longer] == [0, 4, 8, 12, 16, 20]
    assert [chord.root for chord in longer] == [2, 9, 2, 9, 2, 9]
    assert repeated((), 0.0, 20.0) == ()


def fixed(**fields) -> PlanDraft:
    return PlanDraft(fields)


def tiny_planner():
    return tiny_prior(
        "transformer", num_codebooks=NUM_BOOKS, codebook_size=CODEBOOK_SIZE, frame_rate=None
    )


def test_a_planner_plans_until_the_end_and_a_longer_piece_only_adds_chords() -> None:
    planner, text = tiny_planner(), some_text(1)
    short, long = (write_plan(planner, text, seconds, seed=3) for seconds in (2.0, 60.0))
    assert short == write_plan(planner, text, 2.0, seed=3)
    assert long.chords[: len(short.chords)] == short.chords
    assert len(long.chords) > len(short.chords) > 0
    assert short.tempo_bpm == long.tempo_bpm
    others = [write_plan(planner, text, 2.0, seed=seed) for seed in range(4, 9)]
    assert any(other != short for other in others)


@pytest.mark.parametrize(("tempo", "coded"), [(97.3, None), (21.0, "40"), (390.0, "240")])
def test_a_fixed_tempo_is_kept_exactly_and_seen_by_the_chords(tempo, coded):
    planner, text = tiny_planner(), some_text(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = write_plan(planner, text, 30.0, seed=3, draft=fixed(tempo_bpm=tempo))
    expected = f"a planner knows tempi in [40, 240] bpm, got {tempo:g}: chords are chosen as for "
    assert [str(item.message) for item in caught] == ([expected + coded] if coded else [])
    assert plan.tempo_bpm == tempo
    assert plan.chords[-1].beat <= 30.0 * tempo / 60
    coded_draft = fixed(tempo_bpm=min(max(tempo, 40.0), 240.0))
    nearest = write_plan(planner, text, 30.0, seed=3, draft=coded_draft)
    assert plan.tonic == nearest.tonic


@pytest.mark.parametrize(
    ("prompt", "tempo"),
    [
        ("a slow sad piano piece in D minor, 70 bpm", 70),
        ("Bossa at 125 BPM, no drums", 125),
        ("flute, pace 92.5 beats per minute", 92.5),
        ("a 140-bpm techno track", 140),
        ("60 beats a minute", 60),
        ("808 drums from 1985", None),
        ("fast techno", None),
        ("bpm", None),
    ],
)
def test_a_stated_tempo_is_read(prompt: str, tempo: float | None) -> None:
    assert stated_tempo(prompt) == tempo


def test_a_tempo_that_no_plan_has_is_said_and_left_out() -> None:
    with pytest.warns(UserWarning, match=r"a tempo must lie in \[20, 400\] bpm, got 900: ignored"):
        assert stated_tempo("techno, 900 bpm") is None


def test_a_prior_of_sound_is_no_planner() -> None:
    with pytest.raises(ValueError, match="a planner writes 2 books of 128 codes, got 3 of 11"):
        write_plan(tiny_prior("transformer"), some_text(1), 2.0, seed=0)


@pytest.mark.parametrize("backbone", ALL_BACKBONES)
def test_step_by_step_hears_the_plan_as_the_full_forward_does(backbone: str) -> None:
    prior, text = tiny_prior(backbone, reads_plan=True), some_text(2)
    codes = some_codes(prior, 2, 9)
    rows = [plan_features(PLAN, 10, 2.0), plan_features(replace(PLAN, tempo_bpm=90.0), 10, 2.0)]
    text = replace(text, plan=torch.stack(rows))
    with torch.no_grad():
        full = prior(codes, text).first_logits
        stepped = prior.first_head(step_through(prior, codes, text, 3))
    torch.testing.assert_close(stepped, full[:, 3:9], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_plan_matters_from_its_own_frame_on_and_not_before(backbone: str) -> None:
    prior, text = tiny_prior(backbone, reads_plan=True), some_text(1)
    codes, plan = some_codes(prior, 1, 8), plan_features(PLAN, 8, 2.0)[None]
    changed = plan.clone()
    changed[:, 5] += 1
    with torch.no_grad():
        before = prior(codes, replace(text, plan=plan)).first_logits
        after = prior(codes, replace(text, plan=changed)).first_logits
        short = prior(codes, replace(text, plan=plan[:, :4])).first_logits
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert (after[:, 5] - before[:, 5]).abs().max() > 1e-3
    torch.testing.assert_close(short[:, :4], before[:, :4])


def test_an_untrained_reader_changes_nothing() -> None:
    torch.manual_seed(0)
    prior, text = tiny_prior("transformer", reads_plan=True), some_text(1)
    assert prior.plan_reader is not None
    torch.nn.init.zeros_(prior.plan_reader.project.weight)
    codes, plan = some_codes(prior, 1, 6), plan_features(PLAN, 6, 2.0)[None]
    with torch.no_grad():
        told = prior(codes, replace(text, plan=plan)).first_logits
        untold = prior(codes, text).first_logits
    torch.testing.assert_close(told, untold)


def write(prior, text, seeds: list[int], frames: int = 8) -> torch.Tensor:
    writer = FrameGenerator(prior, text, None, frames, Sampling(guidance=2.0), seeds)
    written = [next(writer, None) for _ in range(frames)]
    return torch.stack([frame.codes for frame in written if frame], dim=-1)


def planned(rows: int, *plans: Plan | None):
    features = torch.stack([plan_features(plan, 8, 2.0) for plan in plans])
    return replace(some_text(rows), plan=features)


def test_a_row_alone_equals_the_row_beside_another_plan() -> None:
    prior = tiny_prior("transformer", reads_plan=True)
    both = planned(2, PLAN, None)
    codes = write(prior, both, [5, 6])
    for row in (0, 1):
        assert both.plan is not None
        alone = replace(
            both,
            text_states=both.text_states[row : row + 1],
            text_mask=both.text_mask[row : row + 1],
            plan=both.plan[row : row + 1],
        )
        assert torch.equal(write(prior, alone, [5 + row])[0], codes[row])


def test_a_writer_saved_and_restored_keeps_its_plan() -> None:
    prior, text = tiny_prior("transformer", reads_plan=True), planned(1, PLAN)
    whole = write(prior, text, [4])
    first = FrameGenerator(prior, text, None, 8, Sampling(guidance=2.0), [4])
    begun = [next(first, None) for _ in range(3)]
    second = FrameGenerator(prior, text, None, 8, Sampling(guidance=2.0), [4])
    second.load_state_dict(first.state_dict())
    rest = [next(second, None) for _ in range(5)]
    codes = torch.stack([frame.codes for frame in begun + rest if frame], dim=-1)
    assert torch.equal(codes, whole)


def test_a_writer_steered_to_the_same_plan_writes_the_same() -> None:
    prior, text = tiny_prior("transformer", reads_plan=True), planned(1, PLAN)
    writer = FrameGenerator(prior, text, None, 8, Sampling(guidance=2.0), [4])
    frames = [next(writer, None) for _ in range(3)]
    writer.steer(text, None)
    frames += [next(writer, None) for _ in range(5)]
    codes = torch.stack([frame.codes for frame in frames if frame], dim=-1)
    assert torch.equal(codes, write(prior, text, [4]))


@pytest.mark.parametrize("steered_to", [None, 9])
def test_steering_replaces_what_is_moved_away_from(steered_to: int | None) -> None:
    prior, text, sampling = tiny_prior("transformer"), some_text(1), Sampling(guidance=4.0)

    def away(num_tokens: int | None) -> Condition | None:
        return num_tokens and some_text(1, num_tokens, seed=num_tokens)

    writer = FrameGenerator(prior, text, away(5), 8, sampling, [4])
    writer.steer(text, away(steered_to))
    codes = torch.stack([next(writer).codes for _ in range(8)], dim=-1)
    expected = [f.codes for f in FrameGenerator(prior, text, away(steered_to), 8, sampling, [4])]
    unchanged = [f.codes for f in FrameGenerator(prior, text, away(5), 8, sampling, [4])]
    assert torch.equal(codes, torch.stack(expected, dim=-1))
    assert not torch.equal(codes, torch.stack(unchanged, dim=-1))


def test_a_prior_that_reads_no_plan_refuses_one() -> None:
    with pytest.raises(ValueError, match="has a plan, which a prior with reads_plan=false"):
        write(tiny_prior("transformer"), planned(1, PLAN), [0])
