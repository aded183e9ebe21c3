"""MusicGen's language model as a prior: transformers' own codes, in our pipeline."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipeline import tiny_tokenizer
from tiny_transformers_codecs import SETTINGS, tiny_transformers_codec
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    T5Config,
)

from codec.audio_file import read_audio
from pipelines import Pipeline
from pipelines.cli import main
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.musicgen_parts import take_musicgen
from prior.musicgen import MusicgenPrior

FRAMES, RATE = 15, 75
PROMPTS = ["a calm tune", "piano"]
DECODER = {"vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
DECODER |= {"ffn_dim": 32, "num_codebooks": 3, "pad_token_id": 16, "bos_token_id": 16}


def tiny_musicgen(text_width: int = 16, **changes: Any) -> MusicgenForConditionalGeneration:
    """Random weights: a T5 of one layer, an EnCodec of three codebooks of sixteen entries."""
    tokenizer = tiny_tokenizer()
    text = T5Config(
        vocab_size=len(tokenizer), d_model=text_width, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    config = MusicgenConfig(
        text_encoder=text.to_dict(),
        audio_encoder=EncodecConfig(**SETTINGS["encodec"]).to_dict(),
        decoder=DECODER | changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MusicgenForConditionalGeneration(config).eval()
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "audio_encoder" not in name:
                torch.nn.init.normal_(weight, std=0.3)  # to be heard
    codec = tiny_transformers_codec("encodec")
    model.audio_encoder.load_state_dict(codec.model.state_dict())
    model.generation_config.pad_token_id = model.generation_config.bos_token_id = 16
    model.generation_config.decoder_start_token_id = 16
    return model


def own_codes(model: MusicgenForConditionalGeneration, guidance: float) -> torch.Tensor:
    """Let transformers generate, greedily, and catch what it hands to its EnCodec."""
    caught: list[torch.Tensor] = []
    decode = model.audio_encoder.decode

    def catching(audio_codes: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        caught.append(audio_codes[0])
        return decode(audio_codes, *args, **kwargs)

    model.audio_encoder.decode = catching
    inputs = tiny_tokenizer()(PROMPTS, padding=True, return_tensors="pt")
    longer = FRAMES + DECODER["num_codebooks"] - 1
    drawn = random.getstate()
    model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=False,
        guidance_scale=guidance,
        max_new_tokens=longer,
    )
    random.setstate(drawn)
    del model.audio_encoder.decode
    return caught[0]


def tiny_parts(**changes: Any) -> dict[str, Any]:
    return take_musicgen(tiny_musicgen(**changes), tiny_tokenizer())


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("text_width", [16, 32])
def test_codes_are_those_of_transformers(guidance: float, text_width: int) -> None:
    """Greedily, with and without guidance, texts of two lengths in a batch and alone."""
    expected = own_codes(tiny_musicgen(text_width), guidance)
    assert expected.shape == (2, 3, FRAMES)
    assert len(expected.unique()) > 4
    pipeline = Pipeline(**tiny_parts(text_width=text_width))
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"duration_s": FRAMES / RATE, "guidance": guidance, "temperature": 0}
    assert torch.equal(pipeline(PROMPTS, **options).codes, expected)
    alone = pipeline(PROMPTS[1], **options)
    assert torch.equal(alone.codes[0], expected[1])
    assert alone.audio.shape == (1, 1, round(FRAMES / RATE * 24_000))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline."""
    path = tmp_path_factory.mktemp("musicgen")
    Pipeline(**tiny_parts()).save_pretrained(path)
    return path


def test_it_streams_is_saved_and_goes_on(folder: Path) -> None:
    """Streams equal calls, also continued from a state, steered or not; draws differ by frame."""
    pipeline = MusicGenerator.from_pretrained(folder)
    assert isinstance(pipeline.prior, MusicgenPrior)
    pipeline.set_progress_bar_config(disable=True)
    whole = pipeline("a tune", 0.4, seed=3, ending="cut")
    assert torch.equal(whole.codes, Pipeline(**tiny_parts())("a tune", 0.4, seed=3).codes)
    assert torch.equal(torch.cat(list(pipeline.stream("a tune", 0.4, 3)), dim=-1), whole.audio[0])
    broken = pipeline.stream("a tune", 0.4, 3)
    for _ in range(11):
        broken.step()
    rest = pipeline.stream(state=broken.state())
    assert torch.equal(torch.cat(list(rest), dim=-1), whole.audio[0])
    steered = pipeline.stream("a tune", 0.4, 3)
    for _ in range(11):
        steered.step()
    steered.steer("piano")
    list(steered)
    assert torch.equal(steered.codes[..., :11], whole.codes[..., :11])
    assert not torch.equal(steered.codes, whole.codes)
    more = pipeline.extend(whole, 0.1, seed=3, temperature=0.0)
    assert torch.equal(more.codes[..., :30], whole.codes)
    with pytest.raises(ValueError, match="delayed codebooks cannot be replaced"):
        pipeline("a", 0.1, callback_on_step_end=lambda *given: given[-1])


def test_a_continued_piece_equals_the_whole(folder: Path) -> None:
    pipeline = MusicGenerator.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"seed": 3, "temperature": 0.0, "guidance": 1.0}
    short, longer = pipeline("a tune", 0.2, **options), pipeline("a tune", 0.4, **options)
    short.codes[:] = longer.codes[..., : short.codes.shape[-1]]  # the last two columns see the end
    again = pipeline.extend(short, 0.2, **options)
    assert torch.equal(again.codes, longer.codes)


def test_it_renders(folder: Path, tmp_path: Path) -> None:
    row = '{"id": "one", "prompt": "a tune", "duration_s": 0.3, "seed": 1}'
    (tmp_path / "rows.jsonl").write_text(row)
    output = str(tmp_path / "out")
    render = ["render", str(tmp_path / "rows.jsonl"), "--pipeline", str(folder), "--quiet"]
    assert main([*render, "--output", output]) == 0
    assert read_audio(tmp_path / "out" / "one.wav").audio.shape == (1, 7200)


def test_a_saved_musicgen_is_assembled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_musicgen().save_pretrained(tmp_path / "theirs")
    tiny_tokenizer().save_pretrained(tmp_path / "theirs")
    output = ["--output", str(tmp_path / "ours")]
    assert main(["assemble", "--musicgen", str(tmp_path / "theirs"), *output]) == 0
    made = Pipeline.from_pretrained(tmp_path / "ours")
    made.set_progress_bar_config(disable=True)
    expected = own_codes(tiny_musicgen(), 3.0)
    assert torch.equal(made(PROMPTS, FRAMES / RATE, temperature=0).codes, expected)
    assert main(["info", str(tmp_path / "ours")]) == 0
    said = capsys.readouterr().out
    assert "prior: MusicgenPrior" in said
    assert "audio: 24000 Hz, 1 channels" in said
    assert main(["assemble", *output]) == 2
    assert "--codec and --prior, or --musicgen" in capsys.readouterr().err


def test_mistakes() -> None:
    stereo = MusicgenForCausalLM(tiny_musicgen().decoder.config)
    stereo.config.audio_channels = 2
    with pytest.raises(ValueError, match="a stereo MusicGen"):
        MusicgenPrior.from_transformers(stereo)
    with pytest.raises(FileNotFoundError, match="MusicGen nobody/nothing cannot be loaded"):
        take_musicgen("nobody/nothing")
