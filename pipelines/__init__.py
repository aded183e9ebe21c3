"""Floor 3: everything a user calls; importing it is instant."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _check_neighbors() -> None:
    """Raise ImportError where a module of the user's hides one of our packages."""
    for name in ("codec", "prior", "decoder"):
        spec = find_spec(name)
        found = None if spec is None else spec.origin
        ours = Path(__file__).resolve().parents[1] / name / "__init__.py"
        if found is not None and Path(found).resolve() != ours:
            raise ImportError(f"{found} hides Partita's package {name!r}: rename it")


_check_neighbors()

from codec.torchaudio_guard import guard_torchaudio  # noqa: E402

if TYPE_CHECKING:
    from pipelines.music_output import MusicOutput as MusicOutput
    from pipelines.pipeline import Pipeline as Pipeline
    from pipelines.rendering.engine import RenderOptions as RenderOptions
    from pipelines.rendering.engine import render as render
    from pipelines.rendering.rows import Defaults as Defaults

_HOMES = {
    "Defaults": "pipelines.rendering.rows",
    "MusicOutput": "pipelines.music_output",
    "Pipeline": "pipelines.pipeline",
    "RenderOptions": "pipelines.rendering.engine",
    "render": "pipelines.rendering.engine",
}
__all__ = [*_HOMES]

guard_torchaudio()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``partita --help`` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
