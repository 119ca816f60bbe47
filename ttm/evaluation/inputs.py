"""What is scored: videos of a folder, paired by name with references, prompts and trajectories.

A video's name is its path in the folder without the suffix, in Unicode's composed form, so that a name means the same
whichever system wrote it. All pairing is checked before any video is read.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ttm.data.video_reader import read_video, read_windows
from ttm.data.video_timeline import read_timeline
from ttm.metrics.scoring import Clip

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".gif", ".mpg", ".mpeg")
TRAJECTORY_SUFFIX = ".npz"
VIDEO, TRAJECTORY = "video.mp4", "trajectory.npz"
BESIDE_IT: dict[tuple[str, ...], tuple[str, ...]] = {
    ("run.json", VIDEO): ("trajectory.mp4", "overlay.mp4"),
    ("record.json",): ("reference.mp4", "overlay.mp4", "compare-*.mp4", "truth.npz"),
}
"""What tells a folder of ``ttm generate``, and a sample of a benchmark's run (which has no video where it failed); and
what lies there that is neither the model's video nor its trajectory."""
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Form:
    """What every video and reference is brought to before scoring; None leaves it as it is.

    Attributes:
        num_frames: the first so many.
        fps: frames a second; each frame is the nearest in time. Not above the file's own.
        size: (H, W), the largest centred part of that aspect ratio, resized.
    """

    num_frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Item:
    """The files of one sample."""

    name: str
    video: Path | None = None
    reference: Path | None = None
    prompt: str | None = None
    trajectory: Path | None = None


def find_files(path: Path, suffixes: Iterable[str], what: str) -> dict[str, Path]:
    """The files of a folder and its subfolders by name, or one file.

    Of what ``ttm generate`` or a benchmark's run wrote, the model's videos alone, and trajectories under their names.

    Raises:
        ValueError: no such path, no such file in it, or two files of one name.
    """
    endings = tuple(suffixes)
    if path.is_file():
        return {_composed(path.stem): path}
    if not path.is_dir():
        raise ValueError(f"{what}: {path} is not there; expected a folder or one file.")
    found: dict[str, Path] = {}
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() not in endings or not file.is_file() or file.name.startswith("."):
            continue
        beside = _beside(file.parent)
        if any(file.match(pattern) for pattern in beside):
            continue
        of = file.with_name(VIDEO) if beside and file.name == TRAJECTORY else file
        name = _composed(of.relative_to(path).with_suffix("").as_posix())
        if name in found:
            raise ValueError(f"{what}: {found[name].name} and {file.name} have one name; expected one file a name.")
        found[name] = file
    if not found:
        raise ValueError(f"{what}: {path} holds none; expected files that end in {', '.join(endings)}.")
    return found


