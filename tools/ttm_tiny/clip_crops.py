"""Crops and phrases for the small CLIP: objects under imperfect masks, parts of objects, and pieces of
background.

The crops are cut by the same rule by which the segmenter scores its masks (``ttm.segmentation.grounding``),
and the masks err as a small SAM2 does: too wide, too narrow, moved, rough, half an object, a patch of the
photograph.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.ttm_tiny.segmenter_scenes import varied_clip
from ttm.data.sprites import COLOURS, CUT_OUTS, SHAPES
from ttm.data.synthetic import SceneObject, SyntheticWorld, is_held_out
from ttm.segmentation.grounding import region_crop

NOTHING = "background"
OTHER_WORDS = {
    "ball": ("disc", "disk", "circle", "sphere"),
    "square": ("box", "cube"),
    "cross": ("plus",),
    "ring": ("donut", "hoop"),
    "cat": ("cat's face",),
    "astronaut": ("woman", "person", "face"),
    "cup": ("mug", "cup of coffee"),
}
ANYTHING = ("thing", "object", "shape")
TRAINING_PAIRS = tuple((c, s) for c in COLOURS for s in SHAPES if not is_held_out(c, s))
PHRASES = (*(f"{c} {s}" for c, s in TRAINING_PAIRS), *CUT_OUTS, NOTHING)
"""What a crop is told apart from: every pair of the training split, the cut-outs, and nothing at all."""
CONTRAST = (*(f"{c} {s}" for c in COLOURS for s in SHAPES), *CUT_OUTS, NOTHING)
"""What the trained segmenter holds against a phrase: everything that the world can draw."""


def said_otherwise(rng: np.random.Generator, phrase: str) -> str:
    """A phrase as some user might put it: now and then another word for the shape, or an article."""
    words = phrase.split()
    if words[-1] in OTHER_WORDS and rng.random() < 0.2:
        words[-1] = str(rng.choice(OTHER_WORDS[words[-1]]))
    start = str(rng.choice(["", "", "", "", "a ", "the "])) if phrase != NOTHING else ""
    return start + " ".join(words)


def crop_batch(
    world: SyntheticWorld, seed: int, step: int, scenes: int, side: int
) -> tuple[NDArray[np.uint8], list[tuple[str | None, str] | None]]:
    """Crops uint8 [M, S, S, 3] of so many scenes, and what each shows: (colour, shape), or None for nothing.

    Every object gives two crops a frame under imperfect masks; each scene gives about as many that show no
    whole object.
    """
    rng = np.random.default_rng([seed, 4, step])
    crops: list[NDArray[np.uint8]] = []
    names: list[tuple[str | None, str] | None] = []
    for number in range(scenes):
        scene = world[step * scenes + number]
        frames, ids = varied_clip(rng, scene, hues=False)
        for t in range(len(frames)):
            shown: dict[int, SceneObject] = {
                n: each for n, each in enumerate(scene.objects, start=1) if t == 0 or each.appearance is None
            }
            for mask, owner in _masks(rng, frames[t], ids[t]):
                if owner and owner not in shown:
                    continue
                crops.append(region_crop(frames[t], mask, side))
                names.append((shown[owner].colour, shown[owner].shape) if owner else None)
    return np.stack(crops), names


def _masks(
    rng: np.random.Generator, image: NDArray[np.uint8], ids: NDArray[np.uint8]
) -> list[tuple[NDArray[np.bool_], int]]:
    """Masks and what they show: the id of an object that they meet well, or 0. The undecided are left out."""
    whole = {int(value): ids == value for value in np.unique(ids) if value and (ids == value).sum() >= 60}
    found: list[NDArray[np.bool_]] = []
    for mask in whole.values():
        found += [_imperfect(rng, mask), _imperfect(rng, mask)]
        kind = rng.random()
        if kind < 0.3:
            found.append(_part(rng, mask))
        elif kind < 0.45:
            found.append(_dilated(mask, int(rng.integers(6, 16))))
    found += [_patch(rng, image) for _ in whole]
    if len(whole) > 1 and rng.random() < 0.3:
        found.append(np.logical_or.reduce(list(whole.values())))
    decided = []
    for mask in found:
        if mask.sum() < 20:
            continue
        ious = {value: (mask & each).sum() / (mask | each).sum() for value, each in whole.items()}
        best = max(ious, key=lambda value: ious[value], default=0)
        if ious.get(best, 0.0) >= 0.6:
            decided.append((mask, best))
        elif ious.get(best, 0.0) <= 0.4:
            decided.append((mask, 0))
    return decided


def _imperfect(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """As a mask comes out of a coarse decoder: moved, blurred, wider or narrower."""
    height, width = mask.shape
    moved = np.roll(mask, tuple(rng.integers(-2, 3, 2)), (0, 1)).astype(np.float32)
    coarse = cv2.resize(moved, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    coarse += rng.normal(0, 0.12, coarse.shape).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) > rng.uniform(0.3, 0.7)


def _part(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    return mask & (along > np.quantile(along[mask], rng.uniform(0.6, 0.85)))


def _dilated(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def _patch(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """A piece of the picture: what is alike around a random pixel, or a random ellipse."""
    height, width = image.shape[:2]
    seed = (int(rng.integers(width)), int(rng.integers(height)))
    if rng.random() < 0.6:
        blurred = cv2.GaussianBlur(np.ascontiguousarray(image), (5, 5), 0)
        filled = np.zeros((height + 2, width + 2), np.uint8)
        reach = (int(rng.integers(4, 30)),) * 3
        cv2.floodFill(
            blurred,
            filled,
            seed,
            (0, 0, 0),
            reach,
            reach,
            cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE,
        )
        return filled[1:-1, 1:-1] > 0
    drawn = np.zeros((height, width), np.uint8)
    axes = (int(rng.integers(6, 40)), int(rng.integers(6, 40)))
    cv2.ellipse(drawn, seed, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return drawn > 0
