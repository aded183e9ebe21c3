"""The demo's way through everything, a few steps long, and its page of numbers."""

from pathlib import Path

import pytest
import soundfile
from test_readme import write_recordings

from pipelines.commands.demo import DemoSteps, finish, make_training, run_demo
from pipelines.data.recordings.preparation import prepare
from pipelines.data.recordings.prepare_config import PrepareConfig
from pipelines.inference.text import PRETRAINED


@pytest.mark.slow
@pytest.mark.skipif(
    not (PRETRAINED / "text_encoder").is_dir(),
    reason="the text encoder that ships is not in this checkout",
)
def test_the_whole_way_and_nothing_twice(tmp_path):
    write_recordings(tmp_path / "recordings")
    prepared = tmp_path / "prepared"
    prepare(PrepareConfig(str(tmp_path / "recordings"), str(prepared), quiet=True))
    steps = DemoSteps(codec=5, decoder=2, prior=2)
    report = run_demo(tmp_path / "demo", prepared, steps, song_s=1.0)
    assert soundfile.info(tmp_path / "demo" / "song.wav").duration == pytest.approx(1.0)
    assert (tmp_path / "demo" / "original.wav").is_file()
    page = report.read_text()
    assert "decoder, 2 codebooks" in page
    assert "nan" not in page

    def written() -> dict[Path, int]:
        trained = [
            path
            for part in ("codec", "decoder", "prior")
            for path in (tmp_path / "demo" / part).rglob("*.safetensors")
        ]
        return {path: path.stat().st_mtime_ns for path in trained}

    before = written()
    assert before
    run_demo(tmp_path / "demo", prepared, steps, song_s=1.0)
    assert written() == before


def test_a_stopped_training_stops_the_demo(tmp_path):
    training = make_training(tmp_path / "codec", 10, 2, 1e-3)
    calls = []
    with pytest.raises(KeyboardInterrupt):
        finish(training, calls.append)
    assert calls == [False]
