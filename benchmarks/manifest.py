"""Suites of samples: a folder, and a manifest that says what is in it (docs/benchmarks.md describes the format).

``manifest.jsonl`` holds one sample a line; ``manifest.json`` holds {"name": …, "samples": [sample, …]}. Paths are
relative to the manifest's folder and stay inside of it. A manifest that is wrong stops a run before any model is
loaded; a file that is missing or damaged costs its own sample alone.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ttm.atomic_write import written_beside
from ttm.metrics.displacement import MOTIONS
from ttm.objects import MAX_OBJECTS, PromptPlan

FILES = ("image", "video", "masks", "trajectory", "reference")
TEXTS = ("id", "prompt", "category", "split")
KEYS = (*TEXTS, *FILES, "plan", "motions")
NAMES = ("manifest.jsonl", "manifest.json")
_LONGEST_ID = 100


@dataclass(frozen=True)
class Sample:
    """One thing to animate.

    Attributes:
        id: names the sample's results; any text that can name a file.
        prompt: one sentence.
        image: the first frame, a picture; or
        video: a video whose first frame it is. A sample without both has a trajectory, from whose first masks a
            few-shot model draws the first frame itself.
        plan: the sentence, taken apart; None: the model's own planner does it.
        masks: first-frame ids, a PNG of one channel (0 = background, k = the plan's k-th object).
        trajectory: the true motion, a trajectory (.npz). Held against what a model makes; handed to it only on request.
        reference: the true video; None: ``video``, and without that none.
        category: for the table of categories.
        split: for the columns of the main table ("single", "multi").
        motions: for each object of the plan what it is asked to do, one of ``ttm.metrics.displacement.MOTIONS``.
    """

    id: str
    prompt: str
    image: Path | None = None
    video: Path | None = None
    plan: PromptPlan | None = None
    masks: Path | None = None
    trajectory: Path | None = None
    reference: Path | None = None
    category: str = ""
    split: str = ""
    motions: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All files that the sample names."""
        return [path for name in FILES if (path := getattr(self, name)) is not None]


@dataclass(frozen=True)
class SampleSuite:
    """Samples, in the order of the manifest, and what the suite is called."""

    name: str
    samples: tuple[Sample, ...]
    folder: Path = field(default_factory=Path)

    @property
    def splits(self) -> list[str]:
        """The splits that occur, in the order in which they do."""
        return list(dict.fromkeys(sample.split for sample in self.samples if sample.split))


def load_suite(path: str | Path, name: str = "") -> SampleSuite:
    """Read a suite.

    Args:
        path: a folder with a manifest, or the manifest itself.
        name: what to call the suite; "": what the manifest says, else the folder's name.

    Raises:
        FileNotFoundError: no manifest there.
        ValueError: no JSON, no sample, an unknown or missing key, two samples of one id, a path that leaves the folder.
    """
    found = _find(Path(path))
    entries, own_name = _entries(found)
    if not entries:
        raise ValueError(f"{found} holds no sample; expected at least one.")
    samples = tuple(_sample(values, found.parent, where) for where, values in entries)
    seen: set[str] = set()
    for (where, _), sample in zip(entries, samples, strict=True):
        # As file systems that ignore case and composition would see it.
        key = unicodedata.normalize("NFKC", sample.id).casefold()
        if key in seen:
            raise ValueError(f"{where}: the id {sample.id!r} is there twice; expected one sample an id.")
        seen.add(key)
    return SampleSuite(name or own_name or found.resolve().parent.name, samples, found.parent)


def write_manifest(folder: Path, entries: Iterable[Mapping[str, Any]]) -> Path:
    """Write ``manifest.jsonl`` into a folder, whole or not at all; checked as :func:`load_suite` would."""
    listed = [dict(entry) for entry in entries]
    for number, entry in enumerate(listed, start=1):
        _sample(entry, folder, f"sample {number}")
    path = folder / NAMES[0]
    with written_beside(path) as beside:
        beside.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in listed), encoding="utf-8")
    return path


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} holds no manifest; expected {' or '.join(NAMES)} in it, or the path of one.")


