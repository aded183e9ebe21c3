"""Audio files: exact round trips, partial reads, no clipping, and errors in one line."""

import io
import resource
import warnings

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.audio_file import read_audio, read_blocks, write_audio
from codec.ogg import with_serial
from codec.seeds import generator

EXACT = [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16")]
EXACT += [("flac", "PCM_24")]
CONTAINERS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "opus": "OGG", "mp3": "MP3"}


def noise(channels: int, samples: int, seed: int = 0) -> torch.Tensor:
    """(C, S) noise within 0.9 of full scale."""
    return torch.rand(channels, samples, generator=generator(seed, "noise")) * 1.8 - 0.9


def music(seconds: float, sample_rate: int, channels: int = 2) -> torch.Tensor:
    """(C, S): a decaying chord, which lossy codecs code well."""
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    chord = sum(torch.sin(2 * torch.pi * hertz * time) for hertz in (220.0, 277.2, 329.6, 1318.5))
    return (0.15 * chord * torch.exp(-time)).repeat(channels, 1)


def snr_db(reference: torch.Tensor, other: torch.Tensor) -> float:
    error = (reference - other).square().mean()
    return float(10 * torch.log10(reference.square().mean() / error))


def as_written(audio: torch.Tensor, subtype: str) -> torch.Tensor:
    """What a file of this subtype can hold of ``audio``."""
    if subtype == "FLOAT":
        return audio
    steps = 2.0 ** (int(subtype[4:]) - 1)
    return ((audio.double() * steps).round() / steps).float()


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(("format", "subtype"), EXACT)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_round_trip_is_exact(tmp_path, quiet, format, subtype, channels):
    audio = as_written(noise(channels, 4321), subtype)
    report = write_audio(tmp_path / f"x.{format}", audio, 44100, subtype=subtype)
    clip = read_audio(tmp_path / f"x.{format}")
    assert torch.equal(clip.audio, audio)
    assert clip.audio.dtype == torch.float32
    assert (clip.sample_rate, clip.notes, report.gain) == (44100, (), 1.0)
    assert [path.name for path in tmp_path.iterdir()] == [f"x.{format}"]


@settings(max_examples=30, deadline=None)
@given(
    samples=st.integers(1, 2000),
    channels=st.integers(1, 3),
    choice=st.sampled_from(EXACT),
    rate=st.sampled_from([8000, 22050, 44100, 48000, 96000]),
)
def test_any_length_round_trips_through_memory(samples, channels, choice, rate):
    format, subtype = choice
    audio = as_written(noise(channels, samples), subtype)
    stream = io.BytesIO()
    write_audio(stream, audio, rate, format=format, subtype=subtype)
    clip = read_audio(stream.getvalue())
    assert torch.equal(clip.audio, audio)
    assert clip.sample_rate == rate


@pytest.mark.parametrize(("format", "rate", "least_db"), [("ogg", 44100, 15), ("opus", 48000, 12)])
def test_lossy_round_trip_keeps_length_and_sound(tmp_path, quiet, format, rate, least_db):
    audio = music(2.0, rate)
    write_audio(tmp_path / f"x.{format}", audio, rate)
    clip = read_audio(tmp_path / f"x.{format}")
    assert clip.audio.shape == audio.shape
    assert snr_db(audio, clip.audio) > least_db


def test_opus_resamples_and_says_so(tmp_path):
    with pytest.warns(UserWarning, match="resampled 44100 -> 48000 Hz, as Opus requires"):
        report = write_audio(tmp_path / "x.opus", music(1.0, 44100), 44100)
    assert report.sample_rate == 48000
    assert read_audio(tmp_path / "x.opus").audio.shape == (2, 48000)


def test_mp3_is_read(tmp_path):
    audio = music(1.0, 44100)
    soundfile.write(tmp_path / "x.mp3", audio.T.numpy(), 44100)
    clip = read_audio(tmp_path / "x.mp3")
    assert abs(clip.audio.shape[1] - 44100) <= 2304
    assert snr_db(audio[:, :40000], clip.audio[:, :40000]) > 12


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_loud_audio_is_scaled_as_a_whole_not_clipped(tmp_path, subtype):
    audio = 3 * noise(2, 1000)
    with pytest.warns(UserWarning, match="everything is scaled by"):
        report = write_audio(tmp_path / "x.wav", audio, 44100, subtype=subtype)
    found = read_audio(tmp_path / "x.wav").audio
    assert found.abs().max() <= 1
    assert report.peak == pytest.approx(float(audio.abs().max()))
    assert torch.allclose(found / report.gain, audio, atol=2e-4)


def test_lossy_files_keep_a_decibel_of_headroom(tmp_path):
    audio = music(1.0, 44100)
    audio = audio / audio.abs().max()
    with pytest.warns(UserWarning, match="does not fit into VORBIS"):
        report = write_audio(tmp_path / "x.ogg", audio, 44100)
    assert report.gain == pytest.approx(10 ** (-1 / 20))
    assert read_audio(tmp_path / "x.ogg").audio.abs().max() < 1


