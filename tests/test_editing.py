"""Edits on a whole tiny pipeline: what changes, what does not to the last bit, what is refused."""

from pathlib import Path

import pytest
import soundfile
import torch

from pipelines import Pipeline
from pipelines.cli import main
from pipelines.inference.crossfade import CROSSFADE_S, bar_spans, crossfaded
from pipelines.inference.token_file import load_tokens, save_song_tokens
from pipelines.music_output import MusicOutput
from prior import Plan

RATE = 44_100
FADE = round(CROSSFADE_S * RATE)
PLAN = {"bpm": 240, "meter": "2/4", "key": "C", "chords": "C G", "instruments": [], "drums": None}


@pytest.fixture(scope="module")
def song(pipeline: Pipeline) -> MusicOutput:
    return pipeline("abc", 2.0, 3, plan=PLAN, ending="cut")


def test_a_continuation_begins_with_its_source(pipeline: Pipeline, song: MusicOutput):
    longer = pipeline.extend(song, 0.73, seed=4)
    assert longer.audio.shape[-1] == song.audio.shape[-1] + round(0.73 * RATE)
    kept = song.audio.shape[-1] - FADE
    assert torch.equal(longer.audio[..., :kept], song.audio[..., :kept])
    assert torch.equal(longer.codes[..., :49], song.codes[..., :49])
    assert float(longer.audio[..., song.audio.shape[-1] :].abs().max()) > 0
    again = pipeline.extend(song, 0.73, seed=4)
    assert torch.equal(again.audio, longer.audio)
    assert not torch.equal(pipeline.extend(song, 0.73, seed=5).codes, longer.codes)
    assert longer.plans[0] is not None
    chords = [(chord.beat, chord.root) for chord in longer.plans[0].chords]
    assert chords[4:7] == [(8.0, 0), (10.0, 7), (12.0, 0)]


def test_a_continuation_takes_other_chords_from_its_seam_on(pipeline: Pipeline, song: MusicOutput):
    other = pipeline.extend(song, 1.0, seed=4, chords="F")
    assert other.plans[0] is not None
    assert [chord.root for chord in other.plans[0].chords] == [0, 7, 0, 7, 5, 5]


def test_filling_in_changes_its_spans_and_nothing_else(pipeline: Pipeline, song: MusicOutput):
    filled = pipeline.inpaint(song, [(1.5, 1.8), (0.4, 0.9)], seed=4)
    changed = (filled.audio != song.audio).any(dim=1)[0].nonzero()[:, 0] / RATE
    inside = ((changed >= 0.4) & (changed < 0.9)) | ((changed >= 1.5) & (changed < 1.8))
    assert bool(inside.all())
    assert len(changed) > 0.7 * 0.8 * RATE
    assert torch.equal(filled.codes[..., :10], song.codes[..., :10])
    assert not torch.equal(filled.codes[..., 10:23], song.codes[..., 10:23])


def test_a_variation_writes_a_share_of_the_bars(pipeline: Pipeline, song: MusicOutput):
    varied = pipeline.vary(song, 0.5, seed=4)
    bars = (varied.audio != song.audio).any(dim=1)[0].view(4, RATE // 2).any(dim=1)
    assert int(bars.sum()) == 2
    assert varied.plans == song.plans
    whole = pipeline.vary(song, 1.0, seed=4)
    assert bool((whole.audio != song.audio).any(dim=1)[0].view(4, RATE // 2).any(dim=1).all())


def test_a_loop_is_as_long_as_its_bars_to_the_sample(pipeline: Pipeline):
    loop = pipeline.loop("abc", 3, seed=4, bpm=131, meter="3/4")
    assert loop.audio.shape[-1] == round(9 * 60 / 131 * RATE)
    assert loop.plans[0] is not None
    assert loop.plans[0].first_beat == 6.0
    steps = loop.audio.diff(dim=-1).abs()
    seam = (loop.audio[..., 0] - loop.audio[..., -1]).abs()
    assert float(seam.max()) <= float(steps.max())


def test_bars_cover_a_piece_that_begins_within_one():
    spans = bar_spans(Plan(120.0, 4, first_beat=3.0), 5 * RATE, RATE)
    assert [span.first for span in spans] == [0, RATE // 2, 5 * RATE // 2, 9 * RATE // 2]
    assert spans[-1].last == 5 * RATE


def test_a_crossfade_of_equal_sounds_is_that_sound():
    sound = torch.randn(2, 1000)
    torch.testing.assert_close(crossfaded(sound, sound), sound, atol=1e-6, rtol=1e-5)
    other = torch.randn(2, 1000)
    power = crossfaded(sound, other).square().mean()
    assert 0.9 < float(power) < 1.1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p, s: p.extend(s, 0.0), "add_s must be positive, got 0.0"),
        (lambda p, s: p.extend(s, 30.0), r"duration_s must lie in \(0, 20\]"),
        (lambda p, s: p.inpaint(s, [(1.0, 0.5)]), "from_s and to_s must lie in the 2.00 s"),
        (lambda p, s: p.inpaint(s, [(1.0, 3.0)]), "from_s and to_s must lie in the 2.00 s"),
        (lambda p, s: p.inpaint(s, [(0.1, 1.0), (0.9, 1.2)]), "spans must not overlap, got 0.9"),
        (lambda p, s: p.inpaint(s, []), "inpaint needs a span"),
        (lambda p, s: p.vary(s, 0.0), r"strength must lie in \(0, 1\], got 0.0"),
        (lambda p, s: p.loop("abc", 0), r"bars must be a whole number in \[1, 512\], got 0"),
        (lambda p, s: p.extend(s, 1.0, chords="X"), "chords, symbol 1"),
    ],
)
def test_what_cannot_be_is_refused(edit, message: str, pipeline: Pipeline, song: MusicOutput):
    with pytest.raises(ValueError, match=message):
        edit(pipeline, song)


def test_an_unknown_argument_is_refused(pipeline: Pipeline, song: MusicOutput):
    with pytest.raises(TypeError, match="unexpected argument 'volume'"):
        pipeline.extend(song, 1.0, volume=11)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, pipeline: Pipeline, song: MusicOutput) -> Path:
    path = tmp_path_factory.mktemp("edit") / "song.safetensors"
    save_song_tokens(path, song, pipeline.codec)
    return path


