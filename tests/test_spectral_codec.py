"""SpectralCodec: windows equal the whole, saving, learning, the adversary, and its refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_codec import SIZES, noise_audio, tiny_codec

from codec.losses import spectrogram_loss
from codec.seeds import generator
from codec.spectral_codec import SpectralCodec
from pipelines.train_codec import CodecLosses, CodecTraining

CODEC = tiny_codec()
HOP = CODEC.hop_length


def random_codes(batch: int, frames: int, books: int = 3) -> torch.Tensor:
    return torch.randint(16, (batch, books, frames), generator=generator(frames, "codes"))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=5), st.integers(1, 9))
def test_encoded_windows_equal_the_whole(sizes, window):
    audio = noise_audio(CODEC, 1, sum(sizes))
    pieces = CODEC.encode_stream(audio.split(sizes, dim=-1), window=window)
    assert torch.equal(torch.cat(list(pieces), dim=-1), CODEC.encode(audio))


def test_error_feedback_carries_over_from_window_to_window():
    codec = tiny_codec(error_feedback=0.6)
    audio = noise_audio(codec, 2, 60 * HOP)
    codes = codec.encode(audio)
    assert torch.equal(codes[:, :1], CODEC.encode(audio)[:, :1])
    assert not torch.equal(codes, CODEC.encode(audio))
    pieces = codec.encode_stream(audio.split(1000, dim=-1), window=7)
    assert torch.equal(torch.cat(list(pieces), dim=-1), codes)


@pytest.mark.parametrize("hop_length", [16, 30])
def test_encoded_windows_see_the_whole_analysis_window(hop_length):
    """Also where a window of the Fourier transform spans several token frames."""
    codec = tiny_codec(hop_length=hop_length, patch_frames=2)
    audio = noise_audio(codec, 1, 60 * codec.hop_length + 7)
    pieces = torch.cat(list(codec.encode_stream(audio.split(100, -1), window=2)), dim=-1)
    assert torch.equal(pieces, codec.encode(audio))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 30))
def test_decoded_windows_equal_the_whole(sizes, window):
    codes = random_codes(2, sum(sizes))
    pieces = CODEC.decode_stream(codes.split(sizes, dim=-1), seed=4, window=window)
    joined = torch.cat(list(pieces), dim=-1)
    whole = CODEC.decode(codes, seed=4)
    assert joined.shape == whole.shape
    # Griffin-Lim amplifies the rounding of the coarse spectrogram
    assert torch.allclose(joined, whole, atol=1e-3 * float(whole.abs().max()))


def test_the_default_window_streams_the_whole_bit_for_bit():
    codes = random_codes(1, 50)
    pieces = torch.cat(list(CODEC.decode_stream(codes.split(7, dim=-1))), dim=-1)
    assert torch.equal(pieces, CODEC.decode(codes))


def test_the_network_reaches_as_far_as_it_says():
    spectrogram = CODEC.log_mel(noise_audio(CODEC, 1, 40 * HOP))
    changed = spectrogram.clone()
    changed[..., 80:84] += 1.0  # the patch of token frame 20
    moved = (CODEC.latents(changed) - CODEC.latents(spectrogram)).abs().sum(-1)[0] > 0
    reach = CODEC.encoder_reach
    assert moved.nonzero().flatten().tolist() == list(range(20 - reach, 20 + reach + 1))
    latents = CODEC.latents(spectrogram)
    other = latents.clone()
    other[:, 20] += 1.0
    moved = (CODEC.reconstruct(other) - CODEC.reconstruct(latents)).abs().sum((0, 1, 2)) > 0
    reach = CODEC.decoder_reach
    assert moved.nonzero().flatten().tolist() == list(range(80 - 4 * reach, 84 + 4 * reach))


@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 5), (7, 2), (12, 12), (15, 13)])
def test_context_is_seen_and_not_returned(left, right):
    codec = tiny_codec(decoder_layers=4, kernel_size=7)
    latents = torch.randn(2, 40, codec.config.latent_dim, generator=generator(0, "latents"))
    with torch.no_grad():
        inside = codec.reconstruct(latents, left, right)
        whole = codec.reconstruct(latents)
    torch.testing.assert_close(inside, whole[..., 4 * left : whole.shape[-1] - 4 * right])


@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 5 * HOP - 13])
def test_odd_lengths(samples):
    audio = noise_audio(CODEC, 2, samples)
    codes = CODEC.encode(audio)
    assert codes.shape == (2, 3, -(-samples // HOP))
    assert CODEC.decode(codes).shape == (2, 2, codes.shape[-1] * HOP)


def test_one_book():
    codec = tiny_codec(num_codebooks=1)
    codes = codec.encode(noise_audio(codec, 1, 3 * HOP))
    assert codes.shape == (1, 1, 3)
    assert codec.decode(codes).shape == (1, 2, 3 * HOP)
    output = codec.train()(codec.log_mel(noise_audio(codec, 1, 30 * HOP)))
    assert torch.isfinite(output.commitment)


def test_a_cached_spectrogram_gives_the_codes_of_the_audio():
    audio = noise_audio(CODEC, 2, 9 * HOP)
    assert torch.equal(CODEC.encode_spectrogram(CODEC.log_mel(audio)), CODEC.encode(audio))


def test_normalizing_is_undone():
    spectrogram = CODEC.log_mel(noise_audio(CODEC, 1, 4 * HOP))
    assert torch.allclose(CODEC.denormalize(CODEC.normalize(spectrogram)), spectrogram, atol=1e-5)


def test_decoding_is_what_training_optimizes():
    """forward() in evaluation equals encode_spectrogram then decode_spectrogram."""
    spectrogram = CODEC.log_mel(noise_audio(CODEC, 2, 8 * HOP))
    output = CODEC(spectrogram)
    decoded = CODEC.decode_spectrogram(CODEC.encode_spectrogram(spectrogram))
    assert torch.allclose(output.reconstruction, decoded, atol=1e-4)
    bypassed = CODEC(spectrogram, quantize=False)
    assert torch.equal(bypassed.reconstruction, CODEC.reconstruct(CODEC.latents(spectrogram)))
    assert bypassed.commitment == 0


def test_seeds_change_the_phases_only():
    codes = random_codes(1, 20)
    first, second = CODEC.decode(codes, seed=0), CODEC.decode(codes, seed=1)
    assert torch.equal(first, CODEC.decode(codes, seed=0))
    assert not torch.allclose(first, second, atol=1e-2)


def test_saved_and_loaded_it_gives_the_same_codes_and_audio(tmp_path):
    CODEC.save_pretrained(tmp_path)
    loaded = SpectralCodec.from_pretrained(tmp_path)
    audio = noise_audio(CODEC, 1, 12 * HOP)
    codes = CODEC.encode(audio)
    assert torch.equal(loaded.encode(audio), codes)
    assert torch.equal(loaded.decode(codes, seed=2), CODEC.decode(codes, seed=2))


def test_double_precision_audio_is_taken():
    audio = noise_audio(CODEC, 1, 5 * HOP)
    assert torch.equal(CODEC.encode(audio.double()), CODEC.encode(audio))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd and positive, got 4"),
        ({"kernel_size": -1}, "kernel_size must be odd and positive, got -1"),
        ({"width": 0}, "width must be positive, got 0"),
        ({"channels": -1}, "channels must be positive, got -1"),
        ({"codebook_size": 0}, "codebook_size must be positive, got 0"),
        ({"num_codebooks": 0}, "num_codebooks must be positive, got 0"),
        ({"encoder_layers": -1}, "encoder_layers must not be negative, got -1"),
        ({"error_feedback": 1.0}, "error_feedback must be at least 0 and below 1, got 1.0"),
        ({"spectrogram_std": 0.0}, "spectrogram_std must be positive, got 0.0"),
        ({"vocoder_iterations": 0}, "num_iterations must be at least 1, got 0"),
        ({"hop_length": 200}, r"hop_length must lie in \[1, n_fft / 2\], got 200"),
    ],
)
def test_sizes_that_cannot_work(change, message):
    with pytest.raises(ValueError, match=message):
        SpectralCodec(**(SIZES | change))


def small_steps(training: CodecTraining, batch: torch.Tensor, steps: range) -> dict:
    """Adam steps on one batch; the terms of the last."""
    optimizer = torch.optim.Adam(training.parameters(), 3e-3)
    training.train()
    for step in steps:
        terms = training(batch, step, seed=step)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    return terms


def test_it_learns_one_batch_with_its_quantizer():
    torch.manual_seed(0)
    codec = SpectralCodec(**SIZES)
    batch = codec.log_mel(noise_audio(codec, 8, 16 * HOP))
    training = CodecTraining(codec, CodecLosses(quantize_from=60))
    assert float(training(batch, 0, seed=0)["regression"].detach()) > 1.5
    terms = small_steps(training, batch, range(60))
    assert float(terms["regression"].detach()) < 0.5
    with torch.no_grad():
        codec.quantizer.initialize(codec.latents(batch).flatten(0, 1))
    small_steps(training, batch, range(60, 160))
    codec.eval()
    error = spectrogram_loss(codec.decode_spectrogram(codec.encode_spectrogram(batch)), batch)
    assert float(error) < 0.45


def test_gradients_reach_the_encoder_through_the_quantizer():
    codec = tiny_codec().train()
    batch = codec.log_mel(noise_audio(codec, 2, 16 * HOP))
    spectrogram_loss(codec(batch).reconstruction, batch).backward()
    for name, parameter in codec.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def adversarial(step: int, weight: float = 0.1) -> tuple[CodecTraining, dict, torch.Tensor]:
    torch.manual_seed(0)
    codec = tiny_codec(num_mels=16)
    training = CodecTraining(codec, CodecLosses(adversarial=weight, adversarial_from=10)).eval()
    batch = codec.log_mel(noise_audio(codec, 2, 8 * HOP))
    return training, training(batch, step, seed=0), batch


def grads(module: torch.nn.Module, loss: torch.Tensor) -> list[torch.Tensor | None]:
    parameters = list(module.parameters())
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))


def test_the_discriminator_learns_from_its_own_term_alone():
    training, terms, _ = adversarial(step=10)
    assert training.discriminator is not None
    assert all(grad is None for grad in grads(training.discriminator, terms["generator"]))
    own = grads(training.discriminator, terms["discriminator"])
    total = grads(training.discriminator, terms["loss"])
    for mine, all_of_it in zip(own, total, strict=True):
        assert mine is not None
        assert all_of_it is not None
        assert torch.allclose(mine, all_of_it)


def test_the_codec_learns_nothing_from_the_discriminators_term():
    training, terms, _ = adversarial(step=10)
    assert all(grad is None for grad in grads(training.codec, terms["discriminator"]))
    assert any(grad is not None for grad in grads(training.codec, terms["generator"]))


def test_the_adversarial_terms_are_weighted_and_wait_for_their_step():
    training, terms, batch = adversarial(step=10, weight=0.3)
    expected = terms["regression"] + 0.3 * terms["generator"] + terms["discriminator"]
    assert torch.allclose(terms["loss"], expected)
    early = training(batch, 9, seed=0)
    assert "generator" not in early
    assert torch.allclose(early["loss"], early["regression"] + early["discriminator"])


def test_adversarial_training_runs():
    torch.manual_seed(0)
    codec = tiny_codec()
    losses = CodecLosses(adversarial=0.1, adversarial_from=0, quantize_from=0, movement=0.5)
    training = CodecTraining(codec, losses)
    batch = codec.log_mel(noise_audio(codec, 4, 8 * HOP))
    assert training.discriminator is not None
    weights_before = torch.nn.utils.parameters_to_vector(training.discriminator.parameters())
    before = training.eval()(batch, 0, seed=0)
    terms = small_steps(training, batch, range(40))
    assert terms["regression"] < 0.7 * before["regression"]
    assert all(torch.isfinite(term) for term in terms.values())
    weights = torch.nn.utils.parameters_to_vector(training.discriminator.parameters())
    assert not torch.allclose(weights, weights_before)
