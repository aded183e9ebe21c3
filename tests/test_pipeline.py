"""The pipeline: saved and loaded whole, an item independent of its batch, clear refusals."""

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipeline import CODEBOOK_SIZE, tiny_codec, tiny_pipeline, tiny_prior

from pipelines import MusicOutput, Pipeline
from pipelines.commands.assemble import assemble
from pipelines.inference.components import DEFAULTS, OPTIONAL, REQUIRED
from pipelines.inference.conditioning import PLAN_PROMPT_TOKENS
from pipelines.inference.text import MAX_TOKENS
from prior import Plan


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, pipeline: Pipeline) -> Path:
    """The same, saved."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(folder)
    return folder


def render(pipeline: Pipeline, prompt: Any = "slow piano", **changes: Any) -> MusicOutput:
    return pipeline(prompt, **({"duration_s": 1.0, "seed": 3, "ending": "cut"} | changes))


def test_loaded_pipeline_makes_the_same_audio(pipeline: Pipeline, saved: Path) -> None:
    loaded = Pipeline.from_pretrained(saved)
    assert torch.equal(render(loaded).audio, render(pipeline).audio)


def test_output_has_the_asked_length_and_says_what_it_is(pipeline: Pipeline) -> None:
    output = render(pipeline, duration_s=0.7123, num_inference_steps=2)
    assert output.audio.shape == (1, 2, round(0.7123 * 44100))
    assert output.codes.shape == (1, 2, 18)
    assert (output.sample_rate, output.seeds, output.decoder_seeds) == (44100, [3], [3])
    assert output.settings["num_inference_steps"] == 2


def test_item_alone_equals_item_in_a_batch(pipeline: Pipeline) -> None:
    batch = render(pipeline, ["fast drums", "slow piano", "a waltz"], seed=[9, 3, 4])
    alone = render(pipeline)
    assert torch.equal(batch.codes[1:2], alone.codes)
    assert torch.allclose(batch.audio[1:2], alone.audio, atol=1e-4)


def test_one_seed_counts_up(pipeline: Pipeline) -> None:
    assert render(pipeline, ["a", "b"], seed=7).seeds == [7, 8]


def test_seed_is_drawn_and_told(pipeline: Pipeline) -> None:
    output = render(pipeline, seed=None)
    again = render(pipeline, seed=output.seeds)
    assert torch.equal(output.audio, again.audio)


def test_decoder_seed_changes_sound_and_not_codes(pipeline: Pipeline) -> None:
    first, second = render(pipeline), render(pipeline, decoder_seed=4)
    assert torch.equal(first.codes, second.codes)
    assert not torch.equal(first.audio, second.audio)


def test_decode_of_codes_equals_the_call(pipeline: Pipeline) -> None:
    output = render(pipeline)
    audio = pipeline.decode(output.codes, output.decoder_seeds)
    assert torch.equal(audio[..., : output.audio.shape[-1]], output.audio)
    preview = pipeline.decode(output.codes, output.decoder_seeds, preview=True)
    assert torch.equal(preview, pipeline.codec.decode(output.codes, seed=3))


def test_pipeline_without_decoder_previews(tmp_path: Path) -> None:
    made = tiny_pipeline(with_decoder=False)
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(tmp_path)
    output = render(Pipeline.from_pretrained(tmp_path))
    assert torch.equal(output.audio, render(made, preview=True).audio)


def test_callback_sees_every_frame_and_interrupt_stops(pipeline: Pipeline) -> None:
    seen: list[tuple[int, float, tuple[int, ...]]] = []

    def watch(pipe: Pipeline, frame: int, time_s: float, tensors: dict[str, Any]) -> None:
        seen.append((frame, time_s, tuple(tensors["codes"].shape)))
        if frame == 4:
            pipe.interrupt()

    output = render(pipeline, callback_on_step_end=watch)
    assert seen == [(index, (index + 1) / 25, (1, 2)) for index in range(5)]
    assert output.codes.shape[-1] == 5
    assert render(pipeline).codes.shape[-1] == 25


def test_negative_prompt_and_guidance_matter(pipeline: Pipeline) -> None:
    plain = render(pipeline, guidance=1.0)
    assert torch.equal(plain.codes, render(pipeline, guidance=1.0, negative_prompt="x").codes)
    guided = render(pipeline, guidance=8.0)
    assert not torch.equal(guided.codes, render(pipeline, guidance=8.0, negative_prompt="x").codes)


def test_save_writes_one_file_per_item(pipeline: Pipeline, tmp_path: Path) -> None:
    render(pipeline, ["a", "b"]).save(tmp_path / "take.flac")
    render(pipeline).save(tmp_path / "song.wav")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"take-0.flac", "take-1.flac", "song.wav"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "prompt must be a text that is not empty"),
        ({"prompt": ["a", "  "]}, r"not empty, got '  ' \(item 1\)"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": "word " * 80}, "at most 64 tokens"),
        ({"duration_s": 0}, r"duration_s must lie in \(0, 20\], got 0"),
        ({"duration_s": -1.0}, "duration_s must lie in"),
        ({"duration_s": float("nan")}, "duration_s must lie in"),
        ({"duration_s": 601}, "duration_s must lie in"),
        ({"num_inference_steps": 0}, r"num_inference_steps must lie in \[1, 16\], got 0"),
        ({"num_inference_steps": 17}, "num_inference_steps must lie in"),
        ({"seed": [1, 2]}, "seed must be one per item, got 2 for 1 items"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_bad_arguments_are_named(pipeline: Pipeline, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(pipeline, **changes)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, 5, dtype=torch.int64), r"codes must be \(B, K, T\)"),
        (torch.zeros(1, 9, 5, dtype=torch.int64), "codes must hold 1 to 4 codebooks"),
        (torch.zeros(1, 2, 5), "codes must be int64"),
        (torch.full((1, 2, 5), 16), r"codes must lie in \[0, 16\)"),
        (torch.zeros(1, 2, 0, dtype=torch.int64), "codes are empty"),
    ],
)
def test_bad_codes_are_named(pipeline: Pipeline, codes: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.decode(codes)


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_null_component_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    change_index(tmp_path, prior=[None, None])
    with pytest.raises(ValueError, match="component 'prior' is null"):
        Pipeline.from_pretrained(tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder, and no hub id"):
        Pipeline.from_pretrained(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"model_index\.json does not exist"):
        Pipeline.from_pretrained(tmp_path)


def test_every_argument_is_a_known_key_of_the_index() -> None:
    arguments = {name for name in inspect.signature(Pipeline.__init__).parameters if name != "self"}
    assert arguments == {*REQUIRED, *OPTIONAL, *DEFAULTS}


def test_truncated_text_encoder_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    weights = tmp_path / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(ValueError, match="text_encoder"):
        Pipeline.from_pretrained(tmp_path)


def test_parts_that_do_not_fit_are_refused(pipeline: Pipeline) -> None:
    parts = {name: getattr(pipeline, name) for name in ("tokenizer", "text_encoder", "prior")}
    with pytest.raises(ValueError, match="the prior writes 2 codebooks, the codec has 1"):
        Pipeline(codec=tiny_codec(num_codebooks=1), **parts)
    with pytest.raises(ValueError, match="latent_dim differs: decoder 8, codec 4"):
        Pipeline(
            codec=tiny_codec(latent_dim=4),
            decoder=pipeline.decoder,
            scheduler=pipeline.scheduler,
            **parts,
        )


def test_assembled_parts_equal_the_pipeline(pipeline, saved, tmp_path):
    parts = [saved / name for name in ("codec", "prior", "decoder", "planner")]
    whole = assemble(tmp_path / "whole", *parts, text_encoder=saved, top_k=8)
    assert torch.equal(render(Pipeline.from_pretrained(whole)).codes, render(pipeline).codes)
    half = assemble(tmp_path / "half", *parts, text_encoder=saved, half_precision=True)
    sizes = [
        (folder / "prior" / "diffusion_pytorch_model.safetensors").stat().st_size
        for folder in (half, whole)
    ]
    assert sizes[0] < 0.7 * sizes[1]
    assert Pipeline.from_pretrained(half).prior.dtype == torch.float32


def test_a_prior_of_before_lends_its_fine_temperature(pipeline, saved, tmp_path, capfd):
    assert Pipeline.from_pretrained(saved).sampling().fine_temperature == 1.0
    shutil.copytree(saved, tmp_path / "old")
    for path, change in (("prior/config.json", 0.4), ("model_index.json", None)):
        config = json.loads((tmp_path / "old" / path).read_text())
        config.pop("fine_temperature", None)
        config |= {"fine_temperature": change} if change else {}
        (tmp_path / "old" / path).write_text(json.dumps(config))
    old = Pipeline.from_pretrained(tmp_path / "old")
    assert "fine_temperature" not in capfd.readouterr().err
    assert old.sampling().fine_temperature == 0.4
    old.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new/model_index.json").read_text())["fine_temperature"] == 0.4
    assembled = assemble(
        tmp_path / "whole", saved / "codec", tmp_path / "old/prior", text_encoder=saved
    )
    assert Pipeline.from_pretrained(assembled).sampling().fine_temperature == 0.4


def test_the_plan_is_returned_and_can_be_given(pipeline: Pipeline) -> None:
    song = render(pipeline, ["slow piano", "a waltz"], seed=[3, 4])
    conditioner = pipeline.conditioner
    alone = conditioner.plan(conditioner.encode(["a waltz"]), "a waltz", 1.0, 4)
    assert song.plans[1] == alone
    again = render(pipeline, ["slow piano", "a waltz"], seed=[3, 4], plan=song.plans)
    assert torch.equal(again.codes, song.codes)
    waltz = Plan(tempo_bpm=180.0, beats_per_bar=3, tonic=7, mode="major")
    other = render(pipeline, ["slow piano", "a waltz"], seed=[3, 4], plan=[None, waltz])
    assert other.plans == [song.plans[0], waltz]
    assert torch.equal(other.codes[0], song.codes[0])
    assert not torch.equal(other.codes[1], song.codes[1])


@pytest.mark.parametrize(
    ("plan", "negative", "said", "away"),
    [
        (
            Plan(100.0, instruments=("oboe", "harp"), drums=True),
            None,
            "oboe, with drums",
            "no drums",
        ),
        (Plan(100.0, tonic=6, mode="minor", drums=False), None, "F# minor, no drums", None),
        (Plan(100.0, instruments=("oboe",)), None, "oboe", None),
        (Plan(100.0), None, None, None),
        (Plan(100.0, drums=True), "drums", None, "drums"),
    ],
)
def test_some_of_a_plan_is_said_in_words(pipeline, plan, negative, said, away):
    conditioner = pipeline.conditioner
    given = conditioner(["slow piano"], [negative], [plan], [0], 0.2, 5)
    texts = [conditioner.encode([text]).text_states for text in ("slow piano", said) if text]
    assert torch.equal(given.condition.text_states, torch.cat(texts, dim=1))
    assert given.condition.text_mask.all()
    assert given.condition.plan is not None
    assert (given.negative is None) == (away is None)
    if given.negative is not None:
        assert torch.equal(given.negative.text_states, conditioner.encode([away]).text_states)


@pytest.mark.parametrize("negative", [None, "drums"])
def test_without_a_planner_the_prompts_alone_are_read(pipeline, negative):
    conditioner = replace(pipeline.conditioner, planner=None)
    given = conditioner(["slow piano"], [negative], [None], [0], 0.2, 5)
    assert torch.equal(given.condition.text_states, conditioner.encode(["slow piano"]).text_states)
    assert given.condition.plan is None
    assert (given.negative is None) == (negative is None)


def test_an_item_without_drums_moves_away_from_nothing_beside_one_with_them(pipeline: Pipeline):
    plans = [Plan(100.0, drums=True), Plan(100.0, drums=False)]
    prompts = ["slow piano", "slow piano"]
    alone = [render(pipeline, ["slow piano"], seed=3, plan=plan, guidance=5.0) for plan in plans]
    both = render(pipeline, prompts, seed=[3, 3], plan=plans, guidance=5.0)
    assert torch.equal(both.codes, torch.cat([song.codes for song in alone]))


def test_the_longest_prompt_has_its_plan_beside_it(pipeline: Pipeline) -> None:
    prompt = " ".join(["a"] * (MAX_TOKENS - 2))
    plan = Plan(100.0, instruments=("pizzicato strings",), drums=True)
    mask = pipeline.conditioner([prompt], [None], [plan], [0], 0.2, 5).condition.text_mask
    assert MAX_TOKENS < mask.sum() <= MAX_TOKENS + PLAN_PROMPT_TOKENS


def test_a_plan_that_cannot_be_followed_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="plan must be one per item, got 2 for 1"):
        render(pipeline, plan=[Plan(100.0), Plan(120.0)])
    parts = {
        name: getattr(pipeline, name)
        for name in ("tokenizer", "text_encoder", "codec", "decoder", "scheduler")
    }
    deaf = Pipeline(prior=tiny_prior(2, CODEBOOK_SIZE), top_k=8, **parts)
    deaf.set_progress_bar_config(disable=True)
    assert render(deaf).plans == [None]
    with pytest.raises(ValueError, match="plan was given, but this pipeline's prior reads none"):
        render(deaf, plan=Plan(100.0))
    with pytest.raises(ValueError, match="a planner needs a prior with reads_plan=true"):
        Pipeline(prior=deaf.prior, planner=pipeline.planner, **parts)
    with pytest.raises(ValueError, match="a planner writes 2 books of 128 codes, got 2 of 16"):
        Pipeline(prior=pipeline.prior, planner=pipeline.prior, **parts)
