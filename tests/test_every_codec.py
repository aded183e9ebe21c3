"""Every codec goes all the way: nothing shifts, prior and decoder train, a pipeline generates."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from test_tokens import prepare_clips
from tiny_pipeline import CODEBOOK_SIZE, NUM_BOOKS, tiny_codec, tiny_pipeline
from tiny_training import settings
from tiny_transformers_codecs import SETTINGS, tiny_transformers_codec

from codec import EncodecCodec
from codec.protocols import Codec
from decoder import DiffusionDecoder, FlowSampler
from decoder.painting import TokenConditioning, choose_conditioning
from pipelines import Pipeline
from pipelines.cli import main
from pipelines.commands.encode import encode_blocks
from pipelines.inference.edit_source import open_to_edit
from pipelines.inference.token_file import save_song_tokens
from pipelines.train_decoder import DecoderTask
from pipelines.training.decoder_data import DecoderData

ROOT = Path(__file__).parents[1]


def small_encodec(model: str) -> EncodecCodec:
    """The encodec package's, without biases, which drown what an untrained one hears."""
    codec = EncodecCodec.untrained(model, 3.0, num_filters=4)
    for name, tensor in codec.state_dict().items():
        if ".bias" in name:
            tensor.zero_()
    with torch.no_grad():
        draws = torch.Generator().manual_seed(0)
        heard = codec.encoder(torch.rand((1, codec.channels, 16_000), generator=draws) - 0.5)
        for name, tensor in codec.state_dict().items():
            if name.endswith(".embed"):
                tensor.mul_(heard.std() / tensor.std())
    return codec


BUILDERS: dict[str, Any] = {
    "spectral": tiny_codec,
    "encodec-24khz": partial(small_encodec, "24khz"),
    "encodec-48khz": partial(small_encodec, "48khz"),
    **{f"transformers-{kind}": partial(tiny_transformers_codec, kind) for kind in SETTINGS},
}
SEES_ALL = ("encodec-48khz", "transformers-xcodec")
"""One normalizes over its second, the other's HuBERT attends to the whole piece."""
KINDS = pytest.mark.parametrize("kind", BUILDERS)
LENGTH_S = 0.5


