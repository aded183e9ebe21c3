"""Fixtures that many test modules share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline of random weights (``tiny_pipeline``); never written to."""
    from tiny_pipeline import save_tiny_pipeline

    return save_tiny_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny")