def test_a_token_file_is_edited_as_the_song_it_came_from(tokens, pipeline, song):
    from_file = pipeline.inpaint(tokens, [(0.4, 0.9)], seed=4)
    assert torch.equal(from_file.audio, pipeline.inpaint(song, [(0.4, 0.9)], seed=4).audio)
    assert from_file.plans == song.plans


def test_the_commands_edit_token_files_and_audio(tokens, tmp_path, pipeline_folder):
    options = ["--seed", "4", "--quiet", "--pipeline", str(pipeline_folder)]
    out, again = tmp_path / "out.wav", tmp_path / "again.safetensors"
    argv = ["continue", str(tokens), "--add", "0.5", "--output", str(out), "--tokens", str(again)]
    assert main([*argv, *options]) == 0
    assert soundfile.info(out).frames == round(2.5 * RATE)
    assert load_tokens(again).settings["edit"] == {"add_s": 0.5}
    assert load_tokens(again).settings["plan"]["bpm"] == 240
    noise = 0.1 * torch.randn(4 * 22_050, generator=torch.Generator().manual_seed(1))
    noise[::5512] = 0.9  # four beats a second
    soundfile.write(tmp_path / "mono.wav", noise.numpy(), 22_050, "PCM_24")
    argv = ["inpaint", str(tmp_path / "mono.wav"), "--from", "1", "--to", "1.5", "--bpm", "240"]
    assert main([*argv, "--output", str(out), *options]) == 0
    assert soundfile.info(out).frames == 4 * RATE
    assert main(["loop", "abc", "--bars", "1", "--bpm", "100", "--output", str(out), *options]) == 0
    assert soundfile.info(out).frames == round(2.4 * RATE) or soundfile.info(out).frames > 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["continue", "none.safetensors"], "none.safetensors does not exist"),
        (["continue", "silent.wav"], "the source is silent"),
        (["continue", "short.wav"], "is shorter than 3 s"),
        (["inpaint", "short.wav", "--from", "1", "--to", "2", "--to", "3"], "--from and --to go"),
        (["vary", "text.wav"], "text.wav"),
        (["continue", "short.wav", "--key", "H"], "key must be like D minor"),
        (["continue", "long.wav"], "duration_s must lie in (0, 20], got 25"),
        (["continue", "short.wav", "--plan", "none.json"], "none.json does not exist"),
    ],
)
def test_a_bad_source_is_one_line(argv, message, tmp_path, pipeline_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("silent.wav", torch.zeros(4 * RATE, 2).numpy(), RATE)
    soundfile.write("short.wav", 0.1 * torch.ones(RATE, 2).numpy(), RATE)
    soundfile.write("long.wav", 0.1 * torch.ones(25 * 8000).numpy(), 8000)
    Path("text.wav").write_text("no audio")
    options = ["--output", "out.wav", "--quiet", "--pipeline", str(pipeline_folder)]
    assert main([*argv, *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not Path("out.wav").exists()


def test_a_preview_is_edited_as_a_preview_and_a_loop_is_not_edited(pipeline: Pipeline):
    rough = pipeline("abc", 1.0, 3, plan=PLAN, preview=True, ending="cut")
    longer = pipeline.extend(rough, 0.2, seed=4)
    assert longer.settings["num_inference_steps"] is None
    with pytest.raises(ValueError, match="a loop's codes begin before it"):
        pipeline.extend(pipeline.loop("abc", 1, seed=4, bpm=240, meter="2/4"), 1.0)
