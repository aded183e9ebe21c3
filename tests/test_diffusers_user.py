"""What users of diffusers expect of a pipeline: the promises of its own tests, in our words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import DiffusionPipeline
from tiny_pipeline import tiny_pipeline
from torch import Tensor

from pipelines import Pipeline
from pipelines.inference.shipped import SHIPPED

CALL: dict[str, Any] = {"prompt": "a", "duration_s": 0.4, "seed": 0}


def test_output_has_every_form(pipeline: Pipeline) -> None:
    out = pipeline(**CALL)
    assert out[0] is out.audios
    assert out["audios"] is out.audio
    (audios,) = pipeline(**CALL, return_dict=False)
    assert torch.equal(audios, out.audios)
    array = pipeline(**CALL, output_type="np").audios
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, out.audios.numpy())
    latent = pipeline(**CALL, output_type="latent")
    assert torch.equal(latent.audios, out.codes)
    with pytest.raises(ValueError, match="holds codes"):
        latent.save("song.wav")
    with pytest.raises(ValueError, match="output_type must be one of"):
        pipeline(**CALL, output_type="pil")


def test_names_of_diffusers(pipeline: Pipeline) -> None:
    ours = pipeline("a", 0.4, 0, guidance=2.0)
    theirs = pipeline("a", audio_length_in_s=0.4, seed=0, guidance_scale=2.0)
    assert torch.equal(theirs.audios, ours.audios)
    for names in ({"guidance": 2.0, "guidance_scale": 3.0}, {"audio_length_in_s": 1.0}):
        with pytest.raises(ValueError, match="are the same: got"):
            pipeline(**CALL, **names)


def test_batch_equals_single_by_generators(pipeline: Pipeline) -> None:
    """Each item follows from its own generator; one generator gives equal results when equal."""
    pair = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    both = pipeline("a", 0.4, num_waveforms_per_prompt=2, generator=pair)
    assert len(both.audios) == 2
    for row, seed in enumerate((3, 4)):
        alone = pipeline("a", 0.4, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(alone.codes[0], both.codes[row])
    prompts = pipeline(["a", "b"], 0.4, 0, num_waveforms_per_prompt=2)
    assert prompts.settings["prompt"] == ["a", "a", "b", "b"]
    with pytest.raises(ValueError, match="exclude each other"):
        pipeline(**CALL, generator=pair)
    with pytest.raises(ValueError, match="one per item, got 2 for 1"):
        pipeline("a", 0.4, generator=pair)


def test_callback_sees_and_replaces_codes(pipeline: Pipeline) -> None:
    def zeros(pipe: Pipeline, frame: int, time_s: float, tensors: dict[str, Tensor]) -> Any:
        assert set(tensors) == set(pipe._callback_tensor_inputs)
        return {"codes": torch.zeros_like(tensors["codes"])}

    out = pipeline(**CALL, callback_on_step_end=zeros)
    assert int(out.codes.abs().max()) == 0
    with pytest.raises(ValueError, match=r"must be among \['codes'\], got \['latents'\]"):
        pipeline(**CALL, callback_on_step_end_tensor_inputs=["latents"])


class CountingHook(ModelHook):
    """Counts calls as an offloading hook would act on them."""

    calls = 0

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return args, kwargs


def test_offloading_hooks_fire_at_every_entry_point() -> None:
    """Generation, planning, encoding and decoding go past ``forward``, and still onload."""
    pipeline = tiny_pipeline()
    hooks = {name: CountingHook() for name in ("text_encoder", "planner", "prior", "codec")}
    for name, hook in hooks.items():
        add_hook_to_module(getattr(pipeline, name), hook)
    codes = pipeline(**CALL).codes
    assert all(hook.calls for hook in hooks.values()), {n: h.calls for n, h in hooks.items()}
    before = hooks["codec"].calls
    pipeline.encode(pipeline.decode(codes))
    assert hooks["codec"].calls >= before + 2


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the model that ships is not in this checkout")
def test_the_shipped_folder_loads_by_the_base_class(pipeline: Pipeline, tmp_path: Path) -> None:
    """The folder in the repository is as ``save_pretrained`` would write it."""
    loaded = DiffusionPipeline.from_pretrained(SHIPPED, trust_remote_code=True)
    assert isinstance(loaded, Pipeline)
    pipeline.save_pretrained(tmp_path)
    name = "pipeline.py"
    assert (SHIPPED / name).read_text() == (tmp_path / name).read_text()


def test_loads_by_its_base_class_and_keeps_its_card(pipeline: Pipeline, tmp_path: Path) -> None:
    """``DiffusionPipeline`` finds the class with trusted code; a card survives save after save."""
    first, second = tmp_path / "first", tmp_path / "second"
    pipeline.save_pretrained(first)
    assert "library_name: diffusers" in (first / "README.md").read_text()
    (first / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nMusic by somebody.\n")
    loaded = DiffusionPipeline.from_pretrained(first, trust_remote_code=True)
    assert isinstance(loaded, Pipeline)
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(first)
    ours = Pipeline.from_pretrained(first)
    assert torch.equal(ours(**CALL).codes, pipeline(**CALL).codes)
    ours.save_pretrained(second)
    assert "Music by somebody" in (second / "README.md").read_text()
    index = json.loads((second / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "Pipeline"]


@pytest.mark.parametrize("given", [torch.bfloat16, {"prior": torch.bfloat16, "default": None}])
def test_dtype_of_all_or_of_one_component(pipeline_folder: Path, given: Any) -> None:
    """``torch_dtype`` as one dtype, or by component."""
    if isinstance(given, dict):
        given = given | {"default": torch.float32}
    loaded = Pipeline.from_pretrained(pipeline_folder, torch_dtype=given)
    assert loaded.prior.dtype == torch.bfloat16
    if isinstance(given, dict):
        assert loaded.decoder is not None
        assert loaded.decoder.dtype == torch.float32


def test_optional_components(tmp_path: Path) -> None:
    """A pipeline without planner, decoder and scheduler saves, loads and generates."""
    made = tiny_pipeline()
    parts = {n: getattr(made, n) for n in ("tokenizer", "text_encoder", "codec", "prior")}
    small = Pipeline(**parts)
    small.save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path)
    assert loaded.decoder is None
    assert torch.equal(loaded(**CALL).audios, small(**CALL).audios)
