"""Photographs, and the objects of the synthetic world cut from shapes, colours and photographs.

A sprite is a square picture of one object at rest: colour float32 [S, S, 3] in 0..255 and silhouette
float32 [S, S] in 0..1, centred, its silhouette touching a circle of diameter S.

The photographs ship inside scikit-image: nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data as photographs

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "orange": (245, 140, 30),
    "yellow": (240, 220, 50),
    "green": (40, 165, 60),
    "blue": (40, 80, 215),
    "purple": (130, 50, 170),
    "pink": (245, 130, 180),
    "white": (240, 240, 240),
}
SHAPES = ("ball", "square", "triangle", "star", "diamond", "cross", "ring", "heart", "horse")
CUT_OUTS: dict[str, tuple[str, tuple[int, int], tuple[int, int]]] = {
    "cat": ("chelsea", (190, 124), (108, 102)),
    "astronaut": ("astronaut", (224, 106), (66, 80)),
    "cup": ("coffee", (280, 201), (200, 188)),
}
"""name -> (photograph, centre x y, half axes x y) of the ellipse that is cut out, in its pixels."""
PIECES = (
    "dog", "truck", "car", "bird", "boat", "person", "woman", "man", "child", "bus", "bike", "fish", "cow", "sheep",
    "bear", "leaf", "toy", "box", "bag", "hat",
)  # fmt: skip
"""What a piece of a photograph is called. The names mean nothing: such an object is known by its mask alone."""

TRAINING_PHOTOGRAPHS = (
    "astronaut", "coffee", "chelsea", "brick", "gravel", "grass", "moon", "retina", "immunohistochemistry",
    "coins", "stereo_motorcycle",
)  # fmt: skip
TEST_PHOTOGRAPHS = ("rocket", "camera", "hubble_deep_field")

SPRITE_SIZE = 96


@dataclass(frozen=True)
class Sprite:
    """One object at rest: ``colour`` float32 [S, S, 3] in 0..255, ``silhouette`` float32 [S, S] in 0..1."""

    colour: NDArray[np.float32]
    silhouette: NDArray[np.float32]


@cache
def photograph(name: str) -> NDArray[np.uint8]:
    """A photograph of scikit-image as uint8 [H, W, 3], its shorter side at most 512 px."""
    picture = getattr(photographs, name)()
    if isinstance(picture, tuple):  # a stereo pair comes with its disparity
        picture = picture[0]
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    scale = 512 / min(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[..., :3])


def random_crop(rng: np.random.Generator, name: str, size: int, smallest: float = 0.5) -> NDArray[np.uint8]:
    """A random square crop of a photograph, resized to uint8 [size, size, 3] and perhaps mirrored.

    Args:
        rng: source of the choices.
        name: the photograph.
        size: side of the result in pixels.
        smallest: smallest side of the crop, as a fraction of the photograph's shorter side.
    """
    picture = photograph(name)
    shorter = min(picture.shape[:2])
    side = int(shorter * rng.uniform(smallest, 1.0))
    top = int(rng.integers(0, picture.shape[0] - side + 1))
    left = int(rng.integers(0, picture.shape[1] - side + 1))
    crop = cv2.resize(picture[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners of a straight-edged shape, in units of the sprite's radius, y down."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "triangle":
        return [(0.0, -1.0), (0.92, 0.75), (-0.92, 0.75)]
    if shape == "diamond":
        return [(0.0, -1.0), (0.75, 0.0), (0.0, 1.0), (-0.75, 0.0)]
    if shape == "cross":
        a, b = 0.35, 0.95
        arm = [(-a, -a), (-a, -b), (a, -b)]  # one arm; the others are its quarter turns
        return arm + [(-y, x) for x, y in arm] + [(-x, -y) for x, y in arm] + [(y, -x) for x, y in arm]
    if shape == "star":
        radii = [1.0, 0.45] * 5
        turns = [np.pi * k / 5 for k in range(10)]
        return [(r * float(np.sin(t)), -r * float(np.cos(t))) for r, t in zip(radii, turns, strict=True)]
    if shape == "heart":
        turns = [2 * np.pi * k / 40 for k in range(40)]
        xs = [np.sin(t) ** 3 for t in turns]
        ys = [-(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16 for t in turns]
        return [(float(x) * 0.95, float(y) * 0.95) for x, y in zip(xs, ys, strict=True)]
    raise ValueError(f"{shape!r} is not a straight-edged shape; expected one of {SHAPES}.")


@cache
def silhouette(shape: str) -> NDArray[np.float32]:
    """The silhouette of a shape (one of ``SHAPES``) as float32 [S, S] in 0..1, with soft edges."""
    fine = SPRITE_SIZE * 4
    mask = np.zeros((fine, fine), np.uint8)
    middle, radius = fine // 2, fine / 2 - 4
    if shape in ("ball", "ring"):
        cv2.circle(mask, (middle, middle), int(radius), 255, -1)
        if shape == "ring":
            cv2.circle(mask, (middle, middle), int(radius * 0.48), 0, -1)
    elif shape == "horse":
        horse = (~photographs.horse()).astype(np.uint8) * 255
        fit = int(radius * 2)
        drawn = cv2.resize(horse, (fit, fit * horse.shape[0] // horse.shape[1]), interpolation=cv2.INTER_AREA)
        top, left = (fine - drawn.shape[0]) // 2, (fine - fit) // 2
        mask[top : top + drawn.shape[0], left : left + fit] = drawn
    else:
        corners = np.array(_polygon(shape)) * radius + middle
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    return cv2.resize(mask, (SPRITE_SIZE, SPRITE_SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def coloured_sprite(rng: np.random.Generator, colour: str, shape: str, texture: str, photo: str) -> Sprite:
    """A shape in a colour.

    Args:
        rng: source of the jitter.
        colour: a key of ``COLOURS``.
        shape: one of ``SHAPES``.
        texture: "flat", "sectors" (a beach ball: its turning can be seen) or "photo" (a photograph's light and dark).
        photo: the photograph that a "photo" texture is taken from.
    """
    base = np.clip(np.array(COLOURS[colour], np.float32) + rng.uniform(-14, 14, 3).astype(np.float32), 0, 255)
    picture = np.broadcast_to(base, (SPRITE_SIZE, SPRITE_SIZE, 3)).astype(np.float32)
    if texture == "sectors":
        y, x = np.mgrid[:SPRITE_SIZE, :SPRITE_SIZE].astype(np.float32) - (SPRITE_SIZE - 1) / 2
        dark = np.sin(2 * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)) > 0
        picture = picture * np.where(dark, 0.55, 1.0)[..., None].astype(np.float32)
    elif texture == "photo":
        light = random_crop(rng, photo, SPRITE_SIZE, smallest=0.3).mean(axis=2).astype(np.float32)
        light = (light - light.mean()) / (light.std() + 8)
        picture = picture * np.clip(0.9 + 0.14 * light, 0.5, 1.15)[..., None]
    return Sprite(np.clip(picture, 0, 255).astype(np.float32), silhouette(shape))


def cut_out_sprite(rng: np.random.Generator, name: str) -> Sprite:
    """An ellipse cut out of a photograph (``name`` is a key of ``CUT_OUTS``)."""
    photo, (x, y), (half_x, half_y) = CUT_OUTS[name]
    picture = photograph(photo)
    top, left = max(y - half_y, 0), max(x - half_x, 0)
    crop = picture[top : y + half_y, left : x + half_x]
    colour = cv2.resize(crop, (SPRITE_SIZE, SPRITE_SIZE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Sprite(np.clip(colour * rng.uniform(0.85, 1.15), 0, 255).astype(np.float32), silhouette("ball"))


def piece_sprite(rng: np.random.Generator, photo: str) -> Sprite:
    """A piece of a photograph with a rounded outline of its own, wider than high or higher than wide."""
    picture = random_crop(rng, photo, SPRITE_SIZE, smallest=0.2).astype(np.float32)
    if rng.random() < 0.5:  # as if of a photograph in other colours
        picture = picture[..., rng.permutation(3)]
    picture = (picture - picture.mean()) * rng.uniform(0.8, 1.4) + picture.mean() + rng.uniform(-40, 40)
    return Sprite(np.clip(picture, 0, 255).astype(np.float32), _rounded_silhouette(rng))


def _rounded_silhouette(rng: np.random.Generator) -> NDArray[np.float32]:
    """A closed curve with a few random waves, as float32 [S, S] in 0..1, with soft edges."""
    fine = SPRITE_SIZE * 4
    turns = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    distance = np.ones_like(turns)
    for waves in (2, 3, 4, 5, 6):
        distance += rng.uniform(0, 0.55 / waves) * np.sin(waves * turns + rng.uniform(0, 2 * np.pi))
    corners = np.stack([np.cos(turns), np.sin(turns)], axis=1) * distance[:, None]
    corners[:, int(rng.random() < 0.3)] *= rng.uniform(0.45, 1.0)
    corners -= (corners.max(axis=0) + corners.min(axis=0)) / 2
    corners *= (fine / 2 - 4) / np.hypot(*corners.T).max()
    mask = np.zeros((fine, fine), np.uint8)
    cv2.fillPoly(mask, [np.round(corners + fine / 2).astype(np.int32)], 255)
    return cv2.resize(mask, (SPRITE_SIZE, SPRITE_SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
