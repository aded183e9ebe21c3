"""EncodecCodec against its peers (the encodec package, transformers) on the same random weights."""

import re
import warnings
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from encodec import EncodecModel
from safetensors.torch import save_file
from transformers import EncodecConfig
from transformers import EncodecModel as TransformersEncodec

from codec.encodec_codec import EncodecCodec, code_to_level, level_to_code
from codec.seeds import generator

OVERLAP = 480


@pytest.fixture(scope="module")
def full24() -> EncodecCodec:
    return EncodecCodec.untrained("24khz", bandwidth_kbps=6.0)


@pytest.fixture(scope="module")
def full48() -> EncodecCodec:
    return EncodecCodec.untrained("48khz", bandwidth_kbps=6.0)


@pytest.fixture(scope="module")
def tiny24() -> EncodecCodec:
    return EncodecCodec.untrained("24khz", bandwidth_kbps=3.0, num_filters=2)


@pytest.fixture(scope="module")
def tiny48() -> EncodecCodec:
    return EncodecCodec.untrained("48khz", bandwidth_kbps=6.0, num_filters=4)


def noise(batch: int, channels: int, samples: int) -> torch.Tensor:
    draws = torch.rand(batch, channels, samples, generator=generator(samples, "noise"))
    return draws * 1.6 - 0.8


