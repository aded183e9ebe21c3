"""DiffusionDecoder: patches, its start, its conditions, learning, saving, refusals."""

import math

import pytest
import torch

from decoder.diffusion_decoder import DiffusionDecoder, rotary_table, rotate, time_features
from decoder.flow import NOISE_ANGLE, flow_loss, uniform_angle

SIZES = {
    "channels": 2,
    "num_mels": 128,
    "latent_dim": 8,
    "num_codebooks": 3,
    "width": 32,
    "num_layers": 2,
    "num_heads": 2,
}


def randomized(**sizes: int) -> DiffusionDecoder:
    """Weights far from zero, so that a leak between rows or a lost condition shows."""
    decoder = DiffusionDecoder(**(SIZES | sizes)).eval()
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.1)
    return decoder


def inputs(batch: int = 2, frames: int = 5, mels: int = 128) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(frames)
    point, coarse = torch.randn(2, batch, 2, mels, 4 * frames, generator=draws)
    return {
        "point": point,
        "angle": NOISE_ANGLE * torch.rand(batch, generator=draws),
        "coarse": coarse,
        "latents": torch.randn(batch, frames, 8, generator=draws),
        "num_books": torch.randint(1, 4, (batch,), generator=draws),
    }


@pytest.mark.parametrize("bands", [128, 32, 16])
@torch.no_grad()
def test_patches_of_any_height(bands):
    decoder = randomized(patch_bands=bands)
    given = inputs()
    patches = decoder.patchify(given["point"])
    assert patches.shape == (2, 5, 128 // bands, 2 * 4 * bands)
    assert torch.equal(decoder.unpatchify(patches), given["point"])
    output = decoder(**given)
    assert output.shape == given["point"].shape
    assert torch.isfinite(output).all()


def test_a_patch_holds_its_bands_and_frames():
    decoder = DiffusionDecoder(**(SIZES | {"patch_bands": 32}))
    spectrogram = torch.zeros(1, 2, 128, 12)
    spectrogram[0, :, 32:64, 8:12] = 1.0
    patches = decoder.patchify(spectrogram)
    assert (patches[0, 2, 1] == 1).all()
    assert patches.sum() == patches[0, 2, 1].sum()


@pytest.mark.parametrize("bands", [128, 16])
def test_an_untrained_decoder_moves_nothing(bands):
    assert not DiffusionDecoder(**SIZES, patch_bands=bands)(**inputs()).any()


@pytest.mark.parametrize("name", ["point", "angle", "coarse", "latents", "num_books"])
@torch.no_grad()
def test_every_condition_counts(name):
    decoder, given = randomized(), inputs()
    changed = dict(given)
    changed[name] = given[name] % 3 + 1 if name == "num_books" else given[name] + 0.3
    assert (decoder(**changed) - decoder(**given)).abs().max() > 1e-3


@torch.no_grad()
def test_a_row_alone_equals_the_row_in_a_batch():
    decoder, given = randomized(patch_bands=32), inputs(batch=3)
    together = decoder(**given)
    for row in range(3):
        alone = decoder(**{name: value[row : row + 1] for name, value in given.items()})
        assert torch.allclose(alone[0], together[row], atol=1e-4)


@torch.no_grad()
def test_one_frame():
    assert randomized()(**inputs(frames=1)).shape == (2, 2, 128, 4)


@torch.no_grad()
def test_attention_reaches_every_frame_and_row():
    decoder, given = randomized(patch_bands=32), inputs(batch=1, frames=9)
    changed = dict(given, point=given["point"].clone())
    changed["point"][..., :32, :4] += 1.0
    moved = (decoder(**changed) - decoder(**given)).abs()
    assert (decoder.patchify(moved).amax(-1) > 0).all()


def test_rotation_depends_on_distance_alone():
    """Dot products of turned vectors are those of the same distance; rows share a position."""
    table = rotary_table(10, 2, 8, torch.device("cpu"))
    assert table.shape == (2, 20, 4)
    draws = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=draws)
    turned_query = rotate(query.expand(-1, -1, 20, -1), table)[0, 0]
    turned_key = rotate(key.expand(-1, -1, 20, -1), table)[0, 0]
    products = (turned_query @ turned_key.T).view(10, 2, 10, 2)
    assert torch.allclose(products[2, 0, 5], products[4, 1, 7], atol=1e-5)
    assert torch.allclose(products[3, 0, 3, 1], (query * key).sum(), atol=1e-5)
    assert torch.allclose(turned_query.norm(dim=-1), query.norm(), atol=1e-5)


