"""The wheel holds the library with its embedded weights, and nothing else of the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel built from a copy in which every file is there and the weights are empty."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path_factory.mktemp("source")
    files = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for folder in ("ttm", "stages", "tools", "benchmarks", "configs", "tests"):
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in files:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes() if path.suffix != ".safetensors" else b"")
    (source / "ttm/pretrained/ttm-tiny/deep/er").mkdir(parents=True)
    (source / "ttm/pretrained/ttm-tiny/deep/er/model.safetensors").write_bytes(b"")
    build = "import setuptools.build_meta as backend; print(backend.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(source / done.stdout.splitlines()[-1]) as archive:
        return set(archive.namelist())


def test_every_file_of_the_library_is_in_the_wheel(wheel: set[str]) -> None:
    library = {path for path in (ROOT / "ttm").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in library} - wheel == set()
    assert "ttm/pretrained/ttm-tiny/deep/er/model.safetensors" in wheel


def test_nothing_else_is(wheel: set[str]) -> None:
    assert {name.partition("/")[0] for name in wheel if ".dist-info/" not in name} == {"ttm"}


def test_the_licence_and_the_command_are_there(wheel: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel)
