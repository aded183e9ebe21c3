"""``partita evaluate pipeline``: prompts, facts, rates, copies, drift, and the whole command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.seeds import generator
from pipelines.cli import main
from pipelines.data.scores.keys import Key
from pipelines.evaluation.averages import mean_with_interval
from pipelines.evaluation.copying import copied_shares, evenly_cut, histogram_overlap
from pipelines.evaluation.detectors import CLASSES, LEADS, Detected, load_detectors
from pipelines.evaluation.drift import measure_windows, summarize_windows
from pipelines.evaluation.facts import FACTS, asked_facts, fact_rates, judge, judge_key, judge_tempo
from pipelines.evaluation.ground_truth import Wanted
from pipelines.evaluation.measurement_cache import FOLDER
from pipelines.evaluation.pipeline_report import compare_sets, prompt_groups, seed_diversity
from pipelines.evaluation.prompts import GROUPS, Prompt, choose_prompts, read_prompts
from pipelines.evaluation.second_opinion import SecondOpinion
from pipelines.evaluation.takes import Take

RATE = 44_100
pytestmark = pytest.mark.usefixtures("measuring_packages")
NO_SECOND = SecondOpinion()


def detected(tempo_bpm: float = 120.0, key: str = "C major", lead: str = "piano") -> Detected:
    """A clip with drums, whose tune one instrument plays."""
    return Detected(
        tempo_bpm,
        key,
        {name: float(name == "drums") for name in CLASSES},
        {name: float(name == lead) for name in LEADS},
    )


def take(prompt: Prompt, what: Detected | None, seed: int = 0, vector: float = 0.0) -> Take:
    """A take with three embeddings that lie together."""
    vectors = vector + np.arange(6.0).reshape(3, 2)
    return Take(prompt, seed, what, NO_SECOND, {"peak": 0.5}, {"space": vectors})


WANTED = Wanted(
    tempo_bpm=120.0,
    speed=(100.0, 130.0),
    key=Key("C", "major"),
    mode="major",
    instrument="piano",
    drums=True,
)
ASKING = Prompt("trained-1", "trained", "fast piano in C major, 120 bpm, with drums", WANTED)


def test_held_out_phrasings_stand_beside_the_trained_ones_of_their_pieces():
    ids = ("trained-000", "trained-001", "trained-003", "held-out-003", "held-out-006", "free-000")
    groups = prompt_groups([Prompt(id, id.rpartition("-")[0], "x") for id in ids])
    assert groups == {
        "all": None,
        "trained": {"trained-000", "trained-001", "trained-003"},
        "held-out": {"held-out-003", "held-out-006"},
        "free": {"free-000"},
        "trained, pieces of held-out": {"trained-003"},
    }
    assert list(prompt_groups([ASKING])) == ["all", "trained"]


def test_the_committed_prompts_ask_for_every_label():
    prompts = read_prompts()
    assert len(prompts) >= 200
    assert {prompt.group for prompt in prompts} == set(GROUPS)
    facts = [prompt.wanted for prompt in prompts]
    assert {wanted.instrument for wanted in facts} >= set(LEADS)
    assert len({(wanted.key.root, wanted.key.mode) for wanted in facts if wanted.key}) == 24
    assert {wanted.drums for wanted in facts} == {True, False, None}
    tempos = [wanted.tempo_bpm for wanted in facts if wanted.tempo_bpm]
    assert min(tempos) < 55
    assert max(tempos) > 195
    assert sum(wanted.mode_word is not None for wanted in facts) >= 40
    assert sum(wanted.speed is not None for wanted in facts) >= 40


def test_prompts_say_what_they_ask_for():
    for prompt in read_prompts():
        text = prompt.text.lower().replace(" sharp", "#").replace(" flat", "b")
        wanted = prompt.wanted
        if wanted.tempo_bpm:
            assert f"{wanted.tempo_bpm:g}" in text
        if wanted.key:
            assert str(wanted.key).lower() in text
        if wanted.drums is not None:
            assert any(word in text for word in ("drum", "percussion", "beat"))


def test_choosing_and_reading_prompts_refuses_mistakes(tmp_path):
    prompts = read_prompts()
    assert len(choose_prompts(prompts, limit=7)) == 7
    assert {p.group for p in choose_prompts(prompts, ["free"])} == {"free"}
    with pytest.raises(ValueError, match="limit must be at least 1"):
        choose_prompts(prompts, limit=0)
    with pytest.raises(ValueError, match="groups must be among"):
        choose_prompts(prompts, ["all"])
    broken = tmp_path / "p.jsonl"
    broken.write_text('{"id": "a", "group": "free", "text": "x"}\n{"id": "b"}\n')
    with pytest.raises(ValueError, match="line 2: not a prompt"):
        read_prompts(broken)
    broken.write_text('{"id": "a", "group": "free", "text": "x", "instrument": "kazoo"}\n')
    with pytest.raises(ValueError, match="kazoo"):
        read_prompts(broken)
    broken.write_text('{"id": "a", "group": "free", "text": "x"}\n' * 2)
    with pytest.raises(ValueError, match="ids must be unique"):
        read_prompts(broken)


def test_judging_is_exact_where_it_must_be():
    assert all(judge(WANTED, detected(), SecondOpinion(120.0, "C major")).values())
    assert set(judge(WANTED, detected(), SecondOpinion(120.0, "C major"))) == set(
        asked_facts(WANTED)
    )
    assert set(asked_facts(WANTED)) <= set(FACTS)
    slow = judge(WANTED, detected(tempo_bpm=60.5), NO_SECOND)
    assert (slow["tempo"], slow["tempo_octave"], slow["speed"]) == (False, True, False)
    assert judge(WANTED, detected(tempo_bpm=124.7), NO_SECOND)["tempo"]
    relative = judge(WANTED, detected(key="A minor"), NO_SECOND)
    assert (relative["key"], relative["key_relative"], relative["mode"]) == (False, True, False)
    violin = judge(WANTED, detected(lead="violin"), NO_SECOND)
    assert not violin["instrument_any"]
    assert judge(replace(WANTED, drums=False), detected(), NO_SECOND)["drums"] is False
    assert judge(Wanted(), detected(), NO_SECOND) == {}


def test_tempos_and_keys_are_right_within_their_tolerances():
    assert judge_tempo(103.9, 100) == (True, True)
    assert judge_tempo(104.1, 100) == (False, False)
    assert judge_tempo(51, 100) == judge_tempo(199, 100) == (False, True)
    assert judge_key("Bb major", Key("A#", "major")) == (True, True)
    assert judge_key("A minor", Key("C", "major")) == (False, True)
    assert judge_key("C major", Key("A", "minor")) == (False, True)
    assert judge_key("G major", Key("C", "major")) == (False, False)


def test_rates_count_prompts_ceiling_and_floor():
    minor = replace(WANTED, tempo_bpm=77.0, speed=None, key=Key("D", "minor"), mode="minor")
    other = replace(ASKING, id="trained-2", wanted=minor)
    deaf = replace(ASKING, id="trained-3")
    takes = [
        take(ASKING, detected()),
        take(ASKING, detected(60), 1),
        take(other, detected(150, "D minor")),
    ]
    takes += [take(deaf, None)]
    rates = fact_rates(takes, [take(ASKING, detected()), take(other, None)])
    tempo = rates["tempo"]
    assert tempo["model"]["mean"] == pytest.approx((0.5 + 0 + 0) / 3)
    assert tempo["model"]["num_prompts"] == 3
    assert tempo["ceiling"]["mean"] == 1
    assert tempo["of_ceiling"] == pytest.approx(0.5 / 3)
    assert rates["key"]["model"]["mean"] == pytest.approx((1 + 1 + 0) / 3)
    # by other prompts: ASKING's C major is heard in none of the two other takes of its seed
    assert rates["key"]["floor"]["mean"] == pytest.approx((0 + 0 + 0.5) / 3)
    assert rates["tempo_librosa"]["model"]["mean"] in (None, 0.0)
    assert fact_rates(takes, [], {"free-1"})["tempo"]["model"]["mean"] is None


def test_bootstrap_interval_covers_the_mean():
    found = mean_with_interval([0.0] * 30 + [1.0] * 70)
    assert found["mean"] == pytest.approx(0.7)
    assert 0.58 < found["low"] < 0.7 < found["high"] < 0.82
    assert mean_with_interval(np.ones(5)) == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_copies_are_found_and_only_they():
    draws = np.random.default_rng(0)
    training = [draws.integers(0, 1024, (8, 200)) for _ in range(5)]
    fresh = draws.integers(0, 1024, (8, 200))
    mixed = np.concatenate([fresh[:, :100], training[2][:, 50:90], fresh[:, 100:]], axis=1)
    assert copied_shares([training[1][:, 20:120]], training, [4, 16]) == {"4": 1.0, "16": 1.0}
    assert copied_shares([fresh], training, [4]) == {"4": 0.0}
    assert copied_shares([mixed], training, [16]) == {"16": pytest.approx(25 / (240 - 15))}
    assert copied_shares([fresh[:, :3]], training, [4]) == {}
    other_first = np.concatenate([fresh[:1], training[0][1:]])  # seven of eight codebooks
    assert copied_shares([other_first], training, [4]) == {"4": 0.0}
    assert histogram_overlap(fresh[0], fresh[0], 1024) == pytest.approx(1.0)
    assert histogram_overlap(np.zeros(4, int), np.ones(4, int), 2) == 0.0
    assert len(evenly_cut(fresh[0], 120)) == 100
    assert len(evenly_cut(fresh[0, :30], 120)) == 30


def test_drift_of_a_piece_that_fades_and_one_that_does_not():
    noise = torch.randn(2, 40 * RATE, generator=generator(0, "noise"))
    fade = torch.logspace(-1, -2, noise.shape[1])
    detectors = load_detectors()
    faded = summarize_windows(measure_windows(noise * fade, RATE, detectors), WANTED.key)
    steady = summarize_windows(measure_windows(noise * 0.1, RATE, detectors), None)
    assert faded["loudness_drift_lu"] == pytest.approx(-15, abs=0.6)
    assert abs(steady["loudness_drift_lu"]) < 0.1
    assert abs(faded["brightness_drift_octaves"]) < 0.05
    assert 0 < faded["key_kept"] <= 1
    assert steady["key_asked"] is None
    windows = measure_windows(torch.zeros(2, 20 * RATE), RATE, detectors)
    assert summarize_windows(windows, None) == {"silent_windows": 2}


def test_diversity_and_distance_of_sets():
    prompts = [replace(ASKING, id=f"trained-{index}") for index in range(4)]
    same = [take(p, detected(), seed, float(i)) for i, p in enumerate(prompts) for seed in (0, 1)]
    assert seed_diversity(same, "space") == pytest.approx(0.0)
    assert seed_diversity(same[::2], "space") == "needs at least two seeds"
    apart = [take(p, detected(), s, 5.0 * s + i) for i, p in enumerate(prompts) for s in (0, 1)]
    assert float(seed_diversity(apart, "space")) > 1
    found = compare_sets(same, apart, "space")
    assert (found["frechet"], found["windows"]) == (pytest.approx(0.0, abs=1e-6), 12)
    silent = [replace(same[0], vectors={"space": "the clip is silent"})]
    assert compare_sets(same, silent, "space")["frechet"] == "the clip is silent"


def command(pipeline: Path, output: Path, *more: str) -> list[str]:
    """A small run."""
    return [
        *("evaluate", "pipeline", "--pipeline", str(pipeline), "--output", str(output)),
        *("--limit", "2", "--seeds", "2", "--duration", "3", "--batch-size", "3", "--quiet"),
        *("--groups", "free", "--steps", "1", "--spaces", "logmel_statistics", *more),
    ]


def test_the_whole_command_without_fluidsynth_resumes(
    pipeline_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", "")
    assert main(command(pipeline_folder, tmp_path)) == 0
    page = capsys.readouterr().out
    assert "No ceiling: ground truth: fluidsynth is not installed" in page
    report = json.loads((tmp_path / "pipeline.json").read_text())
    assert report["num_prompts"] == 2
    assert [entry["seed"] for entry in report["takes"]] == [0, 1, 0, 1]
    assert report["facts"]["all"]["instrument"]["model"]["num_prompts"] == 2
    assert report["facts"]["all"]["instrument"]["ceiling"]["mean"] is None
    assert report["sound"]["takes"]["peak"]["takes"] == 4
    assert isinstance(report["spaces"]["logmel_statistics"]["seed_diversity"], float)
    measured = {path: path.stat().st_mtime_ns for path in (tmp_path / FOLDER).iterdir()}
    lost = next(iter(measured))
    lost.unlink()
    assert main(command(pipeline_folder, tmp_path, "--batch-size", "1")) == 0
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / FOLDER).iterdir()}
    assert again.keys() == measured.keys()
    assert [path for path in again if again[path] != measured[path]] == [lost]
    assert json.loads((tmp_path / "pipeline.json").read_text())["facts"] == report["facts"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs fluidsynth")
def test_the_whole_command_with_ground_truth_copies_and_drift(pipeline_folder, tmp_path, capsys):
    from tiny_data import write_prepared

    from pipelines import Pipeline
    from pipelines.data.token_cache import build_token_cache
    from pipelines.data.tokens import read_token_info

    write_prepared(tmp_path / "prepared")
    codec = Pipeline.from_pretrained(pipeline_folder).codec
    build_token_cache(tmp_path / "prepared", codec, tmp_path / "tokens", quiet=True)
    output = tmp_path / "out"
    more = ["--train-data", *2 * [str(tmp_path / "tokens")], "--long"]
    assert main(command(pipeline_folder, output, *more)) == 0
    report = json.loads((output / "pipeline.json").read_text())
    assert report["facts"]["all"]["instrument"]["ceiling"]["num_prompts"] == 2
    assert report["copying"]["same_codec"]
    train = read_token_info(tmp_path / "tokens").clips["train"]
    assert report["copying"]["training_clips"] == 2 * train
    assert 0 < report["copying"]["histogram_overlap_held_out"] <= 1
    assert set(report["copying"]["first codebook"]) == {"takes", "held-out clips"}
    assert report["drift"]["60 s"]["reason"] == "the pipeline's longest piece is 20 s"
    assert "runs of frames found in training" in capsys.readouterr().out
