"""Training batches for the small SAM2 and the small CLIP: scenes of the synthetic world, varied.

Letters: B images or clips, T frames, H W pixels, N prompts.

Every batch is drawn from (seed, step) alone, so that a run that stopped goes on with the batches it would
have seen.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ttm.data.synthetic import SyntheticScene, SyntheticWorld


def varied_clip(
    rng: np.random.Generator, scene: SyntheticScene, hues: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frames [T, H, W, 3] and ids [T, H, W] of a scene, its background varied, mirrored or turned, its
    colours shifted.

    The world has few photographs. Smooth, washed-out and mixed backgrounds, and other channels, keep a model
    that must find any object from learning those few by heart. ``hues=False`` keeps red red.
    """
    background = _background(rng, scene)
    frames = np.repeat(background[None], scene.layers.shape[1], axis=0)
    for layer in scene.layers:
        opacity = layer[..., 3:].astype(np.float32) / 255
        frames = frames * (1 - opacity) + layer[..., :3] * opacity
    if hues and rng.random() < 0.35:
        frames = frames[..., rng.permutation(3)]
    if rng.random() < 0.5:
        gain, offset = rng.uniform(0.75, 1.2, 3 if hues else 1), rng.uniform(-15, 15, 3 if hues else 1)
        frames = frames * gain.astype(np.float32) + offset.astype(np.float32)
    if rng.random() < 0.2:
        frames = frames + rng.normal(0, rng.uniform(2, 8), frames.shape).astype(np.float32)
    ids = scene.ids
    if rng.random() < 0.5:
        frames, ids = frames[:, :, ::-1], ids[:, :, ::-1]
    turns = int(rng.integers(4))
    frames, ids = np.rot90(frames, turns, (1, 2)), np.rot90(ids, turns, (1, 2))
    return np.clip(frames, 0, 255).round().astype(np.uint8), np.ascontiguousarray(ids)


def _background(rng: np.random.Generator, scene: SyntheticScene) -> NDArray[np.float32]:
    background = scene.background.astype(np.float32)
    size = background.shape[0]
    kind = rng.random()
    if kind < 0.55:
        return background
    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.float32)
    if rng.random() < 0.3:  # grey, as an overcast sky or a wall is
        corners = np.repeat(corners.mean(axis=2, keepdims=True), 3, axis=2)
    smooth = cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)
    if kind < 0.68:
        return smooth
    if kind < 0.85:
        share = np.float32(rng.uniform(0.3, 0.8))
        return share * background + (1 - share) * smooth
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    beyond = (np.cos(angle) * x + np.sin(angle) * y > rng.uniform(-0.3, 0.3))[..., None]
    other = smooth if rng.random() < 0.5 else np.rot90(background, 2)
    return np.where(beyond, other, background).astype(np.float32)


def image_batch(world: SyntheticWorld, seed: int, step: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """``count`` images [B, H, W, 3] and ids [B, H, W]: two frames each of half as many scenes, varied apart."""
    rng = np.random.default_rng([seed, 1, step])
    images, ids = [], []
    for number in range(count // 2):
        scene = world[step * (count // 2) + number]
        for t in (0, -1):
            frames, labels = varied_clip(rng, _at(scene, t))
            images.append(frames[0])
            ids.append(labels[0])
    return np.stack(images), np.stack(ids)


def clip_batch(
    world: SyntheticWorld, seed: int, step: int, count: int, length: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """``count`` clips [B, T, H, W, 3] and ids [B, T, H, W], T = ``length``, 1 to 3 frames apart, either way in time."""
    rng = np.random.default_rng([seed, 2, step])
    clips, ids = [], []
    for number in range(count):
        scene = world[step * count + number]
        stride = int(rng.integers(1, 4))
        span = (length - 1) * stride
        start = int(rng.integers(0, max(1, len(scene.ids) - span)))
        chosen = np.minimum(np.arange(start, start + span + 1, stride), len(scene.ids) - 1)
        if rng.random() < 0.5:
            chosen = chosen[::-1]
        frames, labels = varied_clip(rng, _at(scene, chosen))
        clips.append(frames)
        ids.append(labels)
    return np.stack(clips), np.stack(ids)


def sample_points(
    rng: np.random.Generator, ids: NDArray[np.uint8], count: int, background: float = 0.35
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """``count`` point prompts of one image and what each lies on.

    Returns:
        points (x, y) in pixels, float32 [N, 2], and owners, int64 [N]: an id, or 0 for a point on the
        background.
    """
    present = [int(value) for value in np.unique(ids) if value]
    points, owners = np.zeros((count, 2), np.float32), np.zeros(count, np.int64)
    for n in range(count):
        owner = 0 if not present or rng.random() < background else int(rng.choice(present))
        y, x = np.nonzero(ids == owner)
        pick = int(rng.integers(len(y)))
        points[n], owners[n] = (x[pick], y[pick]), owner
    return points, owners


def _at(scene: SyntheticScene, chosen: int | NDArray[np.int64]) -> SyntheticScene:
    """The scene at some of its frames."""
    index = np.atleast_1d(chosen)
    return SyntheticScene(
        scene.frames[index],
        scene.ids[index],
        scene.plan,
        scene.objects,
        scene.background,
        scene.layers[:, index],
    )
