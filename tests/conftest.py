"""Fixtures that many test modules share."""

import contextlib
import gc
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pyloudnorm  # noqa: F401  (as the next, sets filters of warnings when it is imported)
import pytest
import vector_quantize_pytorch  # noqa: F401

from codec.native.build import builds_for_this_machine, compile_library, find_compiler
from codec.native.library import Library, open_library, runs_here
from codec.torchaudio_guard import guard_torchaudio

guard_torchaudio()  # before a test imports torchaudio, encodec or transformers


SET_BY_OTHERS = (  # the second by PyTorch's compiler
    "PYTEST_CURRENT_TEST",
    "TORCHINDUCTOR_CACHE_DIR",
)


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """accelerate keeps the first precision for the whole process; every test may choose its own."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state()


@pytest.fixture(autouse=True)
def process_settings_stay() -> Iterator[None]:
    """Fail a test after which a setting of the whole process differs from before."""
    before = process_settings()
    yield
    after = process_settings()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert not changed, f"the test left settings of the process changed (before, after): {changed}"


def process_settings() -> dict[str, Any]:
    """What functions of Partita must leave as it was, by name.

    PyTorch's generator is missing because tests seed it; test_training.py holds it.
    """
    import accelerate  # noqa: F401  (as the next: its first import adds warning filters)
    import scipy.stats  # noqa: F401
    import symusic  # noqa: F401  (its first import sets environment variables)
    import torch

    return {
        "matmul precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "random state": random.getstate(),
        "warning filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
        "signal handlers": {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)},
        "environment": {k: v for k, v in os.environ.items() if k not in SET_BY_OTHERS},
        "working directory": os.getcwd(),
    }


@pytest.fixture(scope="session")
def measuring_packages() -> None:
    """Import evaluation's packages: their first import changes settings of the process."""
    librosa = ("librosa.feature", "librosa.decompose", "librosa.filters")
    for name in (*librosa, "visqol", "zimtohrli", "sympy"):  # sympy: torch.testing's
        with contextlib.suppress(ImportError):
            import_module(name)


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline of random weights (``tiny_pipeline``); never written to."""
    from tiny_pipeline import save_tiny_pipeline

    return save_tiny_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """A quiet pipeline of random weights (``tiny_pipeline``), each module's own."""
    from tiny_pipeline import tiny_pipeline

    made = tiny_pipeline()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def client(pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server of ``pipeline_folder``, each module's own."""
    from served_studio import served

    with served(pipeline_folder, tmp_path_factory.mktemp("serve") / "takes") as client:
        yield client


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny data and frozen parts by name (``tiny_data``); never written to."""
    from tiny_data import write_parts

    return write_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that must fail as every mistake does, and return its one line."""
    from pipelines.cli import main

    def run(*argv: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 2
        captured = capsys.readouterr()
        beside = ("loaded ", "partita: note: ")
        lines = [line for line in captured.err.splitlines() if not line.startswith(beside)]
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("partita: error: ")
        assert captured.out == ""
        return lines[0]

    return run


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file end in the middle, as on a full disk."""

    def write_half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """1.3 s of stereo noise as WAV, of a length that no frame divides."""
    import numpy as np
    import soundfile

    path = tmp_path / "in.wav"
    samples = 0.1 * np.random.default_rng(0).standard_normal((57_331, 2))
    soundfile.write(path, samples, 44_100, subtype="PCM_24")
    return path


@pytest.fixture
def song(tmp_path: Path, pipeline_folder: Path) -> Path:
    """A generated song.wav with song.safetensors beside it."""
    from pipelines.cli import main

    path = tmp_path / "song.wav"
    generate = ["generate", "a slow piano", "--duration", "1.27", "--seed", "3", "--quiet"]
    files = ["--output", str(path), "--tokens", str(path.with_suffix(".safetensors"))]
    assert main([*generate, *files, "--pipeline", str(pipeline_folder)]) == 0
    return path


@pytest.fixture(
    scope="session", params=builds_for_this_machine(), ids=lambda build: build.file_name
)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C compiler, and no ziglang")
    if not runs_here(request.param):
        pytest.skip(f"this processor lacks {request.param.instructions}")
    folder = tmp_path_factory.mktemp("native")
    compile_library(request.param, compiler, folder)
    return open_library(request.param, folder)