@pytest.mark.parametrize("peak", [1.0, -1.0, 1 - 2**-15])
def test_full_scale_never_wraps(tmp_path, peak):
    audio = torch.tensor([[peak, 0.0, 0.5]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = write_audio(tmp_path / "x.wav", audio, 44100, subtype="PCM_16")
    found = read_audio(tmp_path / "x.wav").audio
    assert (report.gain < 1) == (peak == 1.0)
    assert torch.allclose(found, audio, atol=2**-14)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus"])
def test_equal_audio_gives_equal_files(suffix):
    audio, tags = music(0.5, 48000), {"title": "Fugue"}
    first, second, other = io.BytesIO(), io.BytesIO(), io.BytesIO()
    write_audio(first, audio, 48000, format=suffix, tags=tags)
    write_audio(second, audio, 48000, format=suffix, tags=tags)
    write_audio(other, 0.5 * audio, 48000, format=suffix, tags=tags)
    assert first.getvalue() == second.getvalue()
    assert first.getvalue() != other.getvalue()


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_ogg_checksums_are_those_of_libogg(suffix):
    stream = io.BytesIO()
    subtype = {"ogg": "VORBIS", "opus": "OPUS"}[suffix]
    soundfile.write(stream, music(3.0, 48000).T.numpy(), 48000, subtype, format="OGG")
    data = stream.getvalue()  # checksums and serial number by libogg
    assert data.count(b"OggS") > 2
    assert with_serial(data, int.from_bytes(data[14:18], "little")) == data


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus"])
def test_tags_are_kept(tmp_path, suffix):
    tags = {"title": "Fugue", "artist": "Partita", "comment": "slow, solo cello"}
    write_audio(tmp_path / f"x.{suffix}", music(0.5, 48000), 48000, tags=tags)
    with soundfile.SoundFile(tmp_path / f"x.{suffix}") as file:
        assert file.copy_metadata().items() >= tags.items()


def test_a_tag_without_a_place_is_named(tmp_path):
    with pytest.warns(UserWarning, match="WAV has no place for the tag 'license'"):
        write_audio(tmp_path / "x.wav", noise(1, 10), 8000, tags={"license": "CC0-1.0"})
    with pytest.raises(ValueError, match=r"tags must be among .* got 'mood'"):
        write_audio(tmp_path / "x.wav", noise(1, 10), 8000, tags={"mood": "calm"})


def test_conversions_are_said_out_loud(tmp_path):
    write_audio(tmp_path / "x.wav", music(0.5, 48000), 48000)
    with (
        pytest.warns(UserWarning, match="resampled 48000 -> 44100 Hz"),
        pytest.warns(UserWarning, match="mixed stereo to mono"),
    ):
        clip = read_audio(tmp_path / "x.wav", sample_rate=44100, channels=1)
    assert clip.notes == ("resampled 48000 -> 44100 Hz", "mixed stereo to mono")
    assert clip.audio.shape == (1, 22050)
    assert snr_db(music(0.5, 44100, 1)[:, 500:-500], clip.audio[:, 500:-500]) > 60
    write_audio(tmp_path / "mono.wav", noise(1, 10), 8000)
    with pytest.warns(UserWarning, match="doubled mono to stereo"):
        clip = read_audio(tmp_path / "mono.wav", channels=2)
    assert torch.equal(clip.audio[0], clip.audio[1])


@pytest.mark.filterwarnings("ignore:resampled")
@pytest.mark.parametrize("rate", [44100, 48000, 16000])
@pytest.mark.parametrize(("suffix", "error"), [("wav", 1e-6), ("flac", 1e-6), ("ogg", 1e-6)])
def test_a_part_equals_the_same_part_of_the_whole(tmp_path, suffix, error, rate):
    write_audio(tmp_path / f"x.{suffix}", music(3.0, 44100), 44100)
    whole = read_audio(tmp_path / f"x.{suffix}", sample_rate=rate).audio
    for start_s, duration_s in ((0.0, 0.1), (0.37, 1.01), (2.5, 9.0)):
        part = read_audio(
            tmp_path / f"x.{suffix}", sample_rate=rate, start_s=start_s, duration_s=duration_s
        ).audio
        first = round(start_s * rate)
        expected = whole[:, first : first + round(duration_s * rate)]
        assert torch.allclose(part, expected, atol=error)


@pytest.mark.filterwarnings("ignore:resampled")
@pytest.mark.parametrize("rate", [None, 44100, 24000])
@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus", "mp3"])
def test_blocks_joined_equal_the_whole(tmp_path, suffix, rate):
    path = tmp_path / f"x.{suffix}"
    audio = music(2.345, 48000)
    subtype = "OPUS" if suffix == "opus" else None
    soundfile.write(path, audio.T.numpy(), 48000, format=CONTAINERS[suffix], subtype=subtype)
    blocks = list(read_blocks(path, 0.7, sample_rate=rate))
    joined = torch.cat([block.audio for block in blocks], dim=1)
    whole = read_audio(path, sample_rate=rate)
    assert len(blocks) == 4
    assert blocks[0].notes == whole.notes
    assert torch.allclose(joined, whole.audio, atol=1e-5)


def write_bytes(path, data: bytes):
    path.write_bytes(data)
    return path


def encoded(format: str, seconds: float = 1.0) -> bytes:
    stream = io.BytesIO()
    samples = noise(2, round(48000 * seconds)).T.numpy()
    subtype = "OPUS" if format == "opus" else None
    soundfile.write(stream, samples, 48000, format=CONTAINERS[format], subtype=subtype)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "opus", "mp3"])