def _entries(path: Path) -> tuple[list[tuple[str, Any]], str]:
    """Where each entry stands, for errors, and the entry; and the suite's name, if the file says one."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            values = json.loads(text)
            if not isinstance(values, dict) or not isinstance(values.get("samples"), list):
                raise ValueError(f'{path} is no manifest; expected {{"name": …, "samples": [{{"id": …}}, …]}}.')
            named = [(f"{path}, sample {n}", entry) for n, entry in enumerate(values["samples"], start=1)]
            return named, str(values.get("name", ""))
        lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        return [(where, json.loads(line)) for where, line in lines], ""
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no manifest: it does not hold JSON ({error}).") from error


def _sample(values: Any, folder: Path, where: str) -> Sample:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is a {type(values).__name__}; expected an object with keys of {list(KEYS)}.")
    if unknown := [key for key in values if key not in KEYS]:
        raise ValueError(f"{where} has the unknown keys {unknown}; expected some of {list(KEYS)}.")
    given = {key: value for key, value in values.items() if value is not None}
    texts = {key: _text(given.get(key, ""), key, where) for key in TEXTS}
    check_id(texts["id"], where)
    if not texts["prompt"].strip():
        raise ValueError(f"{where} (id {texts['id']!r}) has no prompt; expected one sentence.")
    paths = {key: _inside(given[key], folder, f"{where}: {key}") for key in FILES if key in given}
    if ("image" in paths) + ("video" in paths) != 1 and ("image" in paths or "trajectory" not in paths):
        raise ValueError(f"{where} names the files {sorted(paths)}; expected an image or a video, one of both.")
    plan = _plan(given.get("plan"), folder, where)
    motions = _motions(given.get("motions", []), plan, where)
    values_of: dict[str, Any] = {**texts, **paths}
    return Sample(**values_of, plan=plan, motions=motions)


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key} is {value!r}; expected a text.")
    return value


def check_id(name: str, where: str) -> None:
    """An id names a folder: no separators, no control characters, nothing that a system gives a meaning.

    Raises:
        ValueError: another id; ``where`` says whose it is.
    """
    allowed = 0 < len(name) <= _LONGEST_ID and name == name.strip() and not name.startswith(".")
    if not allowed or any(c in '/\\:*?"<>|' or unicodedata.category(c).startswith("C") for c in name):
        raise ValueError(
            f"{where} has the id {name!r}; expected 1 to {_LONGEST_ID} characters that can name a folder: letters of"
            " any script, digits, spaces within, and - _ . but not first."
        )


def _inside(value: Any, folder: Path, where: str) -> Path:
    """A path below the folder. Judged by its words: links may lead elsewhere, as those of the Hub's cache do."""
    text = _text(value, "the path", where)
    pure = PurePosixPath(text)
    if not text or "\0" in text or pure.is_absolute() or PureWindowsPath(text).drive or ".." in pure.parts:
        raise ValueError(f"{where} is {text!r}; expected a path relative to the manifest's folder, and inside of it.")
    return folder / pure


def _plan(value: Any, folder: Path, where: str) -> PromptPlan | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return PromptPlan.load(_inside(value, folder, f"{where}: plan"))
        return PromptPlan.from_dict(value)
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: the plan can't be read: {error}") from error


def _motions(value: Any, plan: PromptPlan | None, where: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or any(motion not in MOTIONS for motion in value):
        raise ValueError(f"{where}: motions is {value!r}; expected a list of some of {list(MOTIONS)}.")
    if value and len(value) != (len(plan.objects) if plan else 0) or len(value) > MAX_OBJECTS:
        raise ValueError(f"{where}: {len(value)} motions; expected one for each object of the sample's plan.")
    return tuple(value)
