"""Provenance in the files' own tags: every format, any prompt, and not a sample changed."""

import json
import re
import shutil
import subprocess
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.audio_file import read_audio, write_audio
from codec.seeds import generator
from pipelines.rendering.tags import Provenance, provenance_tags, read_provenance

FORMATS = ("wav", "flac", "ogg", "opus")
PROVENANCE = Provenance(
    generator="partita 0.1.0",
    pipeline="partita-tiny",
    pipeline_hash="b2" * 32,
    prompt='Größe, 音楽 & "<b>" \n C:\\x',
    negative_prompt="drums",
    seed=2**63 - 1,
    decoder_seed=7,
    settings={"duration_s": 1.5, "top_p": None, "format": "wav"},
    license="Apache-2.0",
)


def noise(samples: int = 24000) -> torch.Tensor:
    return 0.5 * torch.rand(2, samples, generator=generator(0, "noise")) - 0.25


@pytest.fixture(autouse=True)
def strict():
    """No tag may be lost, which write_audio would say in a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("suffix", FORMATS)
def test_provenance_comes_back_and_the_samples_stay(tmp_path, suffix):
    tagged, plain = tmp_path / f"tagged.{suffix}", tmp_path / f"plain.{suffix}"
    write_audio(tagged, noise(), 48000, tags=provenance_tags(PROVENANCE, suffix))
    write_audio(plain, noise(), 48000)
    assert read_provenance(tagged) == PROVENANCE
    assert read_provenance(plain) is None
    assert torch.equal(read_audio(tagged).audio, read_audio(plain).audio)


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.text(min_size=1, max_size=150),
    negative=st.none() | st.text(st.characters(), max_size=50),
    suffix=st.sampled_from(FORMATS),
)
def test_any_prompt_comes_back(tmp_path_factory, prompt, negative, suffix):
    provenance = replace(PROVENANCE, prompt=prompt, negative_prompt=negative)
    path = tmp_path_factory.mktemp("any") / f"x.{suffix}"
    write_audio(path, noise(100), 48000, tags=provenance_tags(provenance, suffix))
    assert read_provenance(path) == provenance


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("length", [1500, 1501, 8000])
def test_a_long_prompt_comes_back(tmp_path, suffix, length):
    provenance = replace(PROVENANCE, prompt="x" * length)
    write_audio(tmp_path / f"x.{suffix}", noise(), 48000, tags=provenance_tags(provenance, suffix))
    assert read_provenance(tmp_path / f"x.{suffix}") == provenance


def test_people_read_title_and_license_too():
    tags = provenance_tags(PROVENANCE, "flac")
    assert tags["title"] == 'Größe, 音楽 & "<b>" C:\\x'
    license = "weights of the model: Apache-2.0"  # and not of the sound
    assert (tags["license"], tags["artist"]) == (license, "partita-tiny")
    assert provenance_tags(PROVENANCE, "wav")["copyright"] == "weights of the model: Apache-2.0"
    unknown = replace(PROVENANCE, license="")
    assert not {"license", "copyright"} & provenance_tags(unknown, "flac").keys()


@pytest.mark.parametrize("comment", ["a song", "[1]", "{}", json.dumps({"prompt": "x"})])
def test_a_stranger_s_comment_is_no_provenance(tmp_path, comment):
    write_audio(tmp_path / "x.flac", noise(), 48000, tags={"comment": comment})
    assert read_provenance(tmp_path / "x.flac") is None


def test_what_is_not_audio_is_named(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"no audio at all")
    with pytest.raises(ValueError, match=r"x\.wav is not audio: "):
        read_provenance(tmp_path / "x.wav")
    with pytest.raises(FileNotFoundError):
        read_provenance(tmp_path / "y.wav")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="apt install ffmpeg")
@pytest.mark.parametrize("suffix", FORMATS)
def test_other_programs_read_the_tags(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    write_audio(path, noise(), 48000, tags=provenance_tags(PROVENANCE, suffix))
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", str(path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    tags = found["format"].get("tags", {}) | found["streams"][0].get("tags", {})
    tags = {name.lower(): text for name, text in tags.items()}
    assert tags["title"] == 'Größe, 音楽 & "<b>" C:\\x'
    assert tags["copyright" if suffix == "wav" else "license"] == "weights of the model: Apache-2.0"
    assert json.loads(re.sub(r"^\s+", "", tags["comment"]))["seed"] == 2**63 - 1
