"""Loading is strict: whatever does not fit is named, and no pickle is ever opened."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_codec import tiny_codec

from codec.component import WEIGHTS_NAME
from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder


@pytest.fixture
def folder(tmp_path) -> Path:
    tiny_codec().save_pretrained(tmp_path)
    return tmp_path


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_NAME)


def change_config(folder: Path, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_is_saved_is_what_loads(folder):
    original, loaded = tiny_codec(), SpectralCodec.from_pretrained(folder)
    assert not loaded.training
    assert dict(loaded.config) == dict(loaded.config) | {
        key: value for key, value in original.config.items() if not key.startswith("_")
    }
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_copy_does_not_say_where_it_was_loaded_from(folder, tmp_path):
    SpectralCodec.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    saved, copied = (
        path.joinpath("config.json").read_text() for path in (folder, tmp_path / "copy")
    )
    assert copied == saved


def test_a_subfolder(folder, tmp_path):
    tiny_codec().save_pretrained(tmp_path / "pipeline" / "codec")
    loaded = SpectralCodec.from_pretrained(tmp_path / "pipeline", subfolder="codec")
    assert loaded.num_codebooks == 3


def test_a_missing_tensor(folder):
    change_tensors(folder, lambda tensors: tensors.pop("patch_in.bias"))
    with pytest.raises(ValueError, match=r"safetensors lacks the tensor 'patch_in\.bias'$"):
        SpectralCodec.from_pretrained(folder)


def test_several_missing_tensors(folder):
    change_tensors(
        folder, lambda tensors: [tensors.pop(f"patch_in.{x}") for x in ("bias", "weight")]
    )
    with pytest.raises(ValueError, match=r"lacks the tensor 'patch_in\.bias' and 1 more"):
        SpectralCodec.from_pretrained(folder)


def test_an_extra_tensor(folder):
    change_tensors(folder, lambda tensors: tensors.update(stowaway=torch.zeros(1)))
    with pytest.raises(ValueError, match="holds an unknown tensor 'stowaway'"):
        SpectralCodec.from_pretrained(folder)


def test_a_tensor_of_another_shape(folder):
    change_tensors(folder, lambda tensors: tensors.update({"patch_in.bias": torch.zeros(5)}))
    with pytest.raises(ValueError, match=r"'patch_in\.bias' must be \(32,\), got \(5,\)"):
        SpectralCodec.from_pretrained(folder)


def test_an_unknown_key(folder):
    change_config(folder, color="red")
    with pytest.raises(ValueError, match=r"unknown key 'color'; SpectralCodec knows"):
        SpectralCodec.from_pretrained(folder)


def test_a_missing_key(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["spectrogram_mean"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json lacks the key 'spectrogram_mean'"):
        SpectralCodec.from_pretrained(folder)


@pytest.mark.parametrize("value", ["wide", 32.5, None, True, [32]])
def test_a_value_of_the_wrong_type(folder, value):
    change_config(folder, width=value)
    with pytest.raises(ValueError, match=r"config\.json: width must be int, got "):
        SpectralCodec.from_pretrained(folder)


def test_a_whole_number_is_a_float(folder):
    change_config(folder, spectrogram_mean=-5)
    assert SpectralCodec.from_pretrained(folder).config.spectrogram_mean == -5


def test_a_value_the_class_refuses(folder):
    change_config(folder, kernel_size=4)
    with pytest.raises(ValueError, match="kernel_size must be odd and positive, got 4"):
        SpectralCodec.from_pretrained(folder)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"codec"', "null"])
def test_a_config_that_is_no_object(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is not (JSON|a JSON object)"):
        SpectralCodec.from_pretrained(folder)


def test_a_config_of_bytes(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe\x00 codec")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        SpectralCodec.from_pretrained(folder)


@pytest.mark.parametrize("size", [0, 4, 100, 3000])
def test_a_truncated_file(folder, size):
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        SpectralCodec.from_pretrained(folder)


def test_a_file_that_lacks_its_last_byte(folder):
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        SpectralCodec.from_pretrained(folder)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_place_of_safetensors_stays_closed(folder):
    sprung = folder / "sprung"
    trap = pickle.dumps(Trap(sprung))
    pickle.loads(trap)
    assert sprung.exists()  # the trap works
    sprung.unlink()
    (folder / WEIGHTS_NAME).write_bytes(trap)
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        SpectralCodec.from_pretrained(folder)
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "pytorch_model.bin"])
def test_a_pickle_beside_nothing_stays_closed(folder, name):
    sprung = folder / "sprung"
    (folder / WEIGHTS_NAME).unlink()
    torch.save({"trap": Trap(sprung)}, folder / name)
    with pytest.raises(FileNotFoundError, match=rf"{name} is a pickle and is never loaded"):
        SpectralCodec.from_pretrained(folder, use_safetensors=False)
    assert not sprung.exists()


def test_missing_files(folder):
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(FileNotFoundError, match=f"{WEIGHTS_NAME} does not exist$"):
        SpectralCodec.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist: not a saved"):
        SpectralCodec.from_pretrained(folder)


def test_a_folder_of_another_class(folder):
    with pytest.raises(ValueError, match="DiffusionDecoder knows"):
        DiffusionDecoder.from_pretrained(folder)


def test_half_precision_loads_as_float32(tmp_path):
    original = tiny_codec()
    tiny_codec().half().save_pretrained(tmp_path)
    assert load_file(tmp_path / WEIGHTS_NAME)["patch_in.weight"].dtype == torch.float16
    loaded = SpectralCodec.from_pretrained(tmp_path)
    assert loaded.quantizer.is_initialized
    for name, value in original.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == value.dtype, name
        assert torch.allclose(found.float(), value.float(), rtol=1e-3, atol=1e-4), name
    assert loaded.log_mel.window.dtype == torch.float32
    assert torch.equal(loaded.log_mel.filterbank, original.log_mel.filterbank)


def test_another_precision_when_asked_for(folder):
    loaded = SpectralCodec.from_pretrained(folder, torch_dtype=torch.bfloat16)
    assert loaded.patch_in.weight.dtype == torch.bfloat16
