"""SA-V annotations: run lengths against an independent encoder, and the one real video through to the token grid."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ttm.data.sa_v import FolderMasklets, JsonMasklets, decode_mask, load_trajectory, run_lengths
from ttm.objects import MAX_OBJECTS

REAL = Path(os.environ.get("TTM_REAL_DATA", Path(__file__).parents[3] / "shared/data"))
needs_real_data = pytest.mark.skipif(
    not (REAL / "sav_000001_manual.json").is_file(), reason=f"no SA-V annotation in {REAL} (TTM_REAL_DATA)"
)


def encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO run lengths of a mask, written from the format's definition (runs down the columns, 5-bit groups)."""
    flat = np.asarray(mask, bool).T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *([0] if flat[0] else []), *edges, flat.size]).tolist()
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + (group | 32 * more))
    return {"size": list(mask.shape), "counts": text}


def annotation(path: Path, masks: np.ndarray) -> Path:
    """A file with masks bool [T, L, H, W]."""
    path.write_text(json.dumps({"masklet": [[encode(mask) for mask in frame] for frame in masks]}))
    return path


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_are_decoded(density: float) -> None:
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (7, 5), (64, 33), (1, 50), (200, 120)]:
        mask = rng.random(shape) < density
        np.testing.assert_array_equal(decode_mask(encode(mask)), mask)
        assert run_lengths(encode(mask))[1::2].sum() == mask.sum()


def test_run_lengths_as_pycocotools_writes_them() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    for shape in [(7, 5), (64, 33), (200, 120)]:
        mask = np.kron(rng.random(shape) < 0.3, np.ones((3, 2))) > 0
        encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
        text = {"size": list(mask.shape), "counts": encoded["counts"].decode()}
        assert text == encode(mask)
        np.testing.assert_array_equal(decode_mask(text), mask)


@pytest.mark.parametrize("counts", ["", "x", "P", "4n", "1 2", "\u20ac", "PPPPPPPPPPPPPP"])
def test_damaged_run_lengths_are_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="mask is damaged"):
        decode_mask({"size": [8, 8], "counts": counts})


def test_where_objects_overlap_the_smaller_one_is_in_front(tmp_path: Path) -> None:
    masks = np.zeros((2, 3, 10, 12), bool)
    masks[:, 0, 2:4, 2:4] = True  # smallest, and first in the file
    masks[:, 1, 0:8, 0:8] = True
    masks[1, 2, 1:6, 1:6] = True  # appears late, between the two in size
    trajectory = load_trajectory(annotation(tmp_path / "x.json", masks))
    assert trajectory.object_ids == [1, 2, 3] and trajectory.fps == 6
    np.testing.assert_array_equal(trajectory.ids == 1, masks[:, 0])
    np.testing.assert_array_equal(trajectory.ids == 3, masks[:, 2] & ~masks[:, 0])
    np.testing.assert_array_equal(trajectory.ids == 2, masks[:, 1] & ~masks[:, 2] & ~masks[:, 0])


def test_the_largest_objects_are_kept_in_the_order_of_the_file(tmp_path: Path) -> None:
    masks = np.zeros((1, 15, 40, 40), bool)
    sizes = [5, 1, 9, 2, 8, 3, 7, 10, 12, 11, 6, 4, 13, 14, 15]
    for number, size in enumerate(sizes):
        masks[0, number, 2 * number, :size] = True
    path = annotation(tmp_path / "x.json", masks)
    trajectory = load_trajectory(path)
    assert trajectory.areas()[0, 1:].tolist() == [size for size in sizes if size > 3]
    assert len(trajectory.object_ids) == MAX_OBJECTS
    assert load_trajectory(path, max_objects=2).areas()[0, :3].tolist() == [1600 - 29, 14, 15]


