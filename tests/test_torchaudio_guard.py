"""The torchaudio guard, in fresh interpreters: it acts at import time."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FAKE_TORCHAUDIO = {
    "__init__.py": "from . import _extension\nfrom torchaudio import _half\n",
    "_half.py": "LOADED = True\n",
}


def run_python(code: str, *import_paths: Path) -> subprocess.CompletedProcess:
    """Run ``code`` in a fresh interpreter that sees ``import_paths`` before the repository."""
    paths = [str(path) for path in (*import_paths, ROOT)]
    program = f"import sys; sys.path[:0] = {paths!r}\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def fake_torchaudio(folder: Path, extension: str) -> Path:
    """A stand-in torchaudio whose ``_extension`` runs the code ``extension`` when imported."""
    package = folder / "torchaudio"
    package.mkdir()
    for name, text in (FAKE_TORCHAUDIO | {"_extension.py": extension}).items():
        (package / name).write_text(text)
    return folder


@pytest.mark.parametrize("package", ["codec", "prior", "decoder", "pipelines"])
def test_every_package_installs_the_guard_once(package: str):
    code = f"""
import {package}, codec
guards = [finder for finder in sys.meta_path if type(finder).__name__ == "TorchaudioGuard"]
assert len(guards) == 1
assert "torchaudio" not in sys.modules
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "first", ["import torchaudio", "import encodec", "from diffusers import DiffusionPipeline"]
)
def test_what_depends_on_torchaudio_imports_and_works_in_silence(first: str):
    code = f"""
import codec
{first}
import encodec, torch, torchaudio
assert torchaudio.functional.resample(torch.ones(1, 480), 48000, 24000).shape == (1, 240)
banks = torchaudio.functional.melscale_fbanks(1025, 0.0, 22050.0, 128, 44100)
assert banks.shape == (1025, 128)
assert torchaudio.transforms.GriffinLim(n_fft=64)(torch.ones(33, 9)).ndim == 1
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr == ""


@pytest.mark.parametrize(
    "first",
    ["import torchaudio", "import encodec", "from diffusers import DiffusionPipeline", "pass"],
)
def test_an_import_before_ours_is_no_matter_where_torchaudio_fits_torch(first: str):
    if "OSError" in (alone := run_python("import torchaudio").stderr):
        pytest.skip(f"torchaudio by itself does not import: {alone.splitlines()[-1]}")
    result = run_python(f"{first}\nfrom pipelines import Pipeline\nimport encodec, torchaudio")
    assert result.returncode == 0, result.stderr


def test_a_whole_torchaudio_is_left_alone(tmp_path):
    fake_torchaudio(tmp_path, "_IS_TORCHAUDIO_EXT_AVAILABLE = True\n")
    code = """
import torchaudio
before = sys.modules["torchaudio._extension"]
import codec
import torchaudio
assert sys.modules["torchaudio"] is torchaudio
assert sys.modules["torchaudio._extension"] is before
"""
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("error", ["OSError", "RuntimeError", "ImportError"])
def test_a_library_that_does_not_load_is_left_out(tmp_path, error):
    fake_torchaudio(tmp_path, f"raise {error}('libcudart.so.13: cannot open shared object file')\n")
    code = """
import codec
import torchaudio
assert not torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE
assert torchaudio._half.LOADED
assert torchaudio._extension._load_lib("libtorchaudio") is False
forced_align = torchaudio._extension.fail_if_no_align(lambda: None)
try:
    forced_align()
except RuntimeError as error:
    assert "native library" in str(error)
else:
    raise AssertionError("forced_align must refuse")
"""
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr


def test_an_error_of_another_kind_is_not_swallowed(tmp_path):
    fake_torchaudio(tmp_path, "_IS_TORCHAUDIO_EXT_AVAILABLE = False\n")
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise OSError('disk on fire')\n")
    result = run_python("import codec, torchaudio", tmp_path)
    assert result.returncode != 0
    assert "disk on fire" in result.stderr


def test_a_missing_torchaudio_is_reported():
    result = run_python("sys.modules['torchaudio'] = None\nimport codec, torchaudio")
    assert result.returncode != 0
    assert "ModuleNotFoundError" in result.stderr


def test_libraries_that_do_not_load_are_set_aside(tmp_path):
    """A stand-in that imports as torchaudio does: without its library, or not at all."""
    extension = """
from pathlib import Path
if list((Path(__file__).parent / "lib").glob("_torchaudio*.so")):
    raise OSError("Could not load this library: _torchaudio.so")
"""
    library = fake_torchaudio(tmp_path, extension) / "torchaudio" / "lib" / "_torchaudio.abi3.so"
    library.parent.mkdir()
    library.touch()
    code = "import os\nos.environ['PYTHONPATH'] = sys.path[0]\n"
    code += "from codec.torchaudio_libraries import set_aside_libraries\n"
    first = run_python(code + "print(*[path.name for path in set_aside_libraries()])", tmp_path)
    assert first.stdout == "_torchaudio.abi3.so.unloadable\n", first.stderr
    again = run_python(code + "print(set_aside_libraries())", tmp_path)
    assert again.stdout == "[]\n", again.stderr
