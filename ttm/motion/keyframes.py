"""Mask trajectories drawn by keyframes: a small JSON file that says what moves, and where it is when.

The format is explained in docs/keyframes.md and held by ``keyframe_schema.py``.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttm.motion.drawn_shapes import CutOut, Outline
from ttm.motion.keyframe_motion import poses
from ttm.motion.keyframe_schema import MovingObject, Scene, Shape, object_place, read_scene
from ttm.motion.mask_pictures import read_mask_file
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import validate_ids


@dataclass(frozen=True)
class Keyframes:
    """A checked keyframe file, ready to be drawn.

    Attributes:
        scene: what it holds.
        name: what errors call it.
        folder: where its mask pictures lie.
    """

    scene: Scene
    name: str = "keyframes"
    folder: Path | None = None

    @classmethod
    def load(cls, path: str | Path) -> Keyframes:
        """Read a keyframe file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it holds something else; says what is wrong, and where in the file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file; expected keyframes (.json).")
        return cls(read_scene(path.read_bytes(), str(path)), str(path), path.parent)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], folder: str | Path | None = None) -> Keyframes:
        """The same from plain JSON values; ``folder`` is where their mask pictures lie.

        Raises:
            ValueError: as :meth:`load`.
        """
        return cls(read_scene(json.dumps(values), "keyframes"), folder=None if folder is None else Path(folder))

    def draw(self, first_ids: NDArray[np.integer[Any]] | None = None) -> MaskTrajectory:
        """Draw every frame.

        Args:
            first_ids: a first-frame mask, ids [H, W]; the canvas has its size, and an object without a shape of its
                own is the mask's object of the same id (or of its shape's ``id``).

        Returns:
            the trajectory; the k-th object of the list (from 1) has id k.

        Raises:
            ValueError: no size, or another than the first-frame mask's; an object of that mask which nothing takes;
                a mask picture that is missing, damaged or outside of the file's folder; an object without a place, or
                that is never visible. Says where in the file.
        """
        first = None if first_ids is None else validate_ids(first_ids, ndim=2, name="The first-frame mask")
        height, width = self._canvas(first)
        self._check_all_taken(first)
        ids = np.zeros((self.scene.frames, height, width), np.uint8)
        drawn = np.zeros(len(self.scene.objects), bool)
        for index in sorted(range(len(self.scene.objects)), key=lambda k: self.scene.objects[k].layer):
            item, place = self.scene.objects[index], self._place(index)
            shape = self._shape(item, index, first)
            from_frame, to_frame = item.visible or (0, self.scene.frames - 1)
            for t, pose in enumerate(poses(self.scene, item, shape.home, place)):
                if from_frame <= t <= to_frame:
                    mask = shape.covered(pose, height, width)
                    drawn[index] |= mask.any()
                    ids[t][mask] = index + 1
        self._check_all_visible(ids, drawn)
        return MaskTrajectory(ids, self.scene.fps)

    def _place(self, index: int) -> str:
        return f"{self.name}: {object_place(index, self.scene.objects[index])}"

    def _canvas(self, first: NDArray[np.uint8] | None) -> tuple[int, int]:
        """Height and width."""
        width, height = self.scene.width, self.scene.height
        if width is None or height is None:
            if first is None:
                raise ValueError(f"{self.name}: width and height are missing; expected both, or a first-frame mask.")
            return first.shape[0], first.shape[1]
        if first is not None and first.shape != (height, width):
            raise ValueError(
                f"{self.name}: the canvas is {width} x {height}, the first-frame mask {first.shape[1]} x"
                f" {first.shape[0]}; expected one size (or leave out width and height)."
            )
        return height, width

    def _check_all_taken(self, first: NDArray[np.uint8] | None) -> None:
        if first is None:
            return
        shapes = [item.shape or Shape(id=index) for index, item in enumerate(self.scene.objects, start=1)]
        taken = {shape.id for shape in shapes if shape.mask is None}
        left = [int(number) for number in np.unique(first) if number and number not in taken]
        if left:
            raise ValueError(
                f"{self.name}: the first-frame mask holds object {left[0]}, which no object of the list takes; expected"
                " all of them (one without keyframes stays where it is)."
            )

    def _shape(self, item: MovingObject, index: int, first: NDArray[np.uint8] | None) -> Outline | CutOut:
        place = f"{self._place(index)}.shape"
        shape = item.shape or Shape(id=index + 1)
        if shape.rectangle:
            return Outline.rectangle(*shape.rectangle)
        if shape.ellipse:
            return Outline.ellipse(*shape.ellipse)
        if shape.polygon:
            try:
                return Outline.polygon(shape.polygon)
            except ValueError as error:
                raise ValueError(f"{place}.polygon {error}.") from error
        if shape.mask:
            return CutOut(self._mask_of_picture(shape.mask, shape.id, f"{place}.mask"))
        if first is None:
            missing = f"{place} is missing" if item.shape is None else f"{place}.id names an object of a mask"
            raise ValueError(f"{missing}; expected a shape, or a first-frame mask to take it from.")
        mask = first == shape.id
        if not mask.any():
            found = [int(number) for number in np.unique(first) if number]
            raise ValueError(f"{place}: the first-frame mask has no object {shape.id}; expected one of {found}.")
        return CutOut(mask)

    def _mask_of_picture(self, name: str, object_id: int | None, place: str) -> NDArray[np.bool_]:
        if self.folder is None:
            raise ValueError(f"{place} names a picture; expected the folder that it lies in.")
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"{place} is {name!r}; expected a picture in the folder of the keyframes, or below.")
        try:
            array = read_mask_file(path)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        if array.ndim != 2:
            raise ValueError(f"{place}: {name} holds {array.shape[0]} masks; expected one [H, W].")
        mask = np.asarray(array == (object_id or 1))  # True is 1
        if object_id is None and array.max() > 1:
            raise ValueError(f"{place}: {name} holds ids up to {array.max()}; expected an 'id' beside it.")
        if not mask.any():
            raise ValueError(f"{place}: {name} has no pixel of object {object_id or 1}; expected at least one.")
        return mask

    def _check_all_visible(self, ids: NDArray[np.uint8], drawn: NDArray[np.bool_]) -> None:
        for index in range(len(self.scene.objects)):
            if not (ids == index + 1).any():
                why = "lies behind others" if drawn[index] else "covers no pixel of the canvas"
                raise ValueError(f"{self._place(index)} is never visible: it {why} in every frame; expected it in one.")