def encodec_twin(codec: EncodecCodec, build) -> EncodecModel:
    """The encodec package's own model with the codec's weights and bandwidth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        twin = build(pretrained=False)
    twin.load_state_dict(codec.state_dict())
    twin.set_target_bandwidth(6.0)
    return twin


def transformers_twin(codec: EncodecCodec, **config):
    """transformers' model with the codec's weights, its keys renamed."""
    twin = TransformersEncodec(EncodecConfig(**config)).eval()
    renamed = {}
    for name, tensor in codec.state_dict().items():
        for ours, theirs in (
            (r"^(encoder|decoder)\.model\.", r"\1.layers."),
            (r"\.(conv\.conv|convtr\.convtr)\.", ".conv."),
            (r"\.(conv|convtr)\.norm\.", ".norm."),
            (r"quantizer\.vq\.layers", "quantizer.layers"),
            (r"\._codebook\.", ".codebook."),
            (r"weight_g$", "parametrizations.weight.original0"),
            (r"weight_v$", "parametrizations.weight.original1"),
        ):
            name = re.sub(ours, theirs, name)
        renamed[name] = tensor
    twin.load_state_dict(renamed)
    return twin


@torch.no_grad()
def test_24khz_equals_both_peers(full24):
    audio = noise(2, 1, 24000 + 123)
    codes = full24.encode(audio)
    assert codes.shape == (2, 8, 76)
    assert len(codes.unique()) > 20
    package = encodec_twin(full24, EncodecModel.encodec_model_24khz)
    ((package_codes, _),) = package.encode(audio)
    assert torch.equal(codes, package_codes)
    assert torch.equal(full24.decode(codes), package.decode([(package_codes, None)]))
    peer = transformers_twin(full24)
    peer_codes = peer.encode(audio, bandwidth=6.0).audio_codes
    assert torch.equal(codes, peer_codes[0])
    peer_audio = peer.decode(peer_codes, [None]).audio_values
    assert torch.allclose(full24.decode(codes), peer_audio, atol=1e-6)


@torch.no_grad()
def test_48khz_equals_the_package_but_for_the_rounded_level(full48):
    audio = noise(2, 2, 47520 + 20001) * torch.linspace(0.05, 1, 67521)
    codes = full48.encode(audio)
    package = encodec_twin(full48, EncodecModel.encodec_model_48khz)
    frames = package.encode(audio)
    assert torch.equal(codes[:, 1:], torch.cat([books for books, _ in frames], dim=-1))
    levels = code_to_level(torch.stack([codes[:, 0, 0], codes[:, 0, 150]]))
    for level, (_, scale) in zip(levels, frames, strict=True):
        assert (20 * (level / scale[:, 0]).log10()).abs().max() <= 0.0501
    rounded = [(books, levels[i][:, None]) for i, (books, _) in enumerate(frames)]
    assert torch.allclose(full48.decode(codes), package.decode(rounded), atol=1e-6)


@torch.no_grad()
def test_48khz_equals_transformers(full48):
    peer = transformers_twin(
        full48,
        target_bandwidths=(3.0, 6.0, 12.0, 24.0),
        sampling_rate=48000,
        audio_channels=2,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        norm_type="time_group_norm",
        use_causal_conv=False,
    )
    audio = noise(1, 2, 40000)
    codes = full48.encode(audio)
    theirs = peer.encode(audio, bandwidth=6.0)
    assert torch.equal(codes[:, 1:], theirs.audio_codes[0])
    level = code_to_level(codes[:, 0, :1])
    peer_audio = peer.decode(theirs.audio_codes, [level]).audio_values
    assert torch.allclose(full48.decode(codes), peer_audio, atol=1e-6)


@torch.no_grad()
def test_long_audio_in_windows_equals_one_pass(tiny24):
    audio = noise(1, 1, 24000 * 23 + 77)
    whole = tiny24.quantizer.vq.encode(tiny24.encoder(audio), n_q=4).transpose(0, 1)
    codes = tiny24.encode(audio)
    assert torch.equal(codes, whole)
    decoded = tiny24.decoder(tiny24.quantizer.decode(codes.transpose(0, 1)))
    assert torch.allclose(tiny24.decode(codes), decoded, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 319, 47519, 47521, 48000, 48001, 95520, 95521, 100000])
def test_48khz_segments_are_found_again_in_the_codes(tiny48, samples):
    audio = noise(1, 2, samples)
    codes = tiny48.encode(audio)
    segments = max(1, -(-(samples - OVERLAP) // 47520))
    rest = samples - 47520 * (segments - 1)
    assert codes.shape == (1, 5, 150 * (segments - 1) + -(-rest // 320))
    decoded = tiny48.decode(codes)
    assert samples <= decoded.shape[-1] < samples + 320
    assert torch.isfinite(decoded).all()


def test_48khz_follows_the_level(tiny48):
    quiet, loud = noise(1, 2, 40000) * 0.01, noise(1, 2, 40000)
    ratio = tiny48.decode(tiny48.encode(loud)).std() / tiny48.decode(tiny48.encode(quiet)).std()
    assert ratio == pytest.approx(100, rel=0.02)
    silence = tiny48.decode(tiny48.encode(torch.zeros(1, 2, 40000)))
    assert silence.abs().max() < 1e-6


def test_levels_survive_to_a_twentieth_of_a_decibel():
    level = torch.logspace(-5.1, 0, 1000)
    error_db = 20 * (code_to_level(level_to_code(level)) / level).log10()
    assert error_db.abs().max() <= 0.0501
    assert level_to_code(torch.tensor([1e-8, 1.0, 3.0])).tolist() == [0, 1023, 1023]


@pytest.mark.parametrize(
    ("model", "bandwidth", "books", "rate"),
    [
        ("24khz", 1.5, 2, 75.0),
        ("24khz", 24.0, 32, 75.0),
        ("48khz", 3.0, 3, 150 / 0.99),
        ("48khz", 24.0, 17, 150 / 0.99),
    ],
)
def test_bandwidth_decides_the_books(model, bandwidth, books, rate):
    codec = EncodecCodec(model, bandwidth, num_filters=2)
    assert codec.num_codebooks == books
    assert codec.frame_rate == pytest.approx(rate)


def test_building_is_quiet_and_seeded():
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = EncodecCodec.untrained(seed=3, num_filters=2)
    assert torch.equal(torch.get_rng_state(), before)
    same = EncodecCodec.untrained(seed=3, num_filters=2).state_dict()
    other = EncodecCodec.untrained(seed=4, num_filters=2).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.state_dict().items())
    assert not torch.equal(
        same["encoder.model.0.conv.conv.weight_v"], other["encoder.model.0.conv.conv.weight_v"]
    )


@pytest.mark.parametrize("tiny", ["tiny24", "tiny48"])
def test_a_saved_codec_loads_the_same(tmp_path, tiny, request):
    codec = request.getfixturevalue(tiny)
    codec.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    loaded = EncodecCodec.from_pretrained(tmp_path)
    audio = noise(1, codec.channels, 30000)
    codes = codec.encode(audio)
    assert not loaded.training
    assert loaded.num_codebooks == codec.num_codebooks
    assert torch.equal(loaded.encode(audio), codes)
    assert torch.equal(loaded.decode(codes), codec.decode(codes))


@pytest.mark.parametrize("suffix", [".th", ".safetensors", "folder"])
def test_weights_are_read_from_a_local_file(tmp_path, full24, suffix):
    state = full24.state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    elif suffix == ".th":
        torch.save(state, path)
    else:
        path = tmp_path
        torch.save(state, path / "encodec_24khz-d7cc33bc.th")
    codec = EncodecCodec.from_pretrained_weights("24khz", 6.0, path)
    audio = noise(1, 1, 5000)
    assert torch.equal(codec.encode(audio), full24.encode(audio))


def test_unusable_weights_are_refused_in_one_line(tmp_path, full24):
    state = full24.state_dict()
    cases = {
        "text.th": "is not a state dict",
        "cut.safetensors": "is not a state dict",
        "list.th": "holds a list, not a state dict",
        "short.th": "lacks the tensor 'encoder.model.0.conv.conv.bias'",
        "long.th": "holds an unknown tensor 'extra'",
        "shape.th": r"'encoder.model.0.conv.conv.bias' must be \(32,\), got \(1,\)",
    }
    first = next(iter(state))
    (tmp_path / "text.th").write_text("no weights here")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    torch.save([1, 2], tmp_path / "list.th")
    torch.save({key: state[key] for key in list(state)[1:]}, tmp_path / "short.th")
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "long.th")
    torch.save({**state, first: torch.zeros(1)}, tmp_path / "shape.th")
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            EncodecCodec.from_pretrained_weights("24khz", weights=tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be the file encodec_24khz-d7cc33bc\.th"):
        EncodecCodec.from_pretrained_weights(weights=tmp_path / "nowhere.th")
    with pytest.raises(FileNotFoundError, match=r"must be the file encodec_48khz-7e698e3e\.th"):
        EncodecCodec.from_pretrained_weights("48khz", weights=tmp_path)


def test_a_closed_network_says_which_file_is_wanted_and_where(tmp_path, monkeypatch):
    def closed(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", closed)
    monkeypatch.setattr("torch.hub.urlopen", closed)
    with pytest.raises(OSError, match=r"put the file encodec_24khz-d7cc33bc\.th into") as caught:
        EncodecCodec.from_pretrained_weights()
    assert str(Path(tmp_path) / "hub" / "checkpoints") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_impossible_configurations_are_refused():
    with pytest.raises(ValueError, match=r"model must be one of .* got '44khz'"):
        EncodecCodec("44khz")
    with pytest.raises(ValueError, match=r"bandwidth_kbps must be one of .* for 48khz, got 1\.5"):
        EncodecCodec("48khz", 1.5)
