"""What diffusers' PipelineTesterMixin and MemoryTesterMixin promise of a pipeline, one test each.

``PROMISES`` lists their tests (of October 2026) with the test of ours that keeps the promise, or
with the reason why there is none.
"""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import test_diffusers_user
import torch
from diffusers import DiffusionPipeline
from diffusers.hooks import apply_layerwise_casting
from tiny_pipeline import tiny_pipeline

from pipelines import Pipeline
from pipelines.inference.music_generator import MusicGenerator

CALL: dict[str, Any] = {"prompt": "a", "duration_s": 0.4, "seed": 0}
CPU = torch.device("cpu")
PROMISES = {
    "save_load_local": "test_saved_and_loaded_it_is_the_same",
    "save_load_optional_components": "test_optional_components",
    "save_load_float16": "test_half_precision_is_for_files",
    "serialization_with_variants": "test_variants",
    "loading_with_variants": "test_variants",
    "loading_with_incorrect_variants_raises_error": "test_variants",
    "pipeline_call_signature": "test_call_signature",
    "components_function": "test_components_make_the_same_pipeline",
    "inference_batch_consistent": "test_batch_equals_single_by_generators",
    "inference_batch_single_identical": "test_batch_equals_single_by_generators",
    "dict_tuple_outputs_equivalent": "test_output_has_every_form",
    "num_images_per_prompt": "test_batch_equals_single_by_generators",
    "to_device": "test_to_device_and_dtype",
    "to_dtype": "test_to_device_and_dtype",
    "half_precision_inference_no_nan": "test_half_precision_is_for_files",
    "torch_dtype_dict": "test_dtype_of_all_or_of_one_component",
    "attention_slicing_forward_pass": "test_attention_slicing_changes_nothing",
    "cfg": "test_guidance_changes_no_shape",
    "callback_inputs": "test_callback_sees_and_replaces_codes",
    "callback_cfg": "reason: a call's guidance is fixed; what a stream reads is changed by steer()",
    "encode_prompt_works_in_isolation": "reason: no encode_prompt; the texts of a call's plans are "
    "encoded with its prompts, so there is nothing to hand in",
    "sequential_cpu_offload_forward_pass": "reason: codec, planner and prior stay on the device, "
    "whose steps go past forward; the rest needs a GPU",
    "sequential_offload_forward_pass_twice": "reason: as sequential_cpu_offload_forward_pass",
    "model_cpu_offload_forward_pass": "test_offloading_hooks_fire_at_every_entry_point",
    "cpu_offload_forward_pass_twice": "test_offloading_hooks_fire_in_every_call",
    "pipeline_with_accelerator_device_map": "test_device_map_is_refused_in_one_line",
    "layerwise_casting_inference": "test_layerwise_casting_of_the_decoder",
    "group_offloading_inference": "test_group_offloading_of_the_decoder",
    "pipeline_level_group_offloading_sanity_checks": "test_group_offloading_of_the_decoder",
    "pipeline_level_group_offloading_inference": "test_group_offloading_of_the_decoder",
    "from_pipe_consistent_config": "test_made_from_another_pipeline",
    "from_pipe_consistent_forward_pass": "test_made_from_another_pipeline",
    "progress_bar": "test_progress_bar",
}


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_is_kept_or_has_a_reason(promise: str) -> None:
    kept = PROMISES[promise]
    if kept.startswith("reason: "):
        pytest.skip(kept)
    assert kept in globals() or hasattr(test_diffusers_user, kept)


def test_saved_and_loaded_it_is_the_same(pipeline: Pipeline, tmp_path: Path) -> None:
    expected = pipeline(**CALL)
    pipeline.save_pretrained(tmp_path)
    assert torch.equal(Pipeline.from_pretrained(tmp_path)(**CALL).audios, expected.audios)
    assert torch.equal(pipeline(**CALL).audios, expected.audios)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_for_files(dtype: torch.dtype, tmp_path: Path) -> None:
    """A half precision pipeline saves and loads; codec and decoder compute in float32 alone."""
    half = tiny_pipeline().to(dtype=dtype)
    with pytest.raises(ValueError, match=r"computes in torch.float32, the codec is"):
        half(**CALL)
    half.save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path)
    assert loaded.prior.dtype == torch.float32
    audio = loaded(**CALL).audios
    assert bool(torch.isfinite(audio).all())
    again = Pipeline.from_pretrained(tmp_path, torch_dtype={"prior": dtype, "default": None})
    assert again.prior.dtype == dtype
    assert bool(torch.isfinite(again(**CALL).audios).all())


