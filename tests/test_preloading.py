"""What is settled before torch is imported."""

import subprocess
import sys

import pytest

from pipelines.training.preloading import let_threads_sleep, preloading_environment


def test_preloading_happens_once_and_only_where_the_library_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.4")
    environment = preloading_environment({"HOME": "/root"})
    assert environment == {"HOME": "/root", "LD_PRELOAD": "libtcmalloc_minimal.so.4"}
    assert preloading_environment(environment) is None
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert preloading_environment({}) is None


def test_threads_sleep_unless_the_user_has_decided():
    unset: dict[str, str] = {}
    let_threads_sleep(unset)
    assert unset == {"OMP_WAIT_POLICY": "passive"}
    decided = {"OMP_WAIT_POLICY": "active"}
    let_threads_sleep(decided)
    assert decided == {"OMP_WAIT_POLICY": "active"}


def test_garbage_is_looked_for_rarely_and_not_at_the_exit():
    """In a process of its own, which the collector's settings are."""
    lines = (
        "import atexit, gc",
        "from pipelines.training.preloading import collect_rarely",
        "atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 1000))",
        "usual = gc.get_threshold()[0]",
        "collect_rarely()",
        "print(gc.get_threshold()[0] > 10 * usual)",
    )
    command = [sys.executable, "-c", "; ".join(lines)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "True", "True"]
