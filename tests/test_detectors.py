"""Detectors of tempo, key and instruments, the ground truth they are tried on, and fitting them."""

import math
import shutil

import pytest
import torch
from torch import Tensor

from codec.seeds import generator
from pipelines.data.scores.instruments import FAMILIES, INSTRUMENTS
from pipelines.data.scores.keys import Key
from pipelines.data.scores.score import all_labels
from pipelines.errors import MissingPackageError
from pipelines.evaluation import detector_features as features
from pipelines.evaluation import second_opinion
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.detectors import (
    CLASSES,
    LEADS,
    Detectors,
    KeyFinder,
    TempoPicker,
    load_detectors,
)
from pipelines.evaluation.fit_detectors import (
    CROP_FRAMES,
    DetectorExamples,
    disturb,
    fit_detectors,
    lead_index,
    random_crop,
    tag_targets,
)
from pipelines.evaluation.ground_truth import Wanted, beginning, compose_wanted, render_score

RATE = 44_100
pytestmark = pytest.mark.usefixtures("measuring_packages")


def beats(tempo_bpm: float, duration_s: float = 10.0, rate: int = RATE) -> Tensor:
    """(2, S) float32: a thud on every beat, a hiss on every half, a louder thud every fourth."""
    times = torch.arange(round(duration_s * rate)) / rate
    beat = times * tempo_bpm / 60
    since_s = (beat % 1) * 60 / tempo_bpm
    first = 0.5 + 0.5 * (beat.floor() % 4 == 0)
    thud = first * torch.sin(2 * math.pi * 90 * since_s) * torch.exp(-20 * since_s)
    hiss = torch.randn(len(times), generator=generator(0, "hiss"))
    half_s = (beat % 0.5) * 60 / tempo_bpm
    wave = 0.4 * thud + 0.05 * hiss * torch.exp(-60 * half_s)
    return wave.float().repeat(2, 1)


def cadences(key: Key, rate: int = RATE) -> Tensor:
    """(2, S) float32: 10 s of I, IV, V and I over their roots, every tone with four partials."""
    third = {"major": 4, "minor": 3}[key.mode]
    chords = ((0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7))
    times = torch.arange(round(0.625 * rate)) / rate
    parts = []
    for chord in chords * 4:
        pitches = [48 + key.root + step for step in chord] + [36 + key.root + chord[0]]
        tones = [440 * 2 ** ((pitch - 69) / 12) for pitch in pitches]
        wave = sum(
            torch.sin(2 * math.pi * tone * partial * times) / partial
            for tone in tones
            for partial in (1, 2, 3, 4)
        )
        parts.append(0.05 * wave * torch.exp(-2 * times))
    return torch.cat(parts).float().repeat(2, 1)


def examples(count: int = 6) -> DetectorExamples:
    """A few clips that differ in everything."""
    found = DetectorExamples()
    for index in range(count):
        log_mel = torch.randn(128, 400, generator=generator(index, "lesson")) - 5
        labels = {
            "tempo_bpm": 60.0 + 20 * index,
            "instruments": [LEADS[index]],
            "lead": LEADS[index],
            "drums": index % 2 == 0,
        }
        found.add_spectrogram(log_mel, labels, 0)
        found.vectors.append(torch.rand(9, 12, generator=generator(index, "vectors")))
        found.keys.append(index * 4 % 24)
    return found


@pytest.mark.parametrize("tempo_bpm", [63.0, 88.5, 120.0, 171.0])
def test_tempo_of_beats_up_to_an_octave(tempo_bpm):
    detected = load_detectors().detect(beats(tempo_bpm), RATE).tempo_bpm
    octaves = math.log2(detected / tempo_bpm)
    assert abs(octaves - round(octaves)) < math.log2(1.01)


def test_the_published_tempo_is_refined():
    pytest.importorskip("librosa")
    assert second_opinion.estimate_tempo(beats(88.5), RATE) == pytest.approx(177, rel=1e-3)


