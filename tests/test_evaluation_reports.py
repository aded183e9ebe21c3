"""Perceptual metrics, classical codecs, clip choice and the reports, on tiny real components."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from tiny_pipeline import tiny_codec, tiny_pipeline
from torch import Tensor

from codec import EncodecCodec, SpectralCodec
from codec.audio_file import AudioClip
from codec.seeds import generator
from pipelines.cli import main
from pipelines.data.scores.instruments import INSTRUMENTS
from pipelines.errors import MissingPackageError
from pipelines.evaluation import instruments_kept, perceptual
from pipelines.evaluation.classical_codecs import transcode
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.clips import ClipChoice, choose_clips
from pipelines.evaluation.instruments_kept import RenderedPiece
from pipelines.evaluation.measurement_cache import FOLDER
from pipelines.evaluation.measuring import ReportSettings, measure
from pipelines.evaluation.pair_metrics import compare
from pipelines.evaluation.quality_report import report_codec, report_decoder, window_seams_s
from pipelines.evaluation.systems import ORIGINAL, System, TokenCodec, encodec_systems, fit_channels

RATE = 44_100
pytestmark = pytest.mark.usefixtures("measuring_packages")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def sound(seconds: float = 2.0, channels: int = 2, seed: int = 0) -> Tensor:
    """Decaying noise bursts over a tone."""
    times = torch.arange(round(seconds * RATE)) / RATE
    noise = torch.randn(channels, len(times), generator=generator(seed, "sound"))
    return 0.1 * noise * torch.exp(-8 * (times % 0.25)) + 0.1 * torch.sin(2765 * times)


def write(path: Path, audio: Tensor) -> Path:
    """Write a WAV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.T.numpy(), RATE)
    return path


def lag(reference: Tensor, estimate: Tensor) -> int:
    """Samples by which the estimate comes late (peak of the cross-correlation)."""
    length = reference.shape[1]
    spectra = [torch.fft.rfft(clip.sum(0), 2 * length) for clip in (reference, estimate)]
    peak = int(torch.fft.irfft(spectra[1] * spectra[0].conj()).argmax())
    return peak if peak < length else peak - 2 * length


@pytest.fixture(scope="module")
def codec() -> SpectralCodec:
    """A codec of a few thousand weights."""
    torch.manual_seed(0)
    return tiny_codec(num_codebooks=2, vocoder_iterations=1)


def noisy_system(level: float, calls: list[str] | None = None) -> System:
    """Adds noise: a system whose ranking is known."""

    def reconstruct(audio: Tensor, _: int) -> tuple[Tensor, float]:
        if calls is not None:
            calls.append("called")
        noise = torch.randn(audio.shape, generator=generator(0, "system"))
        return audio + level * noise, 8.0

    return System(f"noise {level}", "noise", str(level), reconstruct)


def test_perceptual_metrics_are_perfect_for_identity_and_monotone():
    pytest.importorskip("visqol")
    pytest.importorskip("zimtohrli")
    clip = sound(1.5)
    noisy = [clip + level * sound(1.5, seed=1) for level in (0.0, 0.05, 0.5)]
    scores = [perceptual.visqol(clip, estimate, RATE) for estimate in noisy]
    distances = [perceptual.zimtohrli(clip, estimate, RATE) for estimate in noisy]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 4.7
    assert distances == sorted(distances)
    assert distances[0] == pytest.approx(0, abs=1e-6)
    swapped = clip.flip(0)  # the mono sum does not change, each channel does
    assert perceptual.zimtohrli(clip, swapped, RATE, mono_sum=True) == pytest.approx(0, abs=1e-6)
    assert perceptual.zimtohrli(clip, swapped, RATE) > 1e-3
    assert perceptual.zimtohrli(clip[:1], clip[:1], RATE) == pytest.approx(0, abs=1e-6)


