"""``python -m codec.torchaudio_libraries``: let torchaudio import beside a torch without CUDA.

torchaudio's wheels on PyPI link CUDA, and where they do not load ``import torchaudio`` raises.
Without its libraries torchaudio imports, and runs in Python what they would compute. Partita's
packages see to that when they are imported (codec/torchaudio_guard.py); whoever imports torchaudio,
encodec or diffusers before them needs the libraries out of the way.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

MESSAGE = "Could not load this library"
"""Words in the OSError that ``import torchaudio`` raises."""


def set_aside_libraries() -> list[Path]:
    """Rename torchaudio's libraries if they do not load beside the installed torch.

    Returns:
        The new names; none where torchaudio imports, is not installed, or fails otherwise.
    """
    spec = find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return []
    alone = subprocess.run(
        [sys.executable, "-c", "import torchaudio"], capture_output=True, text=True
    )
    if alone.returncode == 0 or MESSAGE not in alone.stderr:
        return []
    folder = Path(spec.origin).parent / "lib"
    found = sorted(path for path in folder.glob("*torchaudio*") if path.suffix in (".so", ".pyd"))
    return [path.rename(path.with_name(f"{path.name}.unloadable")) for path in found]


if __name__ == "__main__":
    for path in set_aside_libraries():
        print(f"{path}: does not load beside this torch")