def test_absent_objects_leave_no_gap(tmp_path: Path) -> None:
    masks = np.zeros((3, 2, 6, 6), bool)
    masks[2, 0, 0, 0] = masks[:, 1, 5, 5] = True
    path = annotation(tmp_path / "x.json", masks)
    assert load_trajectory(path).object_ids == [1, 2]
    early = load_trajectory(path, num_frames=2)
    assert early.object_ids == [1] and early.ids[0, 5, 5] == 1
    assert load_trajectory(path, start=2).num_frames == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no whole JSON"),
        ('{"masklet": [[{"si', "no whole JSON"),
        ("[1]", "masklet"),
        ('{"masklet": []}', "masklet"),
        ('{"masklet": [[], []]}', "objects a frame"),
        ('{"masklet": [[{"size": [2, 2], "counts": "4"}], []]}', "objects a frame"),
        ('{"masklet": [[{"size": [0, 2], "counts": "4"}]]}', "height, width"),
        ('{"masklet": [[{"size": [2, 2], "counts": [4]}]]}', r"masklet\[0\]\[0\]"),
        ('{"masklet": [[{"size": [2, 2], "counts": "4"}, {"size": [2, 3], "counts": "6"}]]}', r"\[0\]\[1\]"),
        ('{"masklet": [[{"size": [2, 2], "counts": "5"}]]}', "5 pixels"),
        ('{"masklet": [[{"size": [2, 2], "counts": "4"}]]}', "no object"),
    ],
)
def test_files_that_are_no_annotation(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_trajectory(path)


def test_arguments_out_of_range(tmp_path: Path) -> None:
    path = annotation(tmp_path / "x.json", np.ones((4, 1, 2, 2), bool))
    with pytest.raises(FileNotFoundError, match="SA-V annotation"):
        load_trajectory(tmp_path / "missing.json")
    for wrong in ({"start": 4}, {"start": -1}, {"num_frames": 5}, {"num_frames": 0}):
        with pytest.raises(ValueError, match="4 annotated frames"):
            load_trajectory(path, **wrong)
    for count in (0, MAX_OBJECTS + 1):
        with pytest.raises(ValueError, match="max_objects"):
            load_trajectory(path, max_objects=count)


@needs_real_data
@pytest.mark.parametrize(("kind", "objects", "late"), [("manual", 5, {4: 113}), ("auto", 9, {})])
def test_real_masklets(kind: str, objects: int, late: dict[int, int]) -> None:
    path = REAL / f"sav_000001_{kind}.json"
    trajectory = load_trajectory(path)
    assert trajectory.ids.shape == (121, 848, 480)
    assert trajectory.object_ids == list(range(1, objects + 1))
    visible = trajectory.areas()[:, 1 : objects + 1] > 0
    assert {number + 1: int(first) for number, first in enumerate(visible.argmax(0)) if first} == late
    stated = json.loads(path.read_text())
    if kind == "manual":  # the file states each object's mean area over the frames in which it is visible
        whole = np.array([[run_lengths(item)[1::2].sum() for item in frame] for frame in stated["masklet"]])
        means = whole.sum(0) / np.maximum((whole > 0).sum(0), 1)
        assert (trajectory.areas()[:, 1:6] <= whole).all()
        assert trajectory.areas()[:, 1:6].sum() >= 0.9 * whole.sum()
        np.testing.assert_allclose(means[[1, 4]], np.array(stated["masklet_size_abs"])[[1, 4]], rtol=0.01)


@needs_real_data
def test_no_real_object_is_lost_on_the_latent_grid() -> None:
    torch = pytest.importorskip("torch")
    from ttm.models.masked_attention import object_token_mask, token_owner
    from ttm.motion.token_grid import object_coverage

    trajectory = load_trajectory(REAL / "sav_000001_manual.json")
    fitted = trajectory.resample(17).resize(128, 128)
    for small in (trajectory.resize(128, 128), fitted):
        visible = trajectory.areas() > 0 if small is not fitted else trajectory.resample(17).areas() > 0
        np.testing.assert_array_equal(small.areas()[:, 1:] > 0, visible[:, 1:])
    present = fitted.object_ids
    coverage = object_coverage(torch.from_numpy(fitted.ids)[None], MAX_OBJECTS, (5, 8, 8))
    sets = object_token_mask(coverage).any(dim=1)[0]
    assert [number for number in range(1, MAX_OBJECTS + 1) if sets[number - 1]] == present
    assert [int(number) for number in token_owner(coverage).unique() if number] == present


def masklet_folder(folder: Path, masks: np.ndarray, indexed: bool = False) -> Path:
    """masks bool [T, L, H, W] in the layout of the validation videos; an empty mask has no picture."""
    for time, frame in enumerate(masks):
        for number, mask in enumerate(frame):
            place = folder / f"{number:03d}"
            place.mkdir(parents=True, exist_ok=True)
            if mask.any():
                picture = Image.fromarray(mask.astype(np.uint8) * (1 if indexed else 255), mode="L")
                if indexed:
                    picture = picture.convert("P")
                picture.save(place / f"{4 * time:05d}.png")
    return folder


@pytest.mark.parametrize("indexed", [False, True])
def test_both_layouts_of_the_same_masks_are_the_same_trajectory(tmp_path: Path, indexed: bool) -> None:
    rng = np.random.default_rng(2)
    masks = rng.random((4, 3, 20, 30)) < 0.3
    masks[:2, 1] = False  # appears late
    masks[3] = False
    masks[3, 2, 0, 0] = True
    folder, file = masklet_folder(tmp_path / "v", masks, indexed), annotation(tmp_path / "x.json", masks)
    assert load_trajectory(folder) == load_trajectory(file)
    assert load_trajectory(folder, start=1, num_frames=2) == load_trajectory(file, start=1, num_frames=2)
    assert FolderMasklets(folder).frames == JsonMasklets(file).frames == [0, 4, 8, 12]
    assert FolderMasklets(folder).num_objects == 3 and FolderMasklets(folder).size == (20, 30)


def test_folders_that_are_no_annotation(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no mask"):
        load_trajectory(tmp_path / "empty")
    folder = masklet_folder(tmp_path / "v", np.ones((2, 1, 4, 6), bool))
    Image.fromarray(np.full((5, 6), 255, np.uint8)).save(folder / "000/00004.png")
    with pytest.raises(ValueError, match=r"\[5, 6\] pixels; expected \[4, 6\]"):
        load_trajectory(folder)
    (folder / "000/00004.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="read as a picture"):
        load_trajectory(folder)
    (folder / "000/00004.png").rename(folder / "000/last.png")
    with pytest.raises(ValueError, match="no frame's number"):
        load_trajectory(folder)
