"""What users of other programs reported, tried on ours (docs/field-reports.md has the sources)."""

import io
import struct

import numpy as np
import pytest
import soundfile
import torch
from tiny_pipeline import tiny_codec
from tiny_recordings import config, melody, save

from codec import EncodecCodec
from codec.audio_file import read_audio, read_blocks, write_audio
from pipelines.data.midi_file import midi_bytes, read_midi
from pipelines.data.prepared import open_prepared
from pipelines.data.recordings.preparation import prepare
from pipelines.training.configuration import ConfigParser, parse
from pipelines.training.training_config import TrainingConfig

RATE = 44_100


@pytest.mark.parametrize("duration_s", [20.001, 600, float("inf")])
def test_a_duration_beyond_the_longest_is_refused_not_cut(pipeline, duration_s):
    with pytest.raises(ValueError, match=r"duration_s must lie in \(0, 20\]"):
        pipeline("a tune", duration_s=duration_s)


@pytest.mark.parametrize("duration_s", [0.01, 0.04, 0.999, 2.5])
def test_the_audio_is_as_long_as_asked_for_and_has_no_silent_tail(pipeline, duration_s):
    audio = pipeline("a tune", duration_s=duration_s, seed=3, ending="cut").audio
    assert audio.shape[-1] == round(duration_s * RATE)
    tail = audio[..., -max(1, audio.shape[-1] // 10) :]
    assert float(tail.square().mean()) > 0.01 * float(audio.square().mean())


@pytest.mark.parametrize("format", ["wav", "flac"])
@pytest.mark.parametrize("peak", [1.0, 1.5, 8.0])
def test_loud_samples_neither_wrap_nor_flip_their_sign(format, peak):
    audio = torch.linspace(-peak, peak, 4000).repeat(2, 1)
    stream = io.BytesIO()
    with pytest.warns(UserWarning, match="everything is scaled by"):
        report = write_audio(stream, audio, RATE, format=format)
    again = read_audio(stream.getvalue()).audio
    assert float((again - audio * report.gain).abs().max()) < 1e-6
    assert (again.diff() >= 0).all()


def test_the_lowest_sample_stays_the_lowest():
    audio = torch.tensor([[-1.0, -0.99999988, 0.0, 0.5] * 500])
    for format in ("wav", "flac"):
        for subtype in ("PCM_16", "PCM_24"):
            stream = io.BytesIO()
            write_audio(stream, audio, RATE, format=format, subtype=subtype)
            assert float(read_audio(stream.getvalue()).audio.max()) == 0.5


@pytest.mark.parametrize("learning_rate", ["1e-4", "1E-4", "0.0001", ".0001"])
def test_numbers_without_a_point_are_numbers(learning_rate, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(f"training: {{output_dir: x, learning_rate: {learning_rate}}}\n")
    parser = ConfigParser("train", {"training": TrainingConfig})
    assert parse(parser, ["--config", str(path)]).training.learning_rate == 1e-4
    options = ["--training.output_dir", "x", "--training.learning_rate", learning_rate]
    assert parse(parser, options).training.learning_rate == 1e-4


@pytest.mark.parametrize("samples", [1, 2, 63, 441, 1763, 1765])
def test_codecs_take_a_sound_shorter_than_a_frame(samples):
    codecs = [tiny_codec(), *(EncodecCodec.untrained(m, 3.0, 0, 4) for m in ("24khz", "48khz"))]
    for codec in codecs:
        codes = codec.encode(0.1 * torch.randn(1, codec.channels, samples))
        assert codes.shape[-1] >= 1
        assert codec.decode(codes[..., :1]).shape[-1] > 0


def test_a_last_block_of_a_few_samples_is_read(tmp_path):
    path = save(tmp_path / "a.wav", melody(1, 2.0)[: RATE + 3])
    blocks = [clip.audio.shape[1] for clip in read_blocks(path, 0.5)]
    assert blocks == [RATE // 2, RATE // 2, 3]


def test_a_damaged_frame_in_an_mp3_costs_that_file_alone(tmp_path):
    for seed in (1, 2):
        save(tmp_path / "in" / f"{seed}.mp3", melody(seed, 2.0))
    data = bytearray((tmp_path / "in" / "2.mp3").read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    (tmp_path / "in" / "2.mp3").write_bytes(data)
    result = prepare(config(tmp_path / "in", tmp_path / "out", validation_fraction=0.0))
    assert "1.mp3" in open_prepared(tmp_path / "out")["track"]
    named = {row["track"] for row in result.report["skipped"] + result.report["put_right"]}
    assert named <= {"2.mp3"}


def test_mono_and_stereo_files_become_one_dataset(tmp_path):
    save(tmp_path / "in" / "mono.wav", melody(1, 2.0)[:, :1])
    save(tmp_path / "in" / "stereo.wav", melody(2, 2.0))
    prepare(config(tmp_path / "in", tmp_path / "out", validation_fraction=0.0))
    clips = open_prepared(tmp_path / "out")
    assert {read_audio(clip["audio"]).audio.shape[0] for clip in clips} == {2}


def midi(*tracks: bytes) -> bytes:
    """A file of type 1 at 480 ticks a quarter note."""
    head = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), 480)
    ends = [track + b"\x00\xff\x2f\x00" for track in tracks]
    return head + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in ends)


NOTE = b"\x00\x90\x3c\x40\x83\x60\x80\x3c\x00"
TEMPO_60 = b"\x00\xff\x51\x03\x0f\x42\x40"


def test_a_tempo_on_another_track_than_the_first_counts():
    score = read_midi(midi(NOTE, TEMPO_60 + NOTE))
    assert [tempo.qpm for tempo in score.tempos] == [60.0]


def test_tempo_changes_after_the_last_note_make_no_piece_longer():
    late = b"\x83\xff\x7f\xff\x51\x03\x07\xa1\x20"  # 65,535 ticks after the note
    score = read_midi(midi(NOTE, TEMPO_60 + late))
    assert read_midi(midi_bytes(score)).note_num() == 1
    assert max(note.end for track in score.tracks for note in track.notes) == 480


def test_a_checkpoint_that_lacks_keys_says_which(pipeline, tmp_path):
    from safetensors.torch import load_file, save_file

    pipeline.prior.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, path)
    with pytest.raises(ValueError, match=f"lacks the tensor '{name}'"):
        type(pipeline.prior).from_pretrained(tmp_path)


def test_long_vorbis_is_written_whole():
    audio = 0.1 * torch.sin(torch.arange(30 * RATE) / 30).repeat(2, 1)
    stream = io.BytesIO()
    write_audio(stream, audio, RATE, format="ogg")
    with soundfile.SoundFile(io.BytesIO(stream.getvalue())) as file:
        assert file.frames == 30 * RATE
        assert np.isfinite(file.read()).all()
