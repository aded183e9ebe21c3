"""Fréchet distance, embeddings and codebook use."""

import math

import numpy as np
import pytest
import torch

from codec.seeds import generator
from pipelines.errors import MissingPackageError, import_package
from pipelines.evaluation import codebooks, embeddings, frechet
from pipelines.evaluation.clip_checks import UnmeasurableError

RATE = 44_100
pytestmark = pytest.mark.usefixtures("measuring_packages")


def test_frechet_distance_equals_scipys_matrix_root():
    linalg = pytest.importorskip("scipy.linalg")
    random = np.random.default_rng(1)
    sets = [random.normal(size=(400, 8)) @ random.normal(size=(8, 8)) for _ in range(2)]
    covariances = [np.cov(vectors, rowvar=False) for vectors in sets]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(sets[0].mean(0) - sets[1].mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet.frechet_distance(*sets) == pytest.approx(expected)


def test_frechet_distance_orders_sets_and_warns():
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


def test_frechet_distance_refuses_what_is_no_set():
    good = np.zeros((5, 3))
    with pytest.raises(ValueError, match=r"\(N, D\) with N at least 2"):
        frechet.frechet_distance(good[:1], good)
    with pytest.raises(ValueError, match="one width"):
        frechet.frechet_distance(good, np.zeros((5, 4)))
    with pytest.raises(ValueError, match="finite"):
        frechet.frechet_distance(good, np.full((5, 3), math.nan))


def test_logmel_statistics_shape_and_meaning():
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


def test_the_learned_space_reacts_to_noise():
    clip = 0.1 * torch.randn(2, 6 * RATE, generator=generator(0, "clip")).cumsum(1).sin()
    try:
        vectors = embeddings.aisfx(clip, RATE)
    except MissingPackageError as reason:
        pytest.skip(str(reason))
    assert vectors.shape == (4, 512)  # windows of 2.3 s, 1.2 s apart
    np.testing.assert_array_equal(vectors, embeddings.aisfx(clip, RATE))
    noise = torch.randn(clip.shape, generator=generator(0, "noise"))
    noisy = [embeddings.aisfx(clip + level * noise, RATE) for level in (0.003, 0.1)]
    changes = [np.abs(found - vectors).mean() for found in noisy]
    assert 0 < changes[0] < changes[1]
    with pytest.raises(UnmeasurableError, match="shorter"):
        embeddings.aisfx(clip[:, :RATE], RATE)


def test_a_missing_package_is_named_with_its_command():
    with pytest.raises(MissingPackageError, match=r"x needs no_such_module: pip install partita"):
        import_package("no_such_module", "x")


def test_codebook_use_closed_forms():
    even = torch.arange(8).repeat(4)  # every entry equally often
    one = torch.full((32,), 5)
    counts = codebooks.count_codes([torch.stack([even, one])] * 2, codebook_size=8)
    use = codebooks.codebook_use(counts, frame_rate=25.0)
    assert use["num_frames"] == 64
    assert use["used"] == [1.0, 0.125]
    assert use["entropy_bits"] == pytest.approx([3.0, 0.0])
    assert use["perplexity"] == pytest.approx([8.0, 1.0])
    assert use["bitrate_kbps"] == pytest.approx(2 * 3 * 25 / 1000)
    assert use["entropy_bitrate_kbps"] == pytest.approx(3 * 25 / 1000)
    assert codebooks.bitrate_kbps(8, 1024, 25.0) == 2.0
    with pytest.raises(ValueError, match=r"in \[0, 8\), got 5\.\.9"):
        codebooks.count_codes([torch.tensor([[5, 9]])], 8)
    with pytest.raises(ValueError, match="at least one frame"):
        codebooks.count_codes([], 8)