def test_time_features_equal_their_formula():
    features = time_features(torch.tensor([0.0, 0.37]))
    assert features.shape == (2, 256)
    for index in (0, 1, 77, 127):
        angle = 1000 * 0.37 * 10000 ** (-index / 128)
        assert float(features[1, index]) == pytest.approx(math.cos(angle), abs=1e-3)
        assert float(features[1, 128 + index]) == pytest.approx(math.sin(angle), abs=1e-3)
    assert torch.equal(features[0], torch.cat([torch.ones(128), torch.zeros(128)]))


def trained(detail: torch.Tensor, given: dict[str, torch.Tensor], steps: int, **sizes: int):
    """A decoder fitted to one batch with fresh noise and angles at every step."""
    torch.manual_seed(0)
    decoder = DiffusionDecoder(**(SIZES | {"num_mels": detail.shape[2]} | sizes))
    optimizer = torch.optim.AdamW(decoder.parameters(), 3e-3)
    draws = torch.Generator().manual_seed(0)
    losses = []

    def predict(point: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        return decoder(point, angle, given["coarse"], given["latents"], given["num_books"])

    for _ in range(steps):
        noise = torch.randn(detail.shape, generator=draws)
        angle = uniform_angle(torch.randn(len(detail), generator=draws))
        loss = flow_loss(predict, noise, detail, angle)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return decoder.eval(), losses


@pytest.mark.parametrize("bands", [8, 4])
def test_it_learns_one_batch(bands):
    given = inputs(batch=4, frames=6, mels=16)
    _, losses = trained(given["point"], given, 200, patch_bands=bands, width=64)
    first, last = sum(losses[:10]) / 10, sum(losses[-20:]) / 20
    assert first > 0.9
    assert last < 0.35


@torch.no_grad()
def test_it_learns_what_the_number_of_books_means():
    """Two rows differ in their number of books alone, and want opposite details."""
    given = {name: value[:1].expand(2, *value.shape[1:]) for name, value in inputs(mels=16).items()}
    given["num_books"] = torch.tensor([1, 3])
    detail = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(given["point"].shape)
    with torch.enable_grad():
        decoder, _ = trained(detail, given, 120, patch_bands=16)
    given["angle"] = torch.full((2,), NOISE_ANGLE)  # where the velocity is minus the detail
    output = decoder(**given)
    assert (output + detail).abs().mean() < 0.4
    swapped = decoder(**(given | {"num_books": torch.tensor([3, 1])}))
    assert (swapped + detail).abs().mean() > 1.4


def test_saved_and_loaded_it_paints_the_same(tmp_path):
    decoder, given = randomized(), inputs()
    decoder.save_pretrained(tmp_path)
    loaded = DiffusionDecoder.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(**given), decoder(**given))


def test_bfloat16_autocast_stays_near():
    decoder, given = randomized(), inputs()
    with torch.no_grad():
        exact = decoder(**given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = decoder(**given)
    assert torch.isfinite(rough).all()
    assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, r"2 \* num_heads must divide width, got width=32 and num_heads=3"),
        ({"num_heads": 32}, r"2 \* num_heads must divide width, got width=32 and num_heads=32"),
        ({"num_heads": 0}, "num_heads must be positive, got 0"),
        ({"width": -32}, "width must be positive, got -32"),
        ({"num_codebooks": 0}, "num_codebooks must be positive, got 0"),
        ({"patch_bands": 0}, "patch_bands must be positive, got 0"),
        ({"patch_bands": 48}, "patch_bands must divide num_mels, got 48 and num_mels=128"),
        ({"overlap_frames": 0}, r"overlap_frames must lie in \[1, window_frames / 2\], got 0"),
        ({"overlap_frames": 65}, r"got 65 and window_frames=128"),
        ({"detail_std": 0.0}, "detail_std must be positive, got 0.0"),
        ({"noise_temperature": -1.0}, "noise_temperature must be positive, got -1.0"),
        ({"default_steps": 17}, r"default_steps must lie in \[1, 16\], got 17"),
        ({"default_steps": 0}, r"default_steps must lie in \[1, 16\], got 0"),
    ],
)
def test_sizes_that_cannot_work(change, message):
    with pytest.raises(ValueError, match=message):
        DiffusionDecoder(**(SIZES | change))
