"""``python -m benchmarks.build_suite KIND …``: make a suite's folder, with a manifest.

    python -m benchmarks.build_suite synthetic OUT
    python -m benchmarks.build_suite sa-v OUT --table scores.csv --videos SA-V
    python -m benchmarks.build_suite image-animation-bench OUT --table scores.csv --videos VIDEOS
    python -m benchmarks.build_suite table FOLDER --table FOLDER/metadata.csv id=video_id video=file prompt=caption

The tables of scores are computed by the user, with whatever models the paper's protocol asks for: columns id,
category, aesthetic, motion, objects, caption, and where the video's file is not VIDEOS/<id>.mp4, file. "table" writes
the manifest of a folder that is complete otherwise, as a published data set is: each key=column names the column that
a key of the manifest is taken from. docs/benchmarks.md has the manifest's format.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.candidate_table import candidates, read_table
from benchmarks.manifest import KEYS, check_id, write_manifest
from benchmarks.measure import Settings
from benchmarks.scenes import load_scene, scene_names
from benchmarks.selection import select_image_animation_bench, select_sa_v
from ttm.data.sa_v import ANNOTATED_EVERY, VIDEO_FPS, JsonMasklets
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory

SA_V_FRAMES = 128
"""Frames of an SA-V video that the captions and the true motion are of."""
SA_V_ANNOTATIONS = math.ceil((SA_V_FRAMES - 1) / ANNOTATED_EVERY) + 1
"""Annotated frames that say where its objects are: of the last frame, 127, the nearest is the one after it, 128."""
FPS = 8.0
"""Of the synthetic world."""


def build_synthetic(folder: Path, settings: Settings) -> Path:
    """The held-out scenes of the synthetic world as a suite: pictures, true videos and motions, plans.

    Args:
        folder: made if absent; files that are there are written again.
        settings: scenes, size, num_frames and seed count.

    Returns:
        the manifest.
    """
    entries = []
    for name in scene_names(settings):
        scene = load_scene(settings, name)
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.frames[0]).save(place / "image.png")
        Image.fromarray(scene.ids[0]).save(place / "masks.png")
        MaskTrajectory(scene.ids, FPS).save(place / "trajectory.npz")
        write_video(place / "reference.mp4", scene.frames, FPS)
        kinds = {item.appearance.split()[0] for item in scene.objects if item.appearance}
        entries.append(
            {
                "id": name,
                "prompt": scene.plan.prompt,
                **{key: f"{name}/{key}.png" for key in ("image", "masks")},
                "reference": f"{name}/reference.mp4",
                "trajectory": f"{name}/trajectory.npz",
                "plan": scene.plan.to_dict(),
                "motions": [item.motion for item in scene.objects],
                "category": " and ".join(sorted(kinds)) or "motion alone",
                "split": name.split("-")[0],
            }
        )
    return write_manifest(folder, entries)


def build_selected(
    folder: Path, chosen: Mapping[str, Sequence[str]], rows: Sequence[Mapping[str, Any]], videos: Path
) -> Path:
    """Chosen videos of a larger collection as a suite.

    The videos are linked, not copied; they and their annotations may be links to files of other names, as in the Hub's
    cache. Where an SA-V annotation ``<id>_manual.json`` lies beside a video, or beside the file that a video is a link
    to, its first ``SA_V_ANNOTATIONS`` (fewer, if the video is shorter) become the sample's true trajectory, at 6
    frames a second. If no object shows in them, a line says so, and the sample has none.

    Args:
        folder: made if absent.
        chosen: ids by split; the split "" is none.
        rows: of the table: id, caption, category, and file if that is not <id>.mp4.
        videos: the folder that the files lie in.

    Raises:
        FileNotFoundError: a chosen video is not there. ValueError: a row has no caption, or an id that can't name a
            file; or a damaged annotation. FileExistsError: a file of another kind lies where a link is to be.
    """
    for name in (name for names in chosen.values() for name in names):
        check_id(name, "The table")
    by_id = {str(row["id"]): row for row in rows}
    entries = []
    for split, names in chosen.items():
        for name in names:
            row = by_id[name]
            source = (videos / str(row.get("file") or f"{name}.mp4")).absolute()
            if not source.is_file():
                raise FileNotFoundError(f"{source} is no file; expected the video of {name!r}.")
            if not row.get("caption"):
                raise ValueError(f"Video {name!r} has no caption; expected one in the table.")
            entry = {"id": name, "video": f"videos/{name}{source.suffix}", "prompt": str(row["caption"])}
            entry |= {"category": str(row["category"]), "split": split}
            target = source.resolve()
            _link(target, folder / str(entry["video"]))
            beside = [path.with_name(f"{path.stem}_manual.json") for path in (source, target)]
            annotation = next((path for path in beside if path.is_file()), None)
            if annotation and (truth := _true_motion(annotation)) is not None:
                entry["trajectory"] = f"trajectories/{name}.npz"
                (folder / "trajectories").mkdir(parents=True, exist_ok=True)
                truth.save(folder / entry["trajectory"])
            entries.append(entry)
    return write_manifest(folder, entries)


def build_from_table(folder: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Path:
    """The manifest of a folder that is complete otherwise.

    Args:
        folder: of the data.
        rows: of its table.
        columns: for each key of the manifest, the table's column.

    Raises:
        ValueError: an unknown key, a column that no row has, or a row that is no sample.
    """
    if unknown := sorted(set(columns) - set(KEYS)):
        raise ValueError(f"The keys {unknown} are unknown; expected some of {list(KEYS)}.")
    found = {column for row in rows for column in row}  # in JSON a row may leave out what it has not
    if missing := sorted(set(columns.values()) - found):
        raise ValueError(f"The table has no columns {missing}; it has {sorted(found)}.")
    entries = [
        {key: value for key, column in columns.items() if (value := row.get(column)) not in (None, "")} for row in rows
    ]
    for entry in entries:
        entry["id"] = str(entry.get("id", ""))  # a number in JSON names a folder as well
    return write_manifest(folder, entries)


def _true_motion(annotation: Path) -> MaskTrajectory | None:
    """Of a video's first frames; None, and a line, where no object shows in them."""
    masklets = JsonMasklets(annotation)
    times = range(min(SA_V_ANNOTATIONS, len(masklets.frames)))
    if not any(masklets.area(time, number) for time in times for number in range(masklets.num_objects)):
        print(f"{annotation} shows no object in its first {len(times)} annotated frames: the sample has no true motion")
        return None
    return MaskTrajectory(masklets.ids(times), VIDEO_FPS / ANNOTATED_EVERY)


