"""Token files: what is written comes back, small and the same in every byte."""

from pathlib import Path

import pytest
import torch
from tiny_pipeline import tiny_codec

from pipelines.inference import token_file
from pipelines.inference.token_file import check_tokens, describe_codes, load_tokens, save_tokens


def test_a_token_file_comes_back_as_it_was(tmp_path: Path):
    codec = tiny_codec()
    tokens = describe_codes(
        torch.randint(0, 16, (4, 9)),
        codec,
        15_000,
        prompt='a "slow" piano, Übung',
        seed=2**40,
        decoder_seed=5,
        settings={"guidance": 3.0, "num_inference_steps": 2},
    )
    save_tokens(tmp_path / "t.safetensors", tokens)
    again = load_tokens(tmp_path / "t.safetensors")
    assert torch.equal(again.codes, tokens.codes)
    assert {name: getattr(again, name) for name in token_file.FACTS} == {
        name: getattr(tokens, name) for name in token_file.FACTS
    }
    check_tokens(again, codec, "t.safetensors")


@pytest.mark.parametrize(("largest", "size"), [(2**15 - 1, 2), (2**15, 4)])
def test_codes_are_stored_as_small_as_they_fit(tmp_path: Path, largest: int, size: int):
    path = tmp_path / "t.safetensors"
    save_tokens(path, describe_codes(torch.full((2, 1000), largest), tiny_codec(), 1000))
    assert 2000 * size < path.stat().st_size < 2000 * size + 1000
    assert int(load_tokens(path).codes.max()) == largest


def test_equal_tokens_are_equal_bytes(tmp_path: Path):
    """safetensors orders its metadata anew at every call."""
    tokens = describe_codes(torch.arange(12).view(2, 6), tiny_codec(), 2000, prompt="ä")
    paths = [tmp_path / f"{index}.safetensors" for index in range(5)]
    for path in paths:
        save_tokens(path, tokens)
    assert len({path.read_bytes() for path in paths}) == 1
    assert torch.equal(load_tokens(paths[0]).codes, tokens.codes)
