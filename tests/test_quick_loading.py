"""Commands load a saved pipeline without diffusers and transformers, and make the same of it."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest
import torch
from tiny_codec import tiny_codec
from transformers import BertConfig, BertModel

from codec import SpectralCodec
from codec.quantizer import ResidualQuantizer
from pipelines import Pipeline
from pipelines.inference.bert import BertModel as Encoder
from pipelines.inference.bert import WordPieceTokenizer, load_text_parts
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.shipped import SHIPPED
from pipelines.inference.text import encode_text, load_text_encoder
from pipelines.rendering.origin import hash_pipeline

HEAVY = (
    *("transformers", "diffusers", "accelerate", "peft", "scipy", "sympy", "torch._dynamo"),
    *("matplotlib", "pyarrow", "datasets", "pandas", "vector_quantize_pytorch", "encodec"),
)
PROMPTS = ["calm piano", "", "Slow Sad Café waltz, 70 bpm!", "drum & bass ♯♭ 語", "a " * 40]


def load_both(folder: Path) -> tuple[MusicGenerator, Pipeline]:
    """Load a pipeline without and with diffusers."""
    quick, whole = MusicGenerator.from_pretrained(folder), Pipeline.from_pretrained(folder)
    for made in (quick, whole):
        made.set_progress_bar_config(disable=True)
    return quick, whole


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["info", str(SHIPPED)],
        ["plan", "calm piano"],
        ["generate", "calm piano", "--duration", "0.2", "--output", "song.wav"],
        ["generate", "calm piano", "--duration", "0.2", "--stdout", "f32", "--lora", "lora"],
    ],
    ids=" ".join,
)
def test_a_command_imports_no_more_than_it_needs(command: list[str], tmp_path: Path) -> None:
    if "lora" in command:
        layers = {"first_head.lora_A.weight": torch.zeros(1, 320)}
        layers |= {"first_head.lora_B.weight": torch.zeros(1025, 1)}
        MusicGenerator.save_lora_weights(tmp_path / "lora", layers)
    program = (
        "import os, sys; from pipelines.cli import main; status = main(sys.argv[1:]); "
        f"found = [name for name in {HEAVY} if name in sys.modules]; "
        "print(*found, file=sys.stderr); sys.stdout.flush(); os._exit(status or 3 * bool(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_it_makes_what_a_pipeline_makes(pipeline_folder: Path) -> None:
    quick, whole = load_both(pipeline_folder)
    assert isinstance(quick.text_encoder, Encoder)
    song, same = (made(["a b", "c"], 0.5, 3, ending="fade") for made in (quick, whole))
    assert torch.equal(song.audio, same.audio)
    assert torch.equal(song.codes, same.codes)
    assert song.plans == same.plans
    assert hash_pipeline(quick) == hash_pipeline(whole)
    assert dict(quick.config) == {k: whole.config[k] for k in quick.config}
    longer = [made.extend(song.item(0), 0.5, seed=1).audio for made in (quick, whole)]
    assert torch.equal(*longer)


def test_a_stream_goes_on_with_the_other(pipeline_folder: Path) -> None:
    quick, whole = load_both(pipeline_folder)
    stream = quick.stream("a", 1.0, 3, chunk_s=0.25)
    first = next(stream)
    rest = list(whole.stream(state=stream.state(), chunk_s=0.25))
    expected = torch.cat(list(whole.stream("a", 1.0, 3)), dim=-1)
    assert torch.equal(torch.cat([first, *rest], dim=-1), expected)


@pytest.mark.parametrize("name", ["shipped", "tiny"])
def test_text_states_are_those_of_transformers(name: str, pipeline_folder: Path) -> None:
    folder = SHIPPED if name == "shipped" else pipeline_folder
    quick, whole = load_text_parts(folder), load_text_encoder(folder)
    assert isinstance(quick[0], WordPieceTokenizer)
    assert quick[0].get_vocab() == whole[0].get_vocab()
    assert quick[0](PROMPTS[2])["input_ids"] == whole[0](PROMPTS[2])["input_ids"]
    for texts in ([text] for text in PROMPTS):
        found, expected = (encode_text(*parts, texts, 128) for parts in (quick, whole))
        assert torch.equal(found.text_states, expected.text_states)
        assert torch.equal(found.text_mask, expected.text_mask)
    found, expected = (encode_text(*parts, PROMPTS, 128) for parts in (quick, whole))
    assert torch.equal(found.text_states[found.text_mask], expected.text_states[found.text_mask])
    assert quick[1].state_dict().keys() == whole[1].state_dict().keys()


def test_another_text_encoder_is_transformers_own(pipeline_folder: Path, tmp_path: Path) -> None:
    copytree(pipeline_folder / "tokenizer", tmp_path / "tokenizer")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=56, intermediate_size=32, hidden_act="relu", **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "text_encoder")
    _, encoder = load_text_parts(tmp_path)
    assert isinstance(encoder, BertModel)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def change_class(path: Path) -> None:
    path.write_text(path.read_text().replace("FlowMatchEulerDiscrete", "DDIM"))


def shift(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shift": 3.0}))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model_index.json", cut),
        ("model_index.json", change_class),
        ("prior/config.json", Path.unlink),
        ("codec/diffusion_pytorch_model.safetensors", cut),
        ("decoder/diffusion_pytorch_model.safetensors", Path.unlink),
        ("text_encoder/model.safetensors", cut),
        ("text_encoder/config.json", cut),
        ("tokenizer/tokenizer.json", cut),
        ("scheduler/scheduler_config.json", cut),
        ("scheduler/scheduler_config.json", Path.unlink),
        ("scheduler/scheduler_config.json", shift),
    ],
)
def test_a_damaged_folder_is_refused_alike(file, damage, pipeline_folder, tmp_path):
    folder = copytree(pipeline_folder, tmp_path / "p")
    damage(folder / file)
    said = []
    for kind in (MusicGenerator, Pipeline):
        with pytest.raises((ValueError, OSError)) as error:
            kind.from_pretrained(folder)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "scheduler" in said[0] or file.split("/")[0] in said[0]


def test_a_component_may_be_saved_where_it_was_loaded_from(tmp_path: Path) -> None:
    original = tiny_codec()
    original.save_pretrained(tmp_path)
    for _ in range(2):
        SpectralCodec.from_pretrained(tmp_path).save_pretrained(tmp_path)
    loaded = SpectralCodec.from_pretrained(tmp_path)
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_codebooks_stay_the_same_tensors_when_training_begins() -> None:
    """Whoever holds them before the first step (an average, another process) sees them change."""
    quantizer = ResidualQuantizer(4, 2, 8)
    before, names = list(quantizer.buffers()), list(quantizer.state_dict())
    quantizer.initialize(torch.randn(32, 4))
    assert list(quantizer.state_dict()) == names
    after = {id(buffer) for buffer in quantizer.buffers()}
    assert all(id(buffer) in after for buffer in before)