def _link(source: Path, target: Path) -> None:
    """Links of an earlier run are replaced; a real file, the source itself or another, stays what it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        if target.samefile(source):
            return
        raise FileExistsError(f"{target} is there already and no link; expected another folder to write.")
    os.symlink(source, target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        print(f"wrote {_build(chosen)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _build(chosen: argparse.Namespace) -> Path:
    folder: Path = chosen.folder
    folder.mkdir(parents=True, exist_ok=True)
    if chosen.kind == "synthetic":
        return build_synthetic(folder, Settings(chosen.scenes, 0, chosen.seed, chosen.size, chosen.frames))
    rows = read_table(chosen.table)
    if chosen.kind == "table":
        if bad := [text for text in chosen.columns if "=" not in text]:
            raise ValueError(f"{bad} name no column; expected key=column.")
        return build_from_table(folder, rows, dict(text.split("=", 1) for text in chosen.columns))
    if chosen.kind == "sa-v":
        groups = select_sa_v(candidates(rows), chosen.top, chosen.each, chosen.seed)
    else:
        groups = {"": select_image_animation_bench(candidates(rows), chosen.count, chosen.categories)}
    return build_selected(
        folder, {name: [item.id for item in group] for name, group in groups.items()}, rows, chosen.videos
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build_suite", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = parser.add_subparsers(dest="kind", required=True)
    options: dict[str, dict[str, Any]] = {
        "synthetic": {"scenes": 128, "seed": 0, "size": 128, "frames": 17},
        "sa-v": {"top": 500, "each": 64, "seed": 0},
        "image-animation-bench": {"count": 2500, "categories": 16},
        "table": {},
    }
    for kind, numbers in options.items():
        sub = kinds.add_parser(kind)
        sub.add_argument("folder", type=Path, help="where the suite goes")
        for name, default in numbers.items():
            sub.add_argument(f"--{name}", type=int, default=default)
        if kind != "synthetic":
            sub.add_argument("--table", type=Path, required=True, help=".csv, .jsonl or .json")
        if kind == "table":
            sub.add_argument("columns", nargs="+", help="key=column")
        elif kind != "synthetic":
            sub.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