def read_prompts(path: Path) -> dict[str, str]:
    """A prompt for every name, from JSON, YAML or CSV.

    JSON and YAML: ``{name: prompt}``, or a list of ``{"video": name, "prompt": prompt}``. CSV: a header with the
    columns ``video`` and ``prompt``. A name may carry the video's suffix.

    Raises:
        ValueError: no such file, another form, a row of more cells than there are columns, an empty prompt, or two rows
            of one name.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not there; expected a file of prompts (.json, .yaml or .csv).")
    try:
        rows = _rows(path)
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} can't be read ({error}); expected JSON, YAML or CSV in UTF-8.") from error
    prompts: dict[str, str] = {}
    for name, prompt in rows:
        key = plain_name(name)
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"{path}: the prompt of {name!r} is {prompt!r}; expected a text.")
        if key in prompts:
            raise ValueError(f"{path} has two rows for {key!r}; expected one.")
        prompts[key] = prompt.strip()
    return prompts


def plain_name(name: str) -> str:
    """A name as :func:`find_files` gives it, from one that may carry a suffix."""
    text = _composed(str(name)).replace("\\", "/").removeprefix("./")
    stem, dot, suffix = text.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else text


def pair(
    videos: Mapping[str, Path],
    references: Mapping[str, Path] | None = None,
    prompts: Mapping[str, str] | None = None,
    trajectories: Mapping[str, Path] | None = None,
    required: Iterable[str] = (),
) -> list[Item]:
    """One item a video, and one for each reference that no video has the name of.

    Two single files are a pair whatever their names.

    Args:
        videos: by name.
        references: by name.
        prompts: by name.
        trajectories: by name.
        required: which of "reference", "prompt" and "ids" every video must have.

    Raises:
        ValueError: a video lacks something that is required; names the first few.
    """
    references, prompts, trajectories = references or {}, prompts or {}, trajectories or {}
    if len(videos) == 1:
        name = next(iter(videos))
        references, prompts, trajectories = (_renamed(each, name) for each in (references, prompts, trajectories))
    kinds: dict[str, Mapping[str, Any]] = {"reference": references, "prompt": prompts, "ids": trajectories}
    for need in required:
        absent = [name for name in videos if name not in kinds[need]]
        if absent:
            what = {"reference": "reference video", "prompt": "row in the prompts", "ids": "trajectory"}[need]
            raise ValueError(f"{len(absent)} of {len(videos)} videos have no {what}: {_some(absent)}.")
    items = [
        Item(name, path, references.get(name), prompts.get(name), trajectories.get(name))
        for name, path in videos.items()
    ]
    return items + [Item(name, None, path) for name, path in references.items() if name not in videos]


def read_clip(path: Path, form: Form) -> tuple[Clip, NDArray[np.int64]]:
    """A video in the form that is asked for, and which of the file's frames these are, int [T].

    Raises:
        ValueError: no video, a damaged one, one with too few frames, or of a lower frame rate than asked for.
    """
    if form.fps is None:
        video = read_video(path, num_frames=form.num_frames, size=form.size)
        return Clip(video.frames, video.fps), np.arange(len(video.frames))
    timeline = read_timeline(path)
    shown, rate = timeline.at_rate()
    if form.fps > rate * 1.001:
        raise ValueError(f"{path.name} has {rate:.4g} frames a second; expected at least {form.fps:.4g}.")
    step = rate / form.fps
    count = int((len(shown) - 0.5) / step - 1e-6) + 1  # the last time may lie half a frame behind the last frame
    if form.num_frames is not None and count < form.num_frames:
        raise ValueError(f"{path.name} has {count} frames at {form.fps:.4g} a second; expected {form.num_frames}.")
    nearest = np.floor(step * np.arange(form.num_frames or count) + 0.5).astype(int)
    chosen = np.minimum(nearest, len(shown) - 1)
    (frames,) = read_windows(path, timeline, [[shown[number] for number in chosen]], form.size)
    return Clip(frames, form.fps), chosen


def _beside(folder: Path) -> tuple[str, ...]:
    """What to leave out of a folder; empty where no program of ours wrote it."""
    found = (names for told, names in BESIDE_IT.items() if all((folder / name).is_file() for name in told))
    return next(found, ())


def _rows(path: Path) -> list[tuple[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = list(reader.fieldnames or ())
        if columns.count("video") != 1 or columns.count("prompt") != 1:
            raise ValueError(f"{path} has the columns {columns}; expected video and prompt, each once.")
        rows = list(reader)
        for number, row in enumerate(rows, start=1):
            if None in row:  # what an unquoted comma cuts off
                raise ValueError(
                    f"{path}: row {number} ({row['video']!r}) has more cells than the head line; expected quotes around"
                    " a prompt with a comma."
                )
        return [(str(row["video"]), row["prompt"]) for row in rows]
    values = _yaml(path, text) if path.suffix.lower() in (".yaml", ".yml") else _json(path, text)
    if isinstance(values, dict):
        return [(str(name), prompt) for name, prompt in values.items()]
    if isinstance(values, list) and all(isinstance(row, dict) and {"video", "prompt"} <= set(row) for row in values):
        return [(str(row["video"]), row["prompt"]) for row in values]
    raise ValueError(f"{path} holds neither {{name: prompt}} nor a list of rows with 'video' and 'prompt'.")


def _json(path: Path, text: str) -> Any:
    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _expect_once(path, [key for key, _ in pairs])
        return dict(pairs)

    return json.loads(text, object_pairs_hook=mapping)


def _yaml(path: Path, text: str) -> Any:
    class Loader(yaml.BaseLoader):  # every scalar a text: a video may be called 007 or no
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
            mapping: dict[str, Any] = super().construct_mapping(node, deep)
            _expect_once(path, [self.construct_object(key) for key, _ in node.value])
            return mapping

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} can't be read ({' '.join(str(error).split())}); expected YAML.") from error


def _expect_once(path: Path, keys: Iterable[str]) -> None:
    """JSON and YAML alone would take the last of two without a word."""
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise ValueError(f"{path} has the key {twice[0]!r} twice in one mapping; expected it once.")


def _renamed(files: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return {name: next(iter(files.values()))} if len(files) == 1 else files


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    return shown + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")