def test_a_truncated_file_is_refused(tmp_path, format):
    data = encoded(format)
    path = write_bytes(tmp_path / f"cut.{format}", data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"cut\.{format} is (truncated|not audio or is damaged)"):
        read_audio(path)


def test_a_wav_of_unknown_length_is_read(tmp_path):
    data = bytearray(encoded("wav"))
    at = data.index(b"data")
    data[4:8] = data[at + 4 : at + 8] = b"\xff" * 4
    assert read_audio(bytes(data)).audio.shape == (2, 48000)


def test_what_is_not_audio_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"empty\.wav is empty"):
        read_audio(write_bytes(tmp_path / "empty.wav", b""))
    with pytest.raises(ValueError, match=r"text\.mp3 is not audio"):
        read_audio(write_bytes(tmp_path / "text.mp3", b"to be or not to be" * 99))
    with pytest.raises(ValueError, match="audio of 3 bytes is not audio"):
        read_audio(b"abc")
    with pytest.raises(ValueError, match=r"x\.raw is headerless"):
        read_audio(write_bytes(tmp_path / "x.raw", b"\0" * 99))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav"):
        read_audio(tmp_path / "nowhere.wav")
    with pytest.raises(IsADirectoryError):
        read_audio(tmp_path)


def test_files_without_usable_samples_are_refused(tmp_path):
    soundfile.write(tmp_path / "zero.wav", np.zeros((0, 2)), 44100)
    with pytest.raises(ValueError, match=r"zero\.wav holds no samples"):
        read_audio(tmp_path / "zero.wav")
    for value in (np.nan, np.inf):
        soundfile.write(tmp_path / "bad.wav", np.array([0, value, 0]), 44100, "FLOAT")
        with pytest.raises(ValueError, match=r"bad\.wav holds NaN or infinite"):
            read_audio(tmp_path / "bad.wav")


def test_impossible_requests_are_refused(tmp_path):
    path = tmp_path / "x.wav"
    write_audio(path, noise(3, 44100), 44100)
    with pytest.raises(ValueError, match=r"its 1\.000 s, got start_s=1\.5"):
        read_audio(path, start_s=1.5)
    with pytest.raises(ValueError, match="duration_s=0"):
        read_audio(path, duration_s=0)
    with pytest.raises(ValueError, match="got 3 channels and channels=2"):
        read_audio(path, channels=2)
    with pytest.raises(ValueError, match="sample_rate must be positive, got 0"):
        read_audio(path, sample_rate=0)
    with pytest.raises(ValueError, match="block_s must hold at least one sample"):
        next(read_blocks(path, 0))
    with (
        pytest.raises(ValueError, match="cannot resample 44100 to 44101 Hz"),
        pytest.warns(UserWarning, match="resampled"),
    ):
        read_audio(path, sample_rate=44101)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(8), r"audio must be \(C, S\), got shape \(8,\)"),
        (torch.zeros(2, 0), "audio is empty"),
        (torch.full((1, 8), torch.nan), "NaN or infinite"),
        (torch.zeros(1, 8, dtype=torch.int16), "must be floating point"),
    ],
)
def test_unwritable_audio_leaves_no_file(tmp_path, audio, message):
    with pytest.raises(ValueError, match=message):
        write_audio(tmp_path / "x.wav", audio, 44100)
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the format must be one of .* got 'aiff'"):
        write_audio(tmp_path / "x.aiff", noise(1, 8), 44100)
    with pytest.raises(ValueError, match=r"subtype must be one of .* got 'FLOAT'"):
        write_audio(tmp_path / "x.flac", noise(1, 8), 44100, subtype="FLOAT")
    with pytest.raises(FileNotFoundError):
        write_audio(tmp_path / "no" / "x.wav", noise(1, 8), 44100)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.wav"
    write_audio(path, noise(1, 100), 44100)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large"):
            write_audio(path, noise(2, 50_000), 44100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["x.wav"]
