"""Fréchet distance, embeddings, codebook use, tempo and key."""

import math

import numpy as np
import pytest
import torch

from codec.seeds import generator
from pipelines.errors import MissingPackageError, import_package
from pipelines.evaluation import codebooks, embeddings, frechet, second_opinion
from pipelines.evaluation.reasons import UnmeasurableError

RATE = 44_100
pytestmark = pytest.mark.usefixtures("measuring_packages")


def clicks(tempo_bpm: float, seconds: float = 12.0) -> torch.Tensor:
    """(1, S): a short burst on every beat."""
    times = torch.arange(round(seconds * RATE)) / RATE
    beat = times % (60 / tempo_bpm)
    burst = torch.exp(-beat * 60) * torch.randn(len(times), generator=generator(0, "clicks"))
    return 0.3 * burst.unsqueeze(0)


def chords(pitches: list[list[int]], seconds: float = 1.0) -> torch.Tensor:
    """(1, S): chords of MIDI pitches one after the other."""
    times = torch.arange(round(seconds * RATE)) / RATE
    parts = []
    for chord in pitches:
        frequencies = [440 * 2 ** ((pitch - 69) / 12) for pitch in chord]
        waves = [
            torch.sin(2 * math.pi * frequency * harmonic * times) / harmonic
            for frequency in frequencies
            for harmonic in (1, 2, 3)
        ]
        parts.append(torch.stack(waves).sum(0) * torch.exp(-3 * times))
    return 0.1 * torch.cat(parts).unsqueeze(0)


def test_frechet_distance_between_known_gaussians() -> None:
    """Commuting covariances: the sum of squared differences of means and standard deviations."""
    mean_1, mean_2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    std_1, std_2 = np.array([1.0, 2.0, 0.0]), np.array([3.0, 2.0, 0.5])
    expected = np.square(mean_1 - mean_2).sum() + np.square(std_1 - std_2).sum()
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    covariances = [rotation @ np.diag(std**2) @ rotation.T for std in (std_1, std_2)]
    distance = frechet.gaussian_distance(
        rotation @ mean_1, covariances[0], rotation @ mean_2, covariances[1]
    )
    assert distance == pytest.approx(expected)


def test_frechet_distance_equals_scipys_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    random = np.random.default_rng(1)
    sets = [random.normal(size=(400, 8)) @ random.normal(size=(8, 8)) for _ in range(2)]
    covariances = [np.cov(vectors, rowvar=False) for vectors in sets]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(sets[0].mean(0) - sets[1].mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet.frechet_distance(*sets) == pytest.approx(expected)


def test_frechet_distance_orders_sets_and_warns() -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(500, 16))
    near, far = vectors + 0.1 * random.normal(size=vectors.shape), vectors * 2
    distances = [frechet.frechet_distance(vectors, other) for other in (vectors, near, far)]
    assert distances[0] == pytest.approx(0, abs=1e-9)
    assert distances == sorted(distances)
    with pytest.warns(UserWarning, match="unequal N: 500 against 400"):
        frechet.frechet_distance(vectors, near[:400])
    with pytest.warns(UserWarning, match="from 20 vectors"):  # fewer than dimensions: singular
        assert np.isfinite(frechet.frechet_distance(vectors[:20], near[:20]))
    assert [len(part) for part in frechet.equal_windows(vectors, near[:7])] == [7, 7]


def test_frechet_distance_refuses_what_is_no_set() -> None:
    good = np.zeros((5, 3))
    with pytest.raises(ValueError, match=r"\(N, D\) with N at least 2"):
        frechet.frechet_distance(good[:1], good)
    with pytest.raises(ValueError, match="one width"):
        frechet.frechet_distance(good, np.zeros((5, 4)))
    with pytest.raises(ValueError, match="finite"):
        frechet.frechet_distance(good, np.full((5, 3), math.nan))


