"""Any codec goes all the way: tokens, prior, pipeline; its rates and sizes are followed."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin as Base  # not under the name diffusers seeks
from test_tokens import prepare_clips
from tiny_pipeline import tiny_pipeline, tiny_prior
from tiny_training import metrics

from codec import EncodecCodec
from pipelines import Pipeline
from pipelines.cli import main
from pipelines.data.codecs import load_codec
from pipelines.data.tokens import read_token_info
from prior import Prior

PRIOR = "width: 16, num_layers: 1, num_heads: 2, text_width: 16, depth_width: 16, depth_layers: 1"
"""Fields of a tiny prior, but for the codes."""


class MyCodec(Base, ConfigMixin):
    """A codec of a user's own module: the level of every tenth of a second."""

    sample_rate, channels, frame_rate, num_codebooks, codebook_size = 8000, 1, 10.0, 1, 16

    @register_to_config
    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.top = torch.nn.Parameter(torch.tensor(scale))

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        frames = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % 800)).unfold(-1, 800, 800)
        return (frames.abs().mean(-1) / self.top * 16).long().clamp(0, 15)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return (codes / 16 * self.top).repeat_interleave(800, -1)


@pytest.fixture
def my_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``MyCodec`` a class of the module ``my_codecs``, in which nothing else has a name."""
    module = ModuleType("my_codecs")
    module.MyCodec = MyCodec  # type: ignore[attr-defined]
    monkeypatch.setattr(MyCodec, "__module__", "my_codecs")
    monkeypatch.setitem(sys.modules, "my_codecs", module)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips and two held-out ones, with their audio."""
    return prepare_clips(tmp_path_factory.mktemp("prepared"))


def train(folder: Path, codec: str, size: int, *options: str) -> int:
    """Prepare tokens and train a tiny prior of one codebook for two steps."""
    tiny_pipeline().save_pretrained(folder / "text")
    (folder / "prior.yaml").write_text(
        f"model: {{{PRIOR}, depth_heads: 2, num_codebooks: 1, codebook_size: {size}}}\n"
        f"data: {{tokens: [{folder}/tokens], text_encoder: {folder}/text, validation_clips: 2}}\n"
        f"training: {{output_dir: {folder}/run, steps: 2, batch_size: 2, warmup_steps: 0}}\n"
    )
    config = ["--config", str(folder / "prior.yaml"), "--training.log_every", "1"]
    return main(["train", "prior", *config, "--data.codec", codec, *options])


def assembled(folder: Path, codec: str) -> Pipeline:
    """Assemble, load and return the pipeline."""
    parts = ["--codec", codec, "--prior", f"{folder}/run/model", "--text-encoder", f"{folder}/text"]
    assert main(["assemble", *parts, "--output", f"{folder}/whole"]) == 0
    return Pipeline.from_pretrained(folder / "whole")


def test_encodec_all_the_way(prepared: Path, tmp_path: Path, capsys) -> None:
    EncodecCodec.untrained("24khz", 1.5, num_filters=2).save_pretrained(tmp_path / "codec")
    codec = str(tmp_path / "codec")
    arguments = ["prepare", "tokens", str(prepared), "--codec", codec, "--quiet"]
    assert main([*arguments, "--output", f"{tmp_path}/tokens"]) == 0
    assert train(tmp_path, codec, 1024, "--data.crop_s", "0.2") == 0
    prior = Prior.from_pretrained(tmp_path / "run" / "model")
    assert prior.config.frame_rate == 75
    lines = metrics(tmp_path / "run")
    rates = {round(r["audio_s_per_s"] / r["steps_per_s"], 9) for r in lines if "audio_s_per_s" in r}
    assert rates == {2 * 15 / 75}
    song = assembled(tmp_path, codec)("a tune", duration_s=0.5, seed=1)
    assert song.codes.shape == (1, 1, 38)
    assert song.audio.shape == (1, 1, 12000)
    evaluate = ["--pipeline", f"{tmp_path}/whole", "--tokens", f"{tmp_path}/tokens", "--quiet"]
    assert main(["evaluate", "prior", *evaluate, "--output", f"{tmp_path}/report"]) == 0
    report = json.loads((tmp_path / "report" / "prior.json").read_text())
    frame = report["frame"]["own caption"]
    assert frame["kbps"] == pytest.approx(frame["mean"] * 75 / 1000)
    assert report["seconds"] == pytest.approx(0.8)
    parts = ["--prior", f"{tmp_path}/run/model", "--text-encoder", f"{tmp_path}/text"]
    output = ["--output", f"{tmp_path}/half"]
    assert main(["assemble", *parts, *output, "--codec", codec, "--half"]) == 0
    Pipeline.from_pretrained(tmp_path / "half")  # rounded weights are still the same codec's
    EncodecCodec.untrained("24khz", 1.5, 1, num_filters=2).save_pretrained(tmp_path / "other")
    capsys.readouterr()
    assert main(["assemble", *parts, *output, "--codec", str(tmp_path / "other")]) == 2
    assert "the prior belongs to another codec: it was made with" in capsys.readouterr().err


