"""Whatever is wrong with a keyframe file is one line that says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ttm.motion.keyframes import Keyframes

HERE = {"frame": 0, "position": [20, 20]}
SQUARE = {"rectangle": [8, 8]}


def _scene(*objects: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"width": 64, "height": 48, "frames": 9, "objects": list(objects), **more}


def _item(shape: dict[str, Any], *keyframes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"shape": shape, "keyframes": list(keyframes or [HERE]), **more}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (_scene(_item(SQUARE, {"frame": 0, "positon": [1, 2]})),
                    r"objects\[0\].keyframes\[0\] has an unknown key 'positon'; did you mean 'position'\?"),
    "unknown key of the file": (_scene(_item(SQUARE), framez=3), "the file has an unknown key 'framez'; .*'frames'"),
    "unknown shape": (_scene(_item({"rectangel": [1, 2]})), r"objects\[0\].shape has .*; did you mean 'rectangle'"),
    "type": (_scene(_item({"rectangle": [8, "wide"]})),
             r'objects\[0\].shape.rectangle\[1\] is "wide"; expected a valid num'),
    "not whole": (_scene(_item(SQUARE), frames=2.5), "frames is 2.5; expected a valid integer"),
    "boolean": (_scene(_item(SQUARE, {"frame": True, "position": [1, 2]})), r"keyframes\[0\].frame is true; expected"),
    "range": (_scene(_item(SQUARE, {**HERE, "scale": 0})), r"scale\[0\] is 0; expected greater than 0"),
    "fps": (_scene(_item(SQUARE), fps=0), "fps is 0; expected greater than 0"),
    "ease": (_scene(_item(SQUARE, {**HERE, "ease": "bouncy"})), "ease is \"bouncy\"; expected 'linear', 'ease_in'"),
    "corners": (_scene(_item({"polygon": [[1, 2], [3, 4]]})), "polygon is .*; expected at least 3 items"),
    "no area": (_scene(_item({"polygon": [[1, 1], [5, 5], [9, 9]]})), "shape.polygon encloses no area"),
    "no objects": (_scene(), r"objects is \[\]; expected at least 1 item"),
    "too many": (_scene(*[_item(SQUARE)] * 13), "objects is .*; expected at most 12 items"),
    "missing": ({"width": 64, "height": 48, "objects": [_item(SQUARE)]}, "frames is missing"),
    "half a size": ({"width": 64, "frames": 3, "objects": [_item(SQUARE)]}, "holds one of 'width' and 'height'"),
    "no size": ({"frames": 3, "objects": [_item(SQUARE)]}, "width and height are missing; .* a first-frame mask"),
    "two shapes": (_scene(_item({**SQUARE, "ellipse": [3, 4]})), "shape holds rectangle and ellipse; expected one of"),
    "no shape": (_scene(_item({})), "shape holds no shape; expected one of"),
    "id of a rectangle": (_scene(_item({**SQUARE, "id": 1})), "holds an 'id' beside a rectangle"),
    "order": (_scene(_item(SQUARE, {**HERE, "frame": 4}, {**HERE, "frame": 2}, name="ball")),
              r"objects\[0\] \('ball'\).keyframes\[1\].frame is 2, not after the keyframe before it"),
    "after the end": (_scene(_item(SQUARE, HERE, {"frame": 9, "position": [1, 2]})), "frame is 9; expected at most 8"),
    "time after the end": (_scene(_item(SQUARE, {**HERE, "frame": None, "time": 1.5})), "time is 1.5; .* at most 1,"),
    "no moment": (_scene(_item(SQUARE, {"position": [1, 2]})), r"keyframes\[0\] needs a moment; .*'frame' and 'time'"),
    "two places": (_scene(_item(SQUARE, {**HERE, "offset": [1, 2]})), "holds 'position' and 'offset'"),
    "no place": (_scene(_item(SQUARE, {"frame": 0, "scale": 2})), r"objects\[0\] has no place; .* first keyframe"),
    "no home": (_scene(_item(SQUARE, {"frame": 0, "offset": [1, 2]})), "has an offset, but its shape has no place"),
    "way without an end": (_scene(_item(SQUARE, HERE, {"frame": 3, "through": [[1, 2]]})), "'through' without an end"),
    "way without a beginning": (_scene(_item(SQUARE, {**HERE, "through": [[1, 2]]})), "where the way begins"),
    "visible": (_scene(_item(SQUARE, visible=[4, 9])), r"objects\[0\].visible is \[4, 9\]; expected .* 0 to 8"),
    "never there": (_scene(_item(SQUARE), _item(SQUARE, {"frame": 0, "position": [99, 20]})),
                    r"objects\[1\] is never visible: it covers no pixel of the canvas"),
    "never in front": (_scene(_item(SQUARE, name="ball"), _item({"rectangle": [9, 9]})),
                       r"objects\[0\] \('ball'\) is never visible: it lies behind others"),
    "no mask to take from": (_scene({"keyframes": [HERE]}), r"objects\[0\].shape is missing; .*first-frame mask"),
    "no mask for the id": (_scene(_item({"id": 1})), "shape.id names an object of a mask; .*first-frame mask"),
    "no such picture": (_scene(_item({"mask": "absent.png"})), r"objects\[0\].shape.mask: .*absent.png is not there"),
    "photograph": (_scene(_item({"mask": "photo.png"})), "photo.png is a colour picture"),
    "which one": (_scene(_item({"mask": "ids.png"})), "ids.png holds ids up to 2; expected an 'id' beside it"),
    "not in it": (_scene(_item({"mask": "ids.png", "id": 3})), "ids.png has no pixel of object 3"),
    "elsewhere": (_scene(_item({"mask": "../ids.png"})), r"mask is '\.\./ids.png'; expected a picture in the folder"),
    "absolute": (_scene(_item({"mask": "/etc/hostname"})), "mask is '/etc/hostname'; expected a picture in the folder"),
    "linked": (_scene(_item({"mask": "link.png"})), "mask is 'link.png'; expected a picture in the folder"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "inner"
    inner.mkdir()
    ids = np.zeros((48, 64), np.uint8)
    ids[4:9, 4:9], ids[20:30, 20:30] = 1, 2
    Image.fromarray(ids).save(inner / "ids.png")
    Image.fromarray(ids).save(tmp_path / "ids.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(inner / "photo.png")
    (inner / "link.png").symlink_to(tmp_path / "ids.png")
    return inner


@pytest.mark.parametrize("case", WRONG)
def test_an_error_says_where(folder: Path, case: str) -> None:
    values, message = WRONG[case]
    path = folder / "moves.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"moves.json: .*{message}") as caught:
        Keyframes.load(path).draw()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_no_json_is_called_so(tmp_path: Path) -> None:
    for text, message in (('{"frames": 3,', "no JSON .*line 1"), ("[]", "the file is .*; expected an object")):
        (tmp_path / "cut.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            Keyframes.load(tmp_path / "cut.json")
    with pytest.raises(FileNotFoundError, match=r"absent.json is no file; expected keyframes \(.json\)"):
        Keyframes.load(tmp_path / "absent.json")


def test_a_first_frame_mask_has_to_fit(folder: Path) -> None:
    ids = np.asarray(Image.open(folder / "ids.png"))
    cases = [
        (_scene({}, {}, width=32, height=32), "the canvas is 32 x 32, the first-frame mask 64 x 48; expected one size"),
        (_scene({}), "holds object 2, which no object of the list takes"),
        (_scene({}, {}, {}), r"objects\[2\].shape: the first-frame mask has no object 3; expected one of \[1, 2\]"),
    ]
    for values, message in cases:
        with pytest.raises(ValueError, match=message):
            Keyframes.from_dict(values).draw(ids)
    with pytest.raises(ValueError, match="names a picture; expected the folder"):
        Keyframes.from_dict(_scene(_item({"mask": "ids.png", "id": 1}))).draw()