def test_a_missing_package_becomes_a_reason(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zimtohrli", None)
    clip = sound(1.0)
    measured = compare(clip, clip, RATE)
    assert "zimtohrli needs" not in str(measured["mel_distance"])
    assert "pip install partita[evaluate]" in str(measured["zimtohrli"])
    assert measured["mel_distance"] == 0
    assert measured["si_sdr_db"] == "infinite"
    json.dumps(measured, allow_nan=False)


@needs_ffmpeg
def test_opus_is_aligned_and_better_with_more_bits():
    clip = sound(2.0)
    errors, rates = [], []
    for kbps in (12, 96):
        decoded, rate = transcode(clip, RATE, f"opus {kbps}k")
        assert decoded.shape == clip.shape
        errors.append(float((decoded - clip).square().mean()))
        rates.append(rate)
        assert abs(lag(clip, decoded)) <= 1
    assert errors[1] < errors[0]
    assert abs(lag(clip, transcode(clip, RATE, "mp3 64k")[0])) <= 1
    assert rates[0] == pytest.approx(12, rel=0.4)
    assert rates[1] == pytest.approx(96, rel=0.4)


def test_without_ffmpeg_the_reason_names_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingPackageError, match="ffmpeg"):
        transcode(sound(1.0), RATE, "opus 12k")


def test_clips_are_the_same_every_time(tmp_path):
    for name, seconds in (("b/two.wav", 5.0), ("a.wav", 2.0), ("c.flac", 0.5)):
        write(tmp_path / name, sound(seconds))
    (tmp_path / "broken.wav").write_bytes(b"RIFFnothing")
    with pytest.warns(UserWarning, match=r"1 file\(s\) skipped"):
        choice = choose_clips([tmp_path], count=4, duration_s=1.0, min_track_s=1.0)
    assert [clip.name.split("/")[1] for clip in choice.clips] == [
        *("a.wav@0.0s", "a.wav@1.0s"),
        *("two.wav@0.8s", "two.wav@3.2s"),
    ]
    assert [clip.read().audio.shape[1] for clip in choice.clips] == [RATE] * 4
    reasons = dict(choice.skipped)
    assert "shorter than 1 s" in reasons[str(tmp_path / "c.flac")]
    assert "unreadable" in reasons[str(tmp_path / "broken.wav")]
    one = choose_clips([tmp_path / "b"], count=1, duration_s=1.0).clips[0]
    assert one.name == "b/two.wav@2.0s"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        choose_clips([tmp_path / "nowhere"], 1)
    with pytest.raises(ValueError, match="no usable audio"):
        choose_clips([write(tmp_path / "d" / "e.wav", sound(0.5))], 1, min_track_s=9.0)
    with pytest.raises(ValueError, match="count and duration_s must be positive"):
        choose_clips([tmp_path], 0)