def test_a_class_of_the_users_own_all_the_way(
    prepared: Path, tmp_path: Path, my_codecs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    MyCodec().save_pretrained(tmp_path / "codec")
    codec = f"my_codecs:MyCodec:{tmp_path}/codec"
    arguments = ["prepare", "tokens", str(prepared), "--codec", codec, "--quiet"]
    assert main([*arguments, "--output", f"{tmp_path}/tokens"]) == 0
    assert read_token_info(tmp_path / "tokens").frame_rate == 10
    assert train(tmp_path, codec, 16) == 0
    pipeline = assembled(tmp_path, codec)
    assert type(pipeline.codec) is MyCodec
    assert pipeline("a tune", duration_s=1, seed=1).audio.shape == (1, 1, 8000)
    assert main(["info", f"{tmp_path}/whole"]) == 0
    assert "tokens: 10 frames a second, 1 codebooks of 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such:MyCodec:{}", "the codec class no_such:MyCodec cannot be loaded"),
        ("my_codecs:Other:{}", "the codec class my_codecs:Other cannot be loaded"),
        ("{}", "class of yours: MODULE:CLASS:FOLDER"),
    ],
)
def test_a_class_that_is_not_there(
    place: str, message: str, tmp_path: Path, my_codecs: None
) -> None:
    MyCodec().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_codec(place.format(tmp_path))


def test_sizes_and_rates_that_are_not_the_tokens(prepared: Path, tmp_path: Path, capsys) -> None:
    EncodecCodec.untrained("24khz", 1.5, num_filters=2).save_pretrained(tmp_path / "codec")
    EncodecCodec.untrained("24khz", 1.5, 1, num_filters=2).save_pretrained(tmp_path / "other")
    arguments = ["prepare", "tokens", str(prepared), "--codec", f"{tmp_path}/codec", "--quiet"]
    assert main([*arguments, "--output", f"{tmp_path}/tokens"]) == 0
    codec = f"{tmp_path}/codec"
    for size, options, message in (
        (512, (), "codebook_size must be the 1024 of the tokens"),
        (2048, (), "codebook_size must be the 1024 of the tokens"),
        (1024, ("--model.num_codebooks", "3"), "num_codebooks must be at most the 2 of the tokens"),
        (1024, ("--model.frame_rate", "50"), "frame_rate must be the 75.0 of the tokens"),
        (1024, ("--data.codec", f"{tmp_path}/other"), "belongs to another codec: it was made with"),
    ):
        assert train(tmp_path, codec, size, *options) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_pipeline_refuses_a_prior_of_another_rate(pipeline_folder: Path) -> None:
    parts = Pipeline.from_pretrained(pipeline_folder).components
    parts["prior"] = tiny_prior(2, 16, reads_plan=True, frame_rate=50.0)
    with pytest.raises(ValueError, match=r"frame_rate differs: prior 50.0, codec 25.0"):
        Pipeline(**parts)


def test_encodec_at_48_khz_fills_the_whole_duration() -> None:
    parts = tiny_pipeline(with_decoder=False).components
    codec = EncodecCodec.untrained("48khz", 3.0, num_filters=2)
    prior = tiny_prior(3, 1024, frame_rate=codec.frame_rate)
    pipeline = Pipeline(**parts | {"codec": codec, "prior": prior, "planner": None})
    assert pipeline("a tune", duration_s=2.5, seed=1).audio.shape == (1, 2, 120_000)
