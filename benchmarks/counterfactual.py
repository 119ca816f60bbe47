"""What a scene of the synthetic world would look like if its objects changed their appearance otherwise.

In frame 0 no object has changed yet. So frame 0 of an object's layer, carried along its path and scale, is
the object that only moves; and a change of appearance is painted onto that by the world's own rules (a test
holds that the two agree).

Letters: T frames, H W pixels, L objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ttm.data.sprites import COLOURS
from ttm.data.synthetic import SceneObject, SyntheticScene


def without(scene: SyntheticScene, number: int) -> NDArray[np.uint8]:
    """The scene without object ``number`` (counted from 0), the others as they are, uint8 [T, H, W, 3]."""
    frames = np.repeat(scene.background[None], scene.ids.shape[0], axis=0).astype(np.float32)
    for other, layer in enumerate(scene.layers):
        if other != number:
            opacity = layer[..., 3:].astype(np.float32) / 255
            frames = frames * (1 - opacity) + layer[..., :3] * opacity
    return frames.round().astype(np.uint8)


def with_appearances(scene: SyntheticScene, appearances: Sequence[str | None]) -> NDArray[np.uint8]:
    """The scene with another change of appearance for each object.

    Args:
        scene: the scene.
        appearances: for each object None, "turns <colour>", "spins" or "flashes".

    Returns:
        uint8 [T, H, W, 3].

    Raises:
        ValueError: not one appearance an object, or an unknown one.
    """
    if len(appearances) != len(scene.objects):
        raise ValueError(f"{len(appearances)} appearances for {len(scene.objects)} objects; expected one each.")
    frames = np.repeat(scene.background[None], scene.ids.shape[0], axis=0).astype(np.float32)
    for item, layer, appearance in zip(scene.objects, scene.layers, appearances, strict=True):
        for t in range(len(frames)):
            opacity = layer[t, ..., 3:].astype(np.float32) / 255
            frames[t] = frames[t] * (1 - opacity) + _colour(item, layer[0], t, appearance) * opacity
    return frames.round().astype(np.uint8)


def _colour(item: SceneObject, first: NDArray[np.uint8], t: int, appearance: str | None) -> NDArray[np.float32]:
    """The object's colour in frame ``t``, float32 [H, W, 3]; ``first`` [H, W, 4] is its layer in frame 0."""
    time = t / (len(item.path) - 1)
    inside = first[..., 3] > 127
    colour = first[..., :3].astype(np.float32)
    middle_x, middle_y = (float(value) for value in item.path[0])
    if appearance is not None and appearance.startswith("turns "):
        light = colour.mean(axis=2, keepdims=True)
        shade = np.clip(light / max(float(light[inside].mean()), 1.0), 0.4, 1.4)
        amount = min(1.0, 1.25 * time)
        colour = (1 - amount) * colour + amount * np.array(COLOURS[appearance.split()[1]], np.float32) * shade
    elif appearance == "flashes":
        colour = colour + (255 - colour) * 0.9 * (0.5 - 0.5 * np.cos(4 * np.pi * time))
    elif appearance not in (None, "spins"):
        raise ValueError(f"appearance is {appearance!r}; expected None, 'turns <colour>', 'spins' or 'flashes'.")
    colour = _filled(np.clip(colour, 0, 255), inside, first[..., 3] > 0)
    angle = 2 * np.pi * time if appearance == "spins" else 0.0
    # Forward map: turn and scale about the first centre, then move to where the centre is now.
    scale = float(item.scale[t] / item.scale[0])
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    x, y = (float(value) for value in item.path[t])
    forward = np.array(
        [
            [cosine, -sine, x - cosine * middle_x + sine * middle_y],
            [sine, cosine, y - sine * middle_x - cosine * middle_y],
        ],
        np.float32,
    )
    height, width = inside.shape
    moved = cv2.warpAffine(colour, forward, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(height, width, 3).astype(np.float32)


def _filled(colour: NDArray[np.float32], inside: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Continue the object's colours where it was not drawn, so that a turned texture has no holes."""
    if not inside.any():
        return colour
    _, labels = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(labels.max()) + 1, 3), np.float32)
    table[labels[inside]] = colour[inside]
    return np.where(drawn[..., None], colour, table[labels])