def test_clips_come_from_a_prepared_dataset(tmp_path):
    from pipelines.data import clip_levels, prepared

    audio = sound(1.0)
    flac = tmp_path / "clip.flac"
    soundfile.write(flac, audio.T.numpy(), RATE)
    stored = clip_levels.analyze(clip_levels.analysis().log_mel.pad(audio))
    for folder, content in (("with", flac.read_bytes()), ("without", b"")):
        with prepared.PreparedWriter(tmp_path / folder, "validation") as writer:
            for index in range(3):
                writer.add(prepared.Clip(f"clip{index}", "track", 0.0, 1.0, *stored, audio=content))
        prepared.finish_dataset(tmp_path / folder, {})
    choice = choose_clips([tmp_path / "with"], 2, duration_s=0.5)
    assert [clip.name for clip in choice.clips] == ["clip0", "clip1"]
    received = choice.clips[1].read()
    torch.testing.assert_close(received.audio, audio[:, : RATE // 2], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="holds no audio"):
        choose_clips([tmp_path / "without"], 1).clips[0].read()


def test_a_stopped_evaluation_goes_on(tmp_path):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "data" / name, sound(1.2, seed=ord(name[0])))
    both = choose_clips([tmp_path / "data"], 2)
    calls: list[str] = []
    system = noisy_system(0.01, calls)
    settings = ReportSettings(tmp_path, ("logmel_statistics",), quiet=True)
    first = measure(ClipChoice(both.clips[:1], []), [system], settings)
    assert len(calls) == 1
    (tmp_path / FOLDER / ".1.partial.npz").write_text("half a file")  # killed while writing
    again = measure(both, [system], settings)
    assert len(calls) == 2  # the first clip was remembered
    assert measure(both, [system], settings) == again
    assert len(calls) == 2
    assert [first["num_clips"], again["rows"][0]["num_clips"]] == [1, 2]
    measure(both, [noisy_system(0.02, calls)], settings)
    assert len(calls) == 4  # another identity is measured afresh


def test_silent_and_short_clips_have_reasons(tmp_path):
    write(tmp_path / "data" / "silent.wav", torch.zeros(2, RATE))
    write(tmp_path / "data" / "short.wav", sound(0.4))
    choice = choose_clips([tmp_path / "data"], 2)
    measured = measure(choice, [noisy_system(0.01)], ReportSettings(tmp_path, quiet=True))
    assert [reason for _, reason in measured["skipped"]] == ["the clip is silent"]
    (row,) = measured["rows"]
    assert row["num_clips"] == 1
    assert "shorter than 1 s" in str(row["values"]["visqol"])
    assert isinstance(row["values"]["stft_distance"], float)
    assert "shorter" in str(row["frechet"]["logmel_statistics"])


def test_codec_report_on_files(tmp_path, codec):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "data" / name, sound(1.2, seed=ord(name[0])))
    codec.save_pretrained(tmp_path / "model" / "codec")
    output = tmp_path / "report"
    words = ["--pipeline", tmp_path / "model", "--data", tmp_path / "data", "--output", output]
    words += ["--spaces", "logmel_statistics", "--classical", "--quiet"]
    assert main(["evaluate", "codec", *map(str, words)]) == 0
    content = json.loads((output / "codec.json").read_text())
    names = [row["name"] for row in content["rows"]]
    assert names == ["model 1 codebook(s)", "model 2 codebook(s)", "vocoder, true spectrogram"]
    assert content["rows"][1]["bitrate_kbps"] == pytest.approx(2 * 4 * 25 / 1000)
    assert len(content["codebooks"]["entropy_bits"]) == 2
    page = (output / "codec.md").read_text()
    assert "| model 2 codebook(s) | 0.20 | 2 |" in page
    assert "N is small" in page
    assert content["plot"].endswith("codec.png") == (output / "codec.png").is_file()


def test_a_row_says_how_many_instruments_are_kept(tmp_path, codec, monkeypatch):
    """The first piece's instrument is heard unless the sound is soft, the second's never after."""

    def heard(audio: Tensor, instrument: str) -> bool:
        return instrument == "harp" and float(audio.abs().amax()) > 0.05

    monkeypatch.setattr(instruments_kept, "hears_instrument", heard)
    write(tmp_path / "data" / "a.wav", sound(1.6))
    choice = choose_clips([tmp_path / "data"], 1)
    settings = ReportSettings(tmp_path, ("logmel_statistics",), quiet=True)
    decodes = {"soft": lambda codes: 0 * codec.decode(codes), "same": codec.decode}
    pieces = [RenderedPiece(sound(1.2), "harp"), RenderedPiece(sound(1.2), "oboe")]
    content = report_decoder(choice, codec, decodes, settings, 1, "1", pieces=pieces)
    kept = {row["name"]: row["values"]["instruments_kept"] for row in content["rows"]}
    assert (kept["original"], kept["same"], kept["soft"]) == (0.5, 0.5, 0.0)
    assert "instruments kept" in (tmp_path / "decoder.md").read_text()


def test_a_piece_whose_instrument_is_not_heard_in_it_is_left_out(monkeypatch):
    played: list[Any] = []

    def render(score: Any, duration_s: float) -> Tensor:
        played.append(score)
        if len(played) == 1:
            raise UnmeasurableError("no sound")
        return torch.full((2, 8), len(played) % 2)

    monkeypatch.setattr(instruments_kept, "render_score", render)
    monkeypatch.setattr(instruments_kept, "hears_instrument", lambda audio, _: bool(audio.any()))
    pieces = instruments_kept.rendered_pieces(5, quiet=True)
    assert len(played) == 5
    assert len(pieces) == 2
    assert {piece.instrument for piece in pieces} <= {*INSTRUMENTS}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs fluidsynth")
def test_the_original_keeps_every_instrument(tmp_path):
    pieces = instruments_kept.rendered_pieces(6, quiet=True)
    assert len(pieces) >= 4
    assert instruments_kept.instrument_values(ORIGINAL, pieces) == {"instruments_kept": 1.0}
    words = ["evaluate", "codec", "--pipeline", "x", "--data", "x", "--output", str(tmp_path)]
    assert main([*words, "--instruments", "-1"]) == 2


