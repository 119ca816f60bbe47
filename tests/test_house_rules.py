"""The rules of the house that a program can hold: imports, sizes, names, how weights are read and kept."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ttm", "stages", "benchmarks", "tools", "configs")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

OUTER = ("ttm", "stages", "benchmarks", "tools")
"""Imports go one way: a folder may import itself and those before it."""

INNER = (
    ("atomic_write", "objects", "pretrained"),
    ("motion", "data", "metrics", "planning", "prompt_planner", "visualization"),
    ("models", "segmentation"),
    ("pipelines", "evaluation"),
    ("cli",),
)
"""The same within ttm: a room may import its own level and those before it."""

MEGABYTE = 10**6


@cache
def _read(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports; ``from a import b`` counts as a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(_read(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{name.name}") for name in node.names)


def _outer_offences(path: Path) -> list[str]:
    own = path.relative_to(ROOT).parts[0]
    allowed = OUTER[: OUTER.index(own) + 1]
    found = ((line, name.partition(".")[0]) for line, name in _imports(path))
    return [f"{_name(path)}:{line} imports {top}" for line, top in found if top in OUTER and top not in allowed]


def _level(room: str) -> int | None:
    return next((level for level, rooms in enumerate(INNER) if room in rooms), None)


def _inner_offences(path: Path) -> list[str]:
    own = _level(path.relative_to(ROOT).with_suffix("").parts[1])
    offences = []
    for line, name in _imports(path):
        parts = name.split(".")
        other = _level(parts[1]) if parts[0] == "ttm" and len(parts) > 1 else None
        if own is not None and other is not None and other > own:
            offences.append(f"{_name(path)}:{line} imports ttm.{parts[1]}")
    return offences


def test_outer_imports_go_one_way() -> None:
    paths = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in OUTER]
    assert paths
    assert [offence for path in paths for offence in _outer_offences(path)] == []


def test_inner_imports_go_one_way() -> None:
    """Except in ``ttm/__init__.py``, which imports lazily, and in saved models, whose code nothing here imports."""
    paths = [path for path in (ROOT / "ttm").rglob("*.py") if "pretrained" not in path.parts]
    assert [offence for path in paths if path != ROOT / "ttm/__init__.py" for offence in _inner_offences(path)] == []


def test_every_room_of_the_library_has_a_level() -> None:
    rooms = {path.stem for path in (ROOT / "ttm").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room for room in rooms if _level(room) is None} <= {"__init__", "__main__"}


def test_the_import_rules_see_an_offence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two rules above are worth nothing if they can't fail."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    guilty = tmp_path / "ttm/models/guilty.py"
    guilty.parent.mkdir(parents=True)
    guilty.write_text("from stages import train\nfrom ..pipelines import conditioning\nimport ttm.motion\n")
    assert _outer_offences(guilty) == ["ttm/models/guilty.py:1 imports stages"]
    assert _inner_offences(guilty) == ["ttm/models/guilty.py:2 imports ttm.pipelines"]


def test_training_knows_neither_sam2_nor_open_clip() -> None:
    """Importing sam2 takes hydra's global state, which the training program needs for itself."""
    paths = (ROOT / "stages").rglob("*.py")
    tops = {(_name(path), name.partition(".")[0]) for path in paths for _, name in _imports(path)}
    assert {(path, top) for path, top in tops if top in ("sam2", "open_clip")} == set()


def test_no_file_has_a_name_that_says_nothing() -> None:
    banned = {"utils", "util", "misc", "common", "helpers", "helper"}
    assert [_name(path) for path in SOURCES + TESTS if path.stem in banned] == []


def test_files_can_be_read_at_one_sitting() -> None:
    lengths = {_name(path): path.read_text(encoding="utf-8").count("\n") for path in SOURCES + TESTS}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_a_setting_fits_on_a_screen() -> None:
    files = [path for pattern in ("*.yaml", "*.yml") for path in (ROOT / "configs").rglob(pattern)]
    lengths = {_name(path): path.read_text(encoding="utf-8").count("\n") for path in files}
    assert {name: length for name, length in lengths.items() if length >= 60} == {}


def test_tests_are_no_packages() -> None:
    assert [_name(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def test_packages_are_packages() -> None:
    """A folder of the library without ``__init__.py`` would be missing from the wheel."""
    folders = {path.parent for path in (ROOT / "ttm").rglob("*.py") if "pretrained" not in path.parts}
    assert [_name(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def _calls(path: Path, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(_read(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


def _keyword(call: ast.Call, name: str) -> object:
    return next((ast.unparse(item.value) for item in call.keywords if item.arg == name), None)


def test_no_file_runs_code_when_it_is_read() -> None:
    unsafe = [
        f"{_name(path)}:{call.lineno}"
        for path in SOURCES + TESTS
        for call in _calls(path, "torch.load")
        if _keyword(call, "weights_only") != "True"
    ]
    unsafe += [
        f"{_name(path)}:{line} imports {name}"
        for path in SOURCES
        for line, name in _imports(path)
        if name.partition(".")[0] in ("pickle", "cPickle", "dill", "joblib", "cloudpickle")
    ]
    unsafe += [
        f"{_name(path)}:{call.lineno} np.load"
        for path in SOURCES
        for call in _calls(path, "np.load")
        if _keyword(call, "allow_pickle") not in (None, "False")
    ]
    assert unsafe == []


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("start", ["import ttm", "import ttm.cli; ttm.cli.main(['--help'])"])
def test_no_torch_until_it_is_needed(start: str) -> None:
    heavy = "('torch', 'diffusers', 'transformers', 'sam2', 'open_clip')"
    shown = _python(f"{start}\nimport sys\nprint('LOADED', [name for name in {heavy} if name in sys.modules])")
    assert shown.splitlines()[-1] == "LOADED []"


def test_import_is_quick() -> None:
    """About 0.02 s alone; the limit leaves room for a machine that does five other things."""
    begin = time.perf_counter()
    _python("pass")
    bare = time.perf_counter() - begin
    begin = time.perf_counter()
    _python("import ttm")
    assert time.perf_counter() - begin - bare < 1.5


def test_embedded_weights_keep_their_size() -> None:
    pretrained = ROOT / "ttm/pretrained"
    sizes = {path.relative_to(pretrained): path.stat().st_size for path in pretrained.rglob("*") if path.is_file()}
    limits = {"ttm-tiny": 36, "ttm-tiny-unet": 18, "ttm-tiny-video": 5}
    for name, limit in limits.items():
        assert sum(size for path, size in sizes.items() if path.parts[0] == name) <= limit * MEGABYTE, name
    assert sum(sizes.values()) <= 60 * MEGABYTE
    assert {str(path): size for path, size in sizes.items() if size >= 20 * MEGABYTE} == {}


def test_no_model_says_where_it_lay_on_the_machine_that_trained_it() -> None:
    """diffusers writes the folder that a model was opened from into the config of its next save."""
    for path in (ROOT / "ttm" / "pretrained").rglob("config.json"):
        assert not Path(json.loads(path.read_text(encoding="utf-8")).get("_name_or_path", "")).is_absolute(), path


def test_weights_are_safetensors() -> None:
    wrong = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".onnx"}
    assert [_name(path) for path in (ROOT / "ttm/pretrained").rglob("*") if path.suffix in wrong] == []
