"""What a keyframe file may hold, and readable errors for what it may not. docs/keyframes.md explains it to users.

Places are pixels from the canvas's top left corner, x to the right, y down: a canvas 128 wide reaches from 0 to 128,
and its first pixel's centre lies at 0.5.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ttm.objects import MAX_OBJECTS

Point = tuple[float, float]
Size = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Ease = Literal["linear", "ease_in", "ease_out", "ease_in_out", "hold"]
SHAPES = ("rectangle", "ellipse", "polygon", "mask")

_LONGEST_SIDE, _MOST_FRAMES = 8192, 4096
_ROUNDED = 0.01
"""Frames by which a time in seconds may lie after the last frame: people write 1.667 for 20 / 12."""


def _both_axes(value: Any) -> Any:
    """One number scales both axes alike."""
    if isinstance(value, list):
        return tuple(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (value, value) if number else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Shape(_Strict):
    """What an object looks like: exactly one of ``SHAPES``, or ``id`` alone: an object of the first-frame mask.

    Attributes:
        rectangle: width and height, pixels.
        ellipse: the two diameters, pixels.
        polygon: three or more corners on the canvas.
        mask: a picture in the folder of the keyframe file, or below; white, or the pixels of ``id``.
        id: which object of the mask picture, or of the first-frame mask.
    """

    rectangle: Size | None = None
    ellipse: Size | None = None
    polygon: Annotated[list[Point], Field(min_length=3)] | None = None
    mask: Annotated[str, Field(min_length=1)] | None = None
    id: Annotated[int, Field(ge=1, le=MAX_OBJECTS)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Shape:
        kinds = [name for name in SHAPES if getattr(self, name) is not None]
        if len(kinds) > 1 or not (kinds or self.id):
            found = " and ".join(kinds) or "no shape"
            raise ValueError(f"holds {found}; expected one of {', '.join(SHAPES)}, or an 'id' of the first-frame mask")
        if self.id and kinds not in ([], ["mask"]):
            raise ValueError(f"holds an 'id' beside a {kinds[0]}; expected it beside a mask, or alone")
        return self


class Keyframe(_Strict):
    """Where an object is at one moment.

    It sets what it names; the rest runs on to the next keyframe that names it. What an object's first keyframe does not
    name is as the shape is: in its own place, of its own size, not turned.

    Attributes:
        frame: the moment, counted from 0; parts of a frame are allowed. Either this
        time: or this, in seconds.
        position: of the object's centre on the canvas.
        offset: the same, counted from the place that a polygon or a mask has of its own.
        through: points that the way to here passes through, in order, each as ``position`` or ``offset`` counts.
        scale: of its size; one number, or one for each of the object's own axes.
        rotation: degrees, clockwise; not wrapped: 720 turns twice.
        ease: how it goes from here to the next keyframe.
    """

    frame: Annotated[float, Field(ge=0)] | None = None
    time: Annotated[float, Field(ge=0)] | None = None
    position: Point | None = None
    offset: Point | None = None
    through: list[Point] = []
    scale: Annotated[Size, BeforeValidator(_both_axes)] | None = None
    rotation: float | None = None
    ease: Ease = "linear"

    @model_validator(mode="after")
    def _one_of_each(self) -> Keyframe:
        if (self.frame is None) == (self.time is None):
            raise ValueError("needs a moment; expected one of 'frame' and 'time'")
        if self.position is not None and self.offset is not None:
            raise ValueError("holds 'position' and 'offset'; expected one of them")
        if self.through and self.position is None and self.offset is None:
            raise ValueError("holds 'through' without an end; expected 'position' or 'offset' beside it")
        return self


class MovingObject(_Strict):
    """One object of the list; the k-th (from 1) has id k.

    Attributes:
        name: what an error calls it; the file's reader may choose it freely.
        shape: what it looks like; left out: the first-frame mask's object of the same id.
        keyframes: how it moves; none: it stays where its polygon or mask has it.
        path: "straight" from point to point, or "smooth": one curve through all points (Catmull-Rom).
        layer: the higher is in front; among equals, the later in the list.
        visible: first and last frame in which it can be seen; left out: in all.
    """

    name: str = ""
    shape: Shape | None = None
    keyframes: list[Keyframe] = []
    path: Literal["straight", "smooth"] = "straight"
    layer: int = 0
    visible: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None


class Scene(_Strict):
    """A whole keyframe file.

    Attributes:
        width: of the canvas, pixels; may be left out (with ``height``) where there is a first-frame mask.
        height: of the canvas.
        fps: frames a second.
        frames: how many.
        objects: 1 to ``MAX_OBJECTS``.
    """

    width: Annotated[int, Field(ge=1, le=_LONGEST_SIDE)] | None = None
    height: Annotated[int, Field(ge=1, le=_LONGEST_SIDE)] | None = None
    fps: Annotated[float, Field(gt=0, le=1000)] = 8.0
    frames: Annotated[int, Field(ge=1, le=_MOST_FRAMES)]
    objects: Annotated[list[MovingObject], Field(min_length=1, max_length=MAX_OBJECTS)]

    @model_validator(mode="after")
    def _whole_canvas(self) -> Scene:
        if (self.width is None) != (self.height is None):
            raise ValueError("holds one of 'width' and 'height'; expected both, or none beside a first-frame mask")
        return self

    def frame_of(self, keyframe: Keyframe) -> float:
        """The moment of a keyframe, in frames from 0; a time that was rounded to just after the last is the last."""
        if keyframe.frame is not None:
            return keyframe.frame
        assert keyframe.time is not None
        moment, last = keyframe.time * self.fps, float(self.frames - 1)
        return last if last < moment <= last + _ROUNDED else moment


def read_scene(text: str | bytes, name: str) -> Scene:
    """Read the text of a keyframe file.

    Args:
        text: JSON.
        name: what to call it in an error.

    Raises:
        ValueError: no JSON, an unknown key (the nearest known one is named), a value of another type or range,
            keyframes that are not in order or lie after the clip's end; says where in the file.
    """
    try:
        scene = Scene.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{name}: {_told(error)}") from error
    for number, item in enumerate(scene.objects):
        place = f"{name}: {object_place(number, item)}"
        _check_moments(scene, item, place)
        if item.visible is not None and not item.visible[0] <= item.visible[1] < scene.frames:
            expected = f"[first, last] of the frames 0 to {scene.frames - 1}"
            raise ValueError(f"{place}.visible is {list(item.visible)}; expected {expected}.")
    return scene


def object_place(number: int, item: MovingObject) -> str:
    """How an error names the object at ``number`` (from 0)."""
    return f"objects[{number}]" + (f" ({item.name!r})" if item.name else "")


def _check_moments(scene: Scene, item: MovingObject, place: str) -> None:
    before = -1.0
    for number, keyframe in enumerate(item.keyframes):
        kind = "frame" if keyframe.frame is not None else "time"
        value, moment = getattr(keyframe, kind), scene.frame_of(keyframe)
        here = f"{place}.keyframes[{number}].{kind} is {value:g}"
        if moment <= before:
            raise ValueError(f"{here}, not after the keyframe before it; expected rising moments.")
        if moment > scene.frames - 1:
            last = scene.frames - 1 if kind == "frame" else (scene.frames - 1) / scene.fps
            raise ValueError(f"{here}; expected at most {last:g}, the last {kind} of the clip.")
        before = moment


def _told(error: ValidationError) -> str:
    """The first thing that is wrong, and where, in one line."""
    errors = error.errors(include_url=False)
    # A misspelt key comes first: the key that it was meant to be is missing for that reason.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    kind, location = first["type"], first["loc"]
    if kind == "json_invalid":
        return f"no JSON ({first['ctx']['error']})."
    place = _place(location) or "the file"
    if kind == "extra_forbidden":
        key, known = str(location[-1]), _known_keys(location[:-1])
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
        return f"{_place(location[:-1]) or 'the file'} has an unknown key {key!r}; {hint}"
    if kind == "value_error":
        return f"{place} {first['ctx']['error']}."
    if kind == "missing":
        return f"{place} is missing."
    reason = re.sub(r"^(Input|List|Tuple) should (be|have) | after validation", "", first["msg"])
    shown = json.dumps(first["input"])
    return f"{place} is {shown if len(shown) <= 60 else shown[:57] + '...'}; expected {reason}."


def _place(location: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at a location of the file knows."""
    model: type[BaseModel] = Scene
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_within(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_within(annotation: Any) -> type[BaseModel] | None:
    """The one model that an annotation such as ``list[Keyframe]`` or ``Shape | None`` holds."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in typing.get_args(annotation) if (found := _model_within(part))), None)