def test_a_codec_of_notes_is_refused(tmp_path, codec):
    write(tmp_path / "data" / "a.wav", sound(0.5))
    choice = choose_clips([tmp_path / "data"], 1)
    settings = ReportSettings(tmp_path, ())
    notes: Any = argparse.Namespace(frame_rate=None)
    with pytest.raises(ValueError, match="must be a codec of sound"):
        report_codec(choice, notes, settings)


def test_decoder_report_compares_with_the_coarse_decode(tmp_path, codec):
    write(tmp_path / "data" / "a.wav", sound(1.6))
    choice = choose_clips([tmp_path / "data"], 1)
    quieter = {"half": lambda codes: 0.5 * codec.decode(codes), "same": codec.decode}
    settings = ReportSettings(tmp_path, ("logmel_statistics",), quiet=True)
    content = report_decoder(choice, codec, quieter, settings, 1, "1", seams_s=[0.8])
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["original"]["values"]["mel_distance"] == 0
    assert rows["original"]["frechet"]["logmel_statistics"] == pytest.approx(0, abs=1e-6)
    same = rows["same"]["values"]
    assert same == rows["coarse"]["values"]
    assert "seam_difference_db" in same
    assert rows["same"]["frechet"] == rows["coarse"]["frechet"]
    assert rows["half"]["values"]["loudness_change_lu"] == pytest.approx(
        same["loudness_change_lu"] - 6.02, abs=0.1
    )
    assert (tmp_path / "decoder.md").is_file()


def test_decoder_report_from_a_saved_pipeline(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    write(tmp_path / "data" / "a.wav", sound(1.2))
    output = tmp_path / "report"
    words = ["--pipeline", tmp_path / "model", "--data", tmp_path / "data", "--output", output]
    words += ["--spaces", "logmel_statistics", "--steps", "1", "2", "--quiet"]
    assert main(["evaluate", "decoder", *map(str, words)]) == 0
    content = json.loads((output / "decoder.json").read_text())
    assert content["num_codebooks"] == 2  # as many as the prior writes
    names = [row["name"] for row in content["rows"]]
    assert names[2:5] == ["coarse", "flow, 1 step(s)", "flow, 2 step(s)"]
    assert content["rows"][3]["num_clips"] == 1


def test_seams_lie_in_the_middle_third_of_the_overlap():
    config = argparse.Namespace(window_frames=128, overlap_frames=24)
    seams = window_seams_s(config, 25.0, 1.62)
    first = [(8 + 3 * share) / 25 for share in (1 / 3, 1 / 2, 2 / 3)]
    second = [(19 + 5 * share) / 25 for share in (1 / 3, 1 / 2, 2 / 3)]
    assert seams == pytest.approx([*first, *second, (36 + 8 / 3) / 25, (36 + 8 / 2) / 25])
    assert window_seams_s(config, 25.0, 0.3) == []


@pytest.mark.parametrize(
    ("model", "books"), [("24khz", [2, 4, 8, 16, 32]), ("48khz", [3, 5, 9, 17])]
)
def test_encodec_rows_stand_at_its_bit_rates(model, books):
    encodec = EncodecCodec.untrained(model, 24.0, num_filters=2)
    systems = encodec_systems(encodec, model)
    assert [int(system.identity.split()[1]) for system in systems] == books
    received, _ = systems[0].reconstruct(sound(1.0), RATE)
    assert received.shape == (2, RATE)


def test_a_codec_takes_clips_of_any_rate_and_channels(codec):
    tokens = TokenCodec(codec)
    clip = sound(1.0, channels=1)[:, :24_001]
    received, bitrate_kbps = tokens.system("x", "x", 2).reconstruct(clip, 24_000)
    assert received.shape == clip.shape
    assert bitrate_kbps == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"num_codebooks must lie in \[1, 2\], got 3"):
        tokens.system("x", "x", 3)
    stereo = sound(0.1)
    torch.testing.assert_close(fit_channels(stereo, 1)[0], stereo.mean(0))
    with pytest.raises(ValueError, match="cannot turn 3 channels into 2"):
        fit_channels(torch.zeros(3, 10), 2)
    assert isinstance(AudioClip(stereo, RATE).audio, Tensor)
