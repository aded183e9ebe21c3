"""The ladder of notes: the prior's own trainer on a note cache, and what it then writes."""

from pathlib import Path

import pytest
import torch
from tiny_notes import write_midi_folder
from tiny_pipeline import TEXT_WIDTH
from tiny_training import metrics, settings

from pipelines.cli import main
from pipelines.commands.notes import write_notes
from pipelines.data.midi_file import read_midi
from pipelines.data.notes.note_cache import build_note_cache
from pipelines.data.notes.note_tokenizer import NoteTokenizer
from pipelines.train_prior import train_prior
from pipelines.training.prior_data import PriorData, TokenClips
from prior import Condition, Prior, Sampling

pytest.importorskip("miditok")

KINDS = {
    "plain": {"backbone": "lstm-plain", "num_layers": 1, "num_codebooks": 5},
    "improved": {"backbone": "lstm", "num_layers": 2, "num_codebooks": 6},
    "transformer": {"backbone": "transformer", "num_layers": 2, "num_codebooks": 6},
}


def small_prior(kind: str) -> Prior:
    torch.manual_seed(0)
    sizes = {"width": 32, "num_heads": 2, "depth_width": 32, "depth_layers": 1, "depth_heads": 2}
    return Prior(
        codebook_size=256, text_width=TEXT_WIDTH, frame_rate=None, **(sizes | KINDS[kind])
    ).eval()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes")
    midi = write_midi_folder(folder / "midi", 4)
    build_note_cache(midi, NoteTokenizer(), folder / "cache", quiet=True)
    return folder / "cache"


def data_of(cache: Path, pipeline_folder: Path) -> PriorData:
    return PriorData(
        [str(cache)],
        str(pipeline_folder),
        str(cache / "codec"),
        crop_frames=48,
        depth_share=1.0,
        validation_clips=1,
    )


def train_small(kind: str, cache: Path, pipeline_folder: Path, folder: Path) -> Path:
    """25 steps; returns the folder of the trained prior."""
    training = settings(folder, steps=25, batch_size=4, learning_rate=1e-2, validate_every=25)
    return train_prior(small_prior(kind), data_of(cache, pipeline_folder), training)


@pytest.mark.filterwarnings("ignore:.* stand for no note", "ignore:.* pitched tracks share")
@pytest.mark.parametrize("kind", KINDS)
def test_the_priors_trainer_learns_notes(kind, cache, pipeline_folder, tmp_path):
    folder = train_small(kind, cache, pipeline_folder, tmp_path / "run")
    lines = metrics(tmp_path / "run")
    found = [line["loss"] for line in lines if "loss" in line]
    assert found[0] > 5.0  # log 256 is 5.5
    assert found[-1] < 3.5
    assert not any("audio_s_per_s" in line for line in lines)
    (sample,) = (tmp_path / "run/samples").rglob("sample.mid")
    read_midi(sample)
    loaded = Prior.from_pretrained(folder)
    assert loaded.config.frame_rate is None
    assert loaded.num_codebooks == KINDS[kind]["num_codebooks"]


def test_crops_count_frames(cache, pipeline_folder):
    data = data_of(cache, pipeline_folder)
    item = TokenClips(data, 5, False, "train", seed=0)[3]
    assert item.codes.shape == (5, 48)
    with pytest.raises(ValueError, match="crop_frames must be at least 2, got 1"):
        PriorData([], crop_frames=1)


@pytest.mark.parametrize("kind", KINDS)
def test_writing_stops_when_the_time_is_up(kind):
    prior, codec = small_prior(kind), NoteTokenizer()
    text = Condition.empty(1, TEXT_WIDTH)
    plain = Sampling(guidance=1.0)
    codes = write_notes(prior, codec, text, 3.0, plain, seed=1)
    assert codes.shape[:2] == (1, KINDS[kind]["num_codebooks"])
    seconds = sum(float(codec.shift_s(codes[..., t])) for t in range(codes.shape[-1]))
    assert seconds < 3.0 or codes.shape[-1] == 1
    assert torch.equal(codes, write_notes(prior, codec, text, 3.0, plain, seed=1))
    longer = write_notes(prior, codec, text, 6.0, plain, seed=1)
    assert torch.equal(longer[..., : codes.shape[-1]], codes)


def test_the_command_writes_midi(pipeline_folder, tmp_path, capsys):
    small_prior("improved").save_pretrained(tmp_path / "prior")
    song = tmp_path / "song.mid"
    command = ["notes", "calm piano", "--prior", str(tmp_path / "prior"), "--output", str(song)]
    command += ["--text-encoder", str(pipeline_folder), "--duration", "3"]
    assert main(command) == 0
    first = song.read_bytes()
    assert str(song) in capsys.readouterr().out
    read_midi(first)
    assert main(command) == 0
    assert song.read_bytes() == first


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--output", "song.wav"), "song.wav"),
        (("--duration", "0"), "--duration must be positive, got 0.0"),
        (("--prior", "nowhere"), "nowhere"),
        (("--prior", "{}/prior"), "notes have at most 6 in [0, 256)"),
        (("--temperature", "-1"), "temperature must be finite and at least 0"),
        (("--audio", "x.wav", "--soundfont", "none.sf2"), "apt-get install"),
    ],
)
def test_mistakes_are_one_line(pipeline_folder, tmp_path, mistake, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    small_prior("plain").save_pretrained(tmp_path / "prior")
    command = ["notes", "calm piano", "--prior", "prior", "--text-encoder", str(pipeline_folder)]
    more = [word.format(pipeline_folder) for word in more]
    assert message in mistake(*command, *more)


def test_a_full_disk_leaves_the_old_song(pipeline_folder, tmp_path, mistake, request):
    small_prior("plain").save_pretrained(tmp_path / "prior")
    (tmp_path / "song.mid").write_bytes(b"old")
    request.getfixturevalue("full_disk")
    command = ["notes", "calm piano", "--prior", tmp_path / "prior", "--duration", "1"]
    command += ["--output", tmp_path / "song.mid", "--text-encoder", pipeline_folder]
    assert "No space" in mistake(*command)
    assert [path.name for path in tmp_path.glob("*.mid")] == ["song.mid"]
    assert (tmp_path / "song.mid").read_bytes() == b"old"


@pytest.mark.slow
def test_a_piece_is_heard(cache, pipeline_folder, tmp_path):
    prior = train_small("improved", cache, pipeline_folder, tmp_path / "run")
    command = ["notes", "calm piano", "--prior", str(prior), "--duration", "8"]
    command += ["--output", str(tmp_path / "song.mid"), "--audio", str(tmp_path / "song.wav")]
    assert main([*command, "--text-encoder", str(pipeline_folder)]) == 0
    assert (tmp_path / "song.wav").stat().st_size > 10_000
