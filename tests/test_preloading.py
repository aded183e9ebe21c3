"""What is settled before torch is imported."""

import subprocess
import sys

import pytest

from pipelines.training.preloading import let_threads_sleep, preload_allocator


@pytest.mark.parametrize(
    ("library", "preloaded", "restarts"),
    [("libtcmalloc.so.4", "", True), ("libtcmalloc.so.4", "other.so", False), (None, "", False)],
)
def test_a_process_starts_again_once_and_only_where_the_allocator_is(
    library: str | None, preloaded: str, restarts: bool, monkeypatch: pytest.MonkeyPatch
):
    started: list[str] = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: library)
    monkeypatch.setattr("os.execve", lambda *process: started.append(process[2]["LD_PRELOAD"]))
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    preload_allocator()
    assert started == [library] * restarts


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