def test_autocorrelation_equals_the_plain_loop():
    log_mel = torch.randn(128, 300, generator=generator(0, "mel"))
    envelopes = features.onset_envelopes(log_mel)
    found = features.autocorrelations(log_mel)
    assert found.shape == (5, features.NUM_LAGS)
    for lag in (1, 7, 150):
        count = envelopes.shape[1] - lag
        products = (envelopes[:, lag:] * envelopes[:, :count]).sum(1) / max(count, 100)
        zero = envelopes.square().sum(1) / envelopes.shape[1]
        torch.testing.assert_close(found[:, lag], products / zero, rtol=1e-3, atol=1e-5)
    assert not found[:, 298:].any()


def test_a_picked_tempo_is_the_mean_of_the_best_neighborhood():
    picker = TempoPicker()
    scores = torch.full((1, len(picker.tempos)), -20.0)
    scores[0, 100:103] = 5.0
    picker.forward = lambda _: scores.log_softmax(1)  # type: ignore[method-assign]
    assert float(picker.pick(torch.zeros(1, 5, features.NUM_LAGS))) == pytest.approx(
        float(picker.tempos[101]), rel=1e-3
    )


@pytest.mark.parametrize("key", [Key("C", "major"), Key("F#", "major"), Key("A", "minor")])
def test_key_of_cadences(key):
    assert load_detectors().detect(cadences(key), RATE).key == str(key)
    pytest.importorskip("librosa")
    assert str(second_opinion.estimate_key(cadences(key), RATE)) == str(key)


def test_a_transposed_piece_is_in_the_transposed_key():
    torch.manual_seed(0)
    finder = KeyFinder().eval()
    vectors = torch.rand(2, 9, 12)
    scores = finder(vectors).reshape(2, 2, 12)
    moved = finder(vectors.roll(5, -1)).reshape(2, 2, 12)
    torch.testing.assert_close(moved, scores.roll(5, -1))


def test_chroma_of_a_tone_is_its_pitch_class():
    times = torch.arange(22_050 * 3) / 22_050
    vectors = features.chroma_vectors(torch.sin(2 * math.pi * 440 * times))
    assert vectors.shape == (9, 12)
    assert int(vectors[1].argmax()) == 9
    assert float(vectors[1, 9]) > 0.95


def test_families_hold_every_instrument_once():
    named = [name for names in FAMILIES.values() for name in names]
    assert sorted(named) == sorted(INSTRUMENTS)
    assert CLASSES[-1] == "drums"


def test_targets_name_what_sounds_and_who_leads():
    labels = {"instruments": ["flute", "bass"], "lead": "flute", "drums": True}
    assert {CLASSES[index] for index in tag_targets(labels).nonzero()} == {"flute", "bass", "drums"}
    assert LEADS[lead_index(labels)] == "flute"
    assert lead_index(labels | {"lead": "bass"}) == -1


def test_levels_do_not_change_with_loudness():
    log_mel = torch.randn(128, 41, generator=generator(1, "mel"))
    levels = features.tagger_levels(log_mel)
    assert levels.shape == (128, 20)
    assert float(levels.max()) == pytest.approx(1.0)
    torch.testing.assert_close(features.tagger_levels(log_mel + 3), levels)


def test_detectors_refuse_silence_and_scraps():
    with pytest.raises(UnmeasurableError, match="silent"):
        load_detectors().detect(torch.zeros(2, 4 * RATE), RATE)
    with pytest.raises(UnmeasurableError, match=r"2\.00 s is shorter than 3 s"):
        load_detectors().detect(beats(120, 2.0), RATE)
    pytest.importorskip("librosa")
    with pytest.raises(UnmeasurableError, match=r"2\.00 s is shorter than 3 s"):
        second_opinion.estimate_key(beats(120, 2.0), RATE)


def test_one_channel_of_another_rate_is_described_too():
    stereo = load_detectors().detect(beats(100), RATE)
    mono = load_detectors().detect(beats(100, rate=32_000)[:1], 32_000)
    assert mono.tempo_bpm == pytest.approx(stereo.tempo_bpm, rel=0.01)
    assert set(mono.probabilities) == set(CLASSES)
    assert sum(mono.leads.values()) == pytest.approx(1.0, abs=1e-4)


