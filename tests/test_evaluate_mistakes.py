"""What the commands of ``partita evaluate`` say to mistakes: one line, exit code 2."""

import pytest
from tiny_data import write_parts


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A pipeline, a codec and tokens."""
    return write_parts(tmp_path_factory.mktemp("parts"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("codec --pipeline {tokens}", "is not a saved codec: config.json is missing"),
        ("codec --pipeline {pipeline}/prior", "a codec must be one of"),
        ("codec --spaces clap", "spaces must be among"),
        ("codec --clips 0", "count and duration_s must be positive, got count=0"),
        ("codec --data nowhere", "nowhere does not exist"),
        ("codec --classical opus", "classical must be among opus 6k"),
        ("codec --books 9", "num_codebooks must lie in [1, 4], got 9"),
        ("prior --clips 0", "clips must be at least 1, got 0"),
        ("prior --duration 0", "duration_s must be positive"),
        ("prior --frames 0", "frames must be at least 1, got 0"),
        ("prior --split test", "has a split 'test'"),
        ("prior --tokens nowhere", "nowhere is not a folder: no token cache there"),
        ("prior --prior nowhere", "nowhere holds no config.json: not a saved prior"),
        ("pipeline --limit 0", "limit must be at least 1, got 0"),
        ("pipeline --seeds 0", "seeds must be at least 1, got 0"),
        ("pipeline --batch-size 0", "batch_size must be at least 1"),
        ("pipeline --duration 1", "duration_s must be at least 3, got 1.0"),
        ("pipeline --groups none", "groups must be among trained, held-out, free, got 'none'"),
        ("pipeline --spaces none", "spaces must be among logmel_statistics, aisfx, got 'none'"),
        ("pipeline --prompts nowhere.jsonl", "nowhere.jsonl does not exist"),
        ("pipeline --train-data nowhere", "nowhere is not a folder: no token cache there"),
        ("plans --pieces 1", "pieces must be at least 2, got 1"),
        ("fit-detectors --renders 0", "renders must be at least 1"),
        ("fit-detectors --judge-soundfont none.sf2", "error: ground truth: "),
        ("fit-detectors --output no/d.safetensors", "no does not exist"),
    ],
)
def test_a_mistake_is_one_line(words, message, parts, sound, tmp_path, mistake):
    command, *change = words.format(**parts).split()
    arguments = [] if command == "fit-detectors" else ["--pipeline", parts["pipeline"]]
    arguments += ["--output", str(tmp_path / "out"), "--quiet"]
    arguments += {"codec": ["--data", str(sound)], "prior": ["--tokens", parts["tokens"]]}.get(
        command, []
    )
    assert message in mistake("evaluate", command, *arguments, *change)