def noise(codec: Codec, frames: int, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    hop: Any = codec
    return torch.rand((1, codec.channels, frames * hop.hop_length), generator=draws) - 0.5


@KINDS
def test_nothing_shifts(kind: str) -> None:
    """What changes at a moment changes codes and audio there, not elsewhere."""
    codec: Any = BUILDERS[kind]()
    hop, at, reach = codec.hop_length, 40, 12
    audio = noise(codec, 80)
    other = audio.clone()
    other[..., at * hop :] = noise(codec, 40, seed=1)
    codes, changed = codec.encode(audio), codec.encode(other)
    different = (codes != changed).any(dim=1)[0]
    early, late = (float(part.float().mean()) for part in (different[: at - reach], different[at:]))
    if kind in SEES_ALL:
        assert early < 0.3 < 0.6 < late, (early, late)
    else:
        assert early == 0
        assert different[at - reach : at + 3].any()
    spliced = torch.cat([codes[..., :at], changed[..., at:]], dim=-1)
    moved = (codec.decode(codes) - codec.decode(spliced)).abs()[0].amax(dim=0)
    quiet = 0.3 if kind == "encodec-48khz" else 0.01
    first = int((moved > quiet * moved.max()).nonzero()[0])
    assert (at - reach) * hop <= first <= (at + 2) * hop


@KINDS
def test_pieces_and_the_whole_have_the_same_codes(kind: str) -> None:
    codec: Any = BUILDERS[kind]()
    audio = noise(codec, 30)[..., :-7]
    assert torch.equal(encode_blocks(codec, audio.split(3000, dim=-1)), codec.encode(audio))
    assert 0 <= codec.decode(codec.encode(audio)).shape[-1] - audio.shape[-1] < codec.hop_length


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips and two held-out ones, with their audio."""
    return prepare_clips(tmp_path_factory.mktemp("prepared"))


def options(folder: Path, part: str, codec: Codec, **model: Any) -> list[str]:
    """Change a smoke config to three steps on the tokens of a codec."""
    values = {f"model.{name}": value for name, value in model.items()} | {
        "model.codebook_size": codec.codebook_size,
        "data.tokens": f"[{folder}/tokens]",
        "data.codec": f"{folder}/codec",
        "data.crop_s": 0.24,
        "data.validation_clips": 2,
        "training.output_dir": f"{folder}/{part}",
        "training.steps": 3,
    }
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def train_decoder(folder: Path, prepared: Path, codec: Codec) -> None:
    """Train one over the coarse spectrogram of our codec, or of the embedded tokens of another."""
    model: dict[str, Any] = {"num_codebooks": codec.num_codebooks, "token_rate": codec.frame_rate}
    command = ["train", "decoder", "--config", str(ROOT / "configs/decoder/tokens-smoke.yaml")]
    rest = options(folder, "decoder", codec, **model)
    if hasattr(codec, "encode_spectrogram"):
        command[-1] = str(ROOT / "configs/decoder/smoke.yaml")
        model = {"num_codebooks": codec.num_codebooks, "latent_dim": 8, "channels": 2}
        rest = [*options(folder, "decoder", codec, **model), "--model.codebook_size", "0"]
    assert main([*command, *rest, "--data.prepared", f"[{prepared}]"]) == 0


@KINDS
def test_prior_and_decoder_train_and_a_pipeline_generates(
    kind: str, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec: Any = BUILDERS[kind]()
    codec.save_pretrained(tmp_path / "codec")
    tiny_pipeline().save_pretrained(tmp_path / "text")
    tokens = ["--codec", f"{tmp_path}/codec", "--output", f"{tmp_path}/tokens", "--quiet"]
    assert main(["prepare", "tokens", str(prepared), *tokens]) == 0
    smoke = ["--config", str(ROOT / "configs/prior/smoke.yaml"), "--model.text_width", "16"]
    smoke += options(tmp_path, "prior", codec, num_codebooks=2)
    assert main(["train", "prior", *smoke, "--data.text_encoder", f"{tmp_path}/text"]) == 0
    train_decoder(tmp_path, prepared, codec)
    parts = [w for p in ("prior", "decoder") for w in (f"--{p}", f"{tmp_path}/{p}/model")]
    parts += ["--codec", f"{tmp_path}/codec", "--text-encoder", f"{tmp_path}/text"]
    assert main(["assemble", *parts, "--output", f"{tmp_path}/whole"]) == 0, capsys.readouterr()
    assert main(["info", f"{tmp_path}/whole"]) == 0
    assert "audio: 44100 Hz, 2 channels" in capsys.readouterr().out
    pipeline = Pipeline.from_pretrained(tmp_path / "whole")
    song = pipeline("a tune", LENGTH_S, 1, num_inference_steps=2, ending="cut")
    assert (song.sample_rate, song.audio.shape) == (44100, (1, 2, 22050))
    assert bool(torch.isfinite(song.audio).all())
    assert song.codes.shape[-1] == -(-round(LENGTH_S * 1e6 * codec.frame_rate) // 1_000_000)
    stream = pipeline.stream("a tune", LENGTH_S, 1, num_inference_steps=2)
    assert torch.equal(torch.cat(list(stream), dim=-1), song.audio[0])
    preview = pipeline("a tune", duration_s=LENGTH_S, seed=1, preview=True)
    assert torch.equal(preview.codes, song.codes)
    assert preview.audio.shape == song.audio.shape
    assert not torch.equal(preview.audio, song.audio)
    save_song_tokens(tmp_path / "song.safetensors", song, pipeline.codec)
    source = open_to_edit(pipeline, tmp_path / "song.safetensors")
    assert torch.equal(source.audio, song.audio[0])
    longer = pipeline.extend(source, 0.2, seed=1, num_inference_steps=2)
    assert longer.audio.shape == (1, 2, 30870)
    assert torch.equal(longer.audio[..., :17640], song.audio[..., :17640])
    frames = pipeline.encode(song.audio).shape[-1]
    assert abs(frames - song.codes.shape[-1]) <= 1


@pytest.mark.parametrize(
    ("token_rate", "frames"), [(75.0, 40), (86.13, 41), (12.5, 9), (151.5, 90)]
)
def test_the_spectrogram_does_not_depend_on_how_codes_are_cut(
    token_rate: float, frames: int
) -> None:
    """At any rate of tokens; every token is read, and as many patches come as they last."""
    torch.manual_seed(0)
    decoder = token_decoder(token_rate)
    torch.nn.init.normal_(decoder.patch_out.weight, std=0.05)
    codec: Any = SimpleNamespace(codebook_size=16, frame_rate=token_rate, num_codebooks=3)
    sampler = FlowSampler(codec, decoder, FlowMatchEulerDiscreteScheduler())
    codes = torch.randint(16, (1, 3, frames))
    whole = sampler.decode_spectrogram(codes, [1], 2)
    assert whole.shape == (1, 2, 128, 4 * math.ceil(frames / token_rate * 25))
    for size in (1, 7):
        pieces = list(sampler.stream(codes.split(size, dim=-1), [1], 2))
        assert len(pieces) > 1
        assert torch.equal(torch.cat(pieces, dim=-1), whole)
    for token in (0, frames // 2, frames - 1):
        other = codes.clone()
        other[..., token] = (other[..., token] + 1) % 16
        assert not torch.equal(sampler.decode_spectrogram(other, [1], 2), whole)


def test_a_crop_reads_the_tokens_of_its_time() -> None:
    """Codes that count tokens, resampled, tell the time of the middle of every slot."""
    for token_rate in (75.0, 86.13, 12.5):
        conditioning = TokenConditioning(token_decoder(token_rate))
        codes = torch.arange(200)[None]
        crop, places = conditioning.crop(codes, 20, 8)
        found = torch.lerp(
            crop[0, places.long()].float(),
            crop[0, (places.long() + 1).clamp(max=crop.shape[-1] - 1)].float(),
            places % 1,
        )
        slots = torch.arange(8 * conditioning.slots) + 0.5
        seconds = (20 + slots / conditioning.slots) / 25
        assert torch.allclose(found + 0.5, seconds * token_rate, atol=1e-3)


def token_decoder(token_rate: float, **changes: Any) -> DiffusionDecoder:
    """Two layers, sixteen wide, for three codebooks of sixteen entries."""
    sizes = {"width": 16, "num_layers": 1, "num_heads": 2, "latent_dim": 8, "num_codebooks": 3}
    sizes |= {"window_frames": 12, "overlap_frames": 6, "codebook_size": 16} | changes
    return DiffusionDecoder(**sizes, token_rate=token_rate, detail_std=1.0).eval()


def test_a_decoder_learns_what_embedded_tokens_say(parts: dict[str, str], tmp_path: Path) -> None:
    """On one batch the loss falls, and other clips' tokens then lead astray."""
    sizes = {"num_codebooks": NUM_BOOKS, "codebook_size": CODEBOOK_SIZE, "patch_bands": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = token_decoder(25.0, **sizes | {"width": 64})
    data = DecoderData(
        [parts["prepared"]],
        [parts["tokens"]],
        parts["codec"],
        crop_s=0.64,
        focus_books=NUM_BOOKS,
        focus_share=1.0,
        validation_clips=2,
    )
    task = DecoderTask(decoder, data, settings(tmp_path))
    batch = task.collate([task.dataset[item] for item in range(4)])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    losses = []
    for step in range(120):
        loss, _ = task.loss(decoder, batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    astray, _ = task.loss(decoder, batch._replace(codes=batch.codes.roll(1, dims=0)), 0)
    assert losses[-1] < 0.5 * losses[0]
    assert float(astray.detach()) > 1.5 * losses[-1]


def test_mistakes() -> None:
    codec = tiny_transformers_codec("dac")
    with pytest.raises(ValueError, match="num_codebooks differs: decoder 2, codec 3"):
        choose_conditioning(codec, token_decoder(50.0, num_codebooks=2))
    with pytest.raises(ValueError, match="codebook_size differs: decoder 32, codec 16"):
        choose_conditioning(codec, token_decoder(50.0, codebook_size=32))
    with pytest.raises(ValueError, match=r"token_rate differs: decoder 75.0, codec 50.0"):
        choose_conditioning(codec, token_decoder(75.0))
    with pytest.raises(ValueError, match=r"model.codebook_size=16 and model.token_rate=50.0"):
        choose_conditioning(codec, DiffusionDecoder())
    with pytest.raises(ValueError, match=r"must be positive both or 0 both, got 16 and 0\.0"):
        token_decoder(0.0)
    with pytest.raises(ValueError, match="channels must be 2 with codebook_size, got 1"):
        token_decoder(50.0, channels=1)