def test_saved_detectors_are_loaded_alike(tmp_path):
    detectors = load_detectors()
    detectors.save(tmp_path / "d.safetensors", {"clips": "1"})
    again = load_detectors(tmp_path / "d.safetensors")
    assert again.detect(beats(90), RATE) == detectors.detect(beats(90), RATE)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_detectors(tmp_path / "broken.safetensors")
    with pytest.raises(FileNotFoundError, match="fit-detectors writes it"):
        load_detectors(tmp_path / "none.safetensors")


def test_fitting_lowers_the_losses_and_repeats(monkeypatch):
    from pipelines.evaluation import fit_detectors as fitting

    monkeypatch.setattr(fitting, "TEMPO_STEPS", 120)
    monkeypatch.setattr(fitting, "TEMPO_BATCH", 6)
    monkeypatch.setattr(fitting, "TAGGER_BATCH", 4)
    monkeypatch.setattr(fitting, "KEY_STEPS", 100)
    monkeypatch.setattr(fitting, "TAGGER_STEPS", 3)
    some = examples()
    first, again = (fit_detectors(some, 0, quiet=True) for _ in range(2))
    for one, other in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    correlations = torch.stack(some.correlations).float()
    with torch.inference_mode():
        fitted = float(first.tempo.loss(correlations, torch.tensor(some.tempos)))
        fresh = float(Detectors().tempo.loss(correlations, torch.tensor(some.tempos)))
        keys = first.key(torch.stack(some.vectors)).argmax(1)
    assert fitted < 0.75 * fresh
    assert keys.tolist() == some.keys


def test_crops_and_disturbances_keep_the_shape():
    draws = generator(0, "draws")
    levels = torch.rand(128, 100, generator=draws)
    crop = random_crop(levels, draws)
    assert crop.shape == (128, CROP_FRAMES)
    assert not crop[:, 100:].any()
    assert disturb(crop[None], draws).shape == (1, 128, CROP_FRAMES)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(tempo_bpm=73, key=Key("Eb", "minor"), instrument="banjo", drums=True),
        Wanted(tempo_bpm=50, key=Key("B", "major"), instrument="flute", drums=False),
        Wanted(tempo_bpm=200, mode="minor", instrument="choir"),
        Wanted(speed=(132, 160), mode="major"),
        Wanted(style="waltz", drums=True),
        Wanted(),
    ],
)
def test_a_composed_piece_has_the_wanted_facts(wanted):
    labels = all_labels(compose_wanted(wanted, 3))
    assert wanted.tempo_bpm in (None, labels["tempo_bpm"])
    assert wanted.mode in (None, labels["mode"])
    assert wanted.instrument in (None, labels["lead"])
    assert wanted.drums in (None, labels["drums"])
    assert wanted.style in (None, labels["style"])
    if wanted.key:
        assert Key(labels["key"], labels["mode"]) == wanted.key
    if wanted.speed:
        assert wanted.speed[0] <= labels["tempo_bpm"] <= wanted.speed[1]
    assert all_labels(compose_wanted(wanted, 3)) == labels


def test_impossible_pieces_and_early_notes():
    with pytest.raises(UnmeasurableError, match="no style has"):
        compose_wanted(Wanted(style="lullaby", drums=True), 0)
    score = compose_wanted(Wanted(tempo_bpm=120), 0)
    early = beginning(score, 5.0)
    assert 0 < max(note.start for part in early.parts for note in part.notes) < 10
    assert early.tempo_bpm == score.tempo_bpm


def test_without_fluidsynth_the_reason_names_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingPackageError, match="apt-get install fluidsynth"):
        render_score(compose_wanted(Wanted(), 0), 3.0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs fluidsynth")
def test_detectors_recognize_rendered_pieces():
    right = 0
    for index in range(12):
        wanted = Wanted(
            tempo_bpm=80 + 8 * index, key=Key("D", ("major", "minor")[index % 2]), drums=True
        )
        audio = render_score(compose_wanted(wanted, index), 10.0)
        detected = load_detectors().detect(audio, RATE)
        right += abs(detected.tempo_bpm / wanted.tempo_bpm - 1) < 0.04
        right += detected.key.startswith("D ")
        right += detected.drums
    assert right >= 26  # of 36