def test_variants(pipeline: Pipeline, tmp_path: Path) -> None:
    """``variant`` names weights files, and is needed to load them."""
    pipeline.save_pretrained(tmp_path, variant="fp16")
    names = [path.name for path in tmp_path.rglob("*.safetensors")]
    assert len(names) == 5
    assert all(name.endswith(".fp16.safetensors") for name in names)
    loaded = Pipeline.from_pretrained(tmp_path, variant="fp16")
    assert torch.equal(loaded(**CALL).audios, pipeline(**CALL).audios)
    quick = MusicGenerator.from_pretrained(tmp_path, variant="fp16")
    assert torch.equal(quick(**CALL).codes, pipeline(**CALL).codes)
    for options in ({}, {"variant": "other"}):
        with pytest.raises((OSError, ValueError), match="safetensors"):
            Pipeline.from_pretrained(tmp_path, **options)


def test_call_signature() -> None:
    found = inspect.signature(Pipeline.__call__).parameters
    assert found["prompt"].default is inspect.Parameter.empty
    optional = ["negative_prompt", "audio_length_in_s", "num_inference_steps", "guidance_scale"]
    optional += ["num_waveforms_per_prompt", "generator", "output_type", "return_dict"]
    optional += ["callback_on_step_end", "callback_on_step_end_tensor_inputs"]
    assert all(found[name].default is not inspect.Parameter.empty for name in optional)


def test_components_make_the_same_pipeline(pipeline: Pipeline) -> None:
    again = Pipeline(**pipeline.components)
    again.set_progress_bar_config(disable=True)
    assert again.components.keys() == pipeline.components.keys()
    assert torch.equal(again(**CALL).audios, pipeline(**CALL).audios)


def test_to_device_and_dtype() -> None:
    made = tiny_pipeline()
    modules = [part for part in made.components.values() if isinstance(part, torch.nn.Module)]
    made.to("cpu")
    assert {part.device.type for part in modules} == {"cpu"}
    for dtype in (torch.float16, torch.float32):
        made.to(dtype=dtype)
        assert {part.dtype for part in modules} == {dtype}
    made.to("meta")
    assert {part.device.type for part in modules} == {"meta"}


def test_attention_slicing_changes_nothing(pipeline: Pipeline) -> None:
    expected = pipeline(**CALL).audios
    for size in ("max", 1):
        pipeline.enable_attention_slicing(size)
        assert torch.equal(pipeline(**CALL).audios, expected)
    pipeline.disable_attention_slicing()


def test_guidance_changes_no_shape(pipeline: Pipeline) -> None:
    without, much = (pipeline(**CALL, guidance_scale=scale).audios for scale in (1.0, 7.5))
    assert without.shape == much.shape
    assert not torch.equal(without, much)


def test_offloading_hooks_fire_in_every_call() -> None:
    """A second call onloads as the first did, and gives the same."""
    made = tiny_pipeline()
    made.set_progress_bar_config(disable=True)
    hook = test_diffusers_user.CountingHook()
    test_diffusers_user.add_hook_to_module(made.prior, hook)
    first = made(**CALL).audios
    calls = hook.calls
    assert torch.equal(made(**CALL).audios, first)
    assert hook.calls == 2 * calls > 0


def test_device_map_is_refused_in_one_line(pipeline_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^from_pretrained takes no device_map: .*$"):
        Pipeline.from_pretrained(pipeline_folder, device_map="balanced")


def test_layerwise_casting_of_the_decoder(pipeline: Pipeline) -> None:
    """Weights that are kept in bfloat16 and cast where they are used paint nearly the same."""
    made = tiny_pipeline()
    codes = pipeline(**CALL).codes
    assert made.decoder is not None
    apply_layerwise_casting(made.decoder, torch.bfloat16, torch.float32)
    assert made.decoder.patch_in.weight.dtype == torch.bfloat16
    made.check_dtype = lambda: None  # type: ignore[method-assign]
    cast, expected = made.decode(codes), pipeline.decode(codes)
    assert cast.shape == expected.shape
    assert not torch.equal(cast, expected)


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_group_offloading_of_the_decoder(kind: str, pipeline: Pipeline) -> None:
    made = tiny_pipeline()
    made.set_progress_bar_config(disable=True)
    keep = ["text_encoder", "planner", "prior", "codec"]
    options: dict[str, Any] = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    made.enable_group_offload(CPU, CPU, kind, exclude_modules=keep, **options)
    assert torch.equal(made(**CALL).audios, pipeline(**CALL).audios)


def test_made_from_another_pipeline(pipeline: Pipeline) -> None:
    made = Pipeline.from_pipe(pipeline)
    made.set_progress_bar_config(disable=True)
    assert isinstance(made, DiffusionPipeline)
    assert torch.equal(made(**CALL).audios, pipeline(**CALL).audios)


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    made = tiny_pipeline()
    made(**CALL)
    steps = re.findall(r"(\d+)/(\d+) ", capsys.readouterr().err)
    assert steps[-1] == ("10", "10")
    made.set_progress_bar_config(disable=True)
    made(**CALL)
    assert capsys.readouterr().err == ""