def test_logmel_statistics_shape_and_meaning() -> None:
    noise = 0.1 * torch.randn(2, 5 * RATE, generator=generator(0, "statistics"))
    vectors = embeddings.logmel_statistics(noise, RATE)
    assert vectors.shape == (9, 128)
    assert vectors.dtype == np.float32
    mono = embeddings.logmel_statistics(noise.mean(0).expand(2, -1), RATE)
    assert mono[:, 96:].max() < 0.05  # no side signal
    assert vectors[:, 96:].mean() == pytest.approx(0.5, abs=0.05)  # independent channels
    assert embeddings.logmel_statistics(noise[:1], RATE).shape == (9, 128)
    with pytest.raises(UnmeasurableError, match=r"shorter than 1 s"):
        embeddings.logmel_statistics(noise[:, : RATE // 2], RATE)


def test_the_learned_space_reacts_to_noise() -> None:
    pytest.importorskip("librosa")
    clip = chords([[60, 64, 67], [62, 65, 69], [55, 59, 62], [60, 64, 67]], 2.0).expand(2, -1)
    try:
        vectors = embeddings.aisfx(clip, RATE)
    except MissingPackageError as reason:
        pytest.skip(str(reason))
    assert vectors.shape[1] == 512
    assert len(vectors) >= 2
    again = embeddings.aisfx(clip, RATE)
    np.testing.assert_array_equal(vectors, again)
    noise = torch.randn(clip.shape, generator=generator(0, "noise"))
    changes = [
        np.abs(embeddings.aisfx(clip + level * noise, RATE) - vectors).mean()
        for level in (0.003, 0.1)
    ]
    assert 0 < changes[0] < changes[1]
    with pytest.raises(UnmeasurableError, match="shorter"):
        embeddings.aisfx(clip[:, :RATE], RATE)


def test_a_missing_package_is_named_with_its_command() -> None:
    with pytest.raises(MissingPackageError, match=r"x needs no_such_module: pip install partita"):
        import_package("no_such_module", "x")


def test_codebook_use_closed_forms() -> None:
    even = torch.arange(8).repeat(4)  # every entry equally often
    one = torch.full((32,), 5)
    counts = codebooks.count_codes([torch.stack([even, one])] * 2, codebook_size=8)
    use = codebooks.codebook_use(counts, frame_rate=25.0)
    assert use.num_frames == 64
    assert use.used == [1.0, 0.125]
    assert use.entropy_bits == pytest.approx([3.0, 0.0])
    assert use.perplexity == pytest.approx([8.0, 1.0])
    assert use.bitrate_kbps == pytest.approx(2 * 3 * 25 / 1000)
    assert use.entropy_bitrate_kbps == pytest.approx(3 * 25 / 1000)
    assert codebooks.bitrate_kbps(8, 1024, 25.0) == 2.0
    with pytest.raises(ValueError, match=r"in \[0, 8\), got 5\.\.9"):
        codebooks.count_codes([torch.tensor([[5, 9]])], 8)
    with pytest.raises(ValueError, match="at least one frame"):
        codebooks.count_codes([], 8)


@pytest.mark.parametrize("tempo_bpm", [67.0, 97.0, 123.0, 171.0])
def test_tempo_of_a_click_track(tempo_bpm: float) -> None:
    pytest.importorskip("librosa")
    found = second_opinion.estimate_tempo(clicks(tempo_bpm), RATE)
    assert any(abs(found / (tempo_bpm * factor) - 1) < 0.01 for factor in (0.5, 1, 2))


def test_key_of_a_cadence() -> None:
    pytest.importorskip("librosa")
    degrees = [[60, 64, 67], [65, 69, 72], [67, 71, 74], [60, 64, 67]]
    for shift, key in ((0, "C major"), (5, "F major")):
        moved = [[pitch + shift for pitch in chord] for chord in degrees]
        assert str(second_opinion.estimate_key(chords(moved), RATE)) == key
    minor = [[57, 60, 64], [62, 65, 69], [64, 68, 71], [57, 60, 64]]
    assert str(second_opinion.estimate_key(chords(minor), RATE)) == "A minor"
    with pytest.raises(UnmeasurableError, match="shorter than 3 s"):
        second_opinion.estimate_key(chords(minor[:1]), RATE)
