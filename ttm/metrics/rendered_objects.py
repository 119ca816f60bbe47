"""Where the objects of a known scene are in a video, judged by colour alone.

The detector sees no mask and no trajectory. It knows what the place looks like without objects (the plate)
and which colours each object has (12 cluster centres over the object's true pixels of all frames). A pixel
belongs to what it is closest to in RGB, after each map of distances is smoothed a little (Gaussian, 0.7 px):
the plate's pixel at the same place, or the nearest colour of an object.

An autoencoder blurs, so a video that came through one is compared with the plate that came through it too.
Where an object has the colours of what is behind it no detector of this kind can tell them apart: always
report the measure on the true video, and on the autoencoder's round trip of the true video, beside that on a
generated one.

Letters: T frames, H W pixels, L objects, C colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_COLOURS = 12
SMOOTHING = 0.7
"""Standard deviation in pixels."""
OPAQUE = 230
"""Least opacity, of 255, of a pixel whose colour counts as the object's own."""


def object_colours(layer: NDArray[np.uint8], num_colours: int = NUM_COLOURS) -> NDArray[np.float32]:
    """The colours of an object: k-means centres of its pixels.

    Args:
        layer: uint8 [T, H, W, 4], the object alone: RGB and opacity.
        num_colours: C, at most.

    Returns:
        float32 [C', 3] in 0..255, C' <= C.

    Raises:
        ValueError: another shape or dtype, or no opaque pixel.
    """
    if layer.dtype != np.uint8 or layer.ndim != 4 or layer.shape[-1] != 4:
        raise ValueError(f"layer is {layer.dtype} {list(layer.shape)}; expected uint8 [T, H, W, 4].")
    pixels = layer[layer[..., 3] >= OPAQUE][:, :3].astype(np.float32)
    if len(pixels) == 0:
        raise ValueError("layer has no opaque pixel; there is no colour to take from it.")
    pixels = pixels[np.random.default_rng(0).permutation(len(pixels))[:3000]]
    distinct = np.unique(pixels, axis=0)
    if len(distinct) <= num_colours:
        return distinct
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1.0)
    start = np.zeros((len(pixels), 1), np.int32)
    _, _, centres = cv2.kmeans(pixels, num_colours, start, criteria, 1, cv2.KMEANS_PP_CENTERS)
    return np.asarray(centres, np.float32)


def locate_objects(
    frames: NDArray[np.uint8], plate: NDArray[np.uint8], colours: Sequence[NDArray[np.float32]]
) -> NDArray[np.uint8]:
    """Find the objects in a video.

    Args:
        frames: uint8 [T, H, W, 3].
        plate: uint8 [H, W, 3] or [T, H, W, 3], the same place without objects, through the same autoencoder
            as the frames.
        colours: for each of the L objects float32 [C, 3], as :func:`object_colours` gives them.

    Returns:
        ids uint8 [T, H, W]: 0, or l + 1 for object l.

    Raises:
        ValueError: shapes that do not fit.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames is {frames.dtype} {list(frames.shape)}; expected uint8 [T, H, W, 3].")
    if plate.shape not in (frames.shape, frames.shape[1:]):
        raise ValueError(f"plate has shape {list(plate.shape)}; expected {list(frames.shape[1:])}.")
    plates = np.broadcast_to(plate, frames.shape)
    found = np.empty(frames.shape[:3], np.uint8)
    for t, frame in enumerate(frames.astype(np.float32)):
        distances = [np.linalg.norm(frame - plates[t], axis=-1)]
        distances += [_nearest(frame, centres) for centres in colours]
        smooth = [cv2.GaussianBlur(distance, (0, 0), SMOOTHING) for distance in distances]
        found[t] = np.argmin(np.stack(smooth), axis=0)
    return found


def largest_pieces(ids: ArrayLike) -> NDArray[np.uint8]:
    """Keep each object's largest connected piece (8 neighbours) in every frame; the rest becomes background.

    For centroids: a few stray pixels far away move a centroid, though they hardly change an IoU.
    """
    clip = np.asarray(ids)
    kept = np.zeros(clip.shape, np.uint8)
    for t, frame in enumerate(clip):
        for number in np.unique(frame):
            if number == 0:
                continue
            _, labels, stats, _ = cv2.connectedComponentsWithStats((frame == number).astype(np.uint8), connectivity=8)
            largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            kept[t][labels == largest] = number
    return kept


def _nearest(frame: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of every pixel to its nearest colour, float32 [H, W]."""
    squares = (frame**2).sum(-1)[..., None] - 2 * frame @ centres.T + (centres**2).sum(-1)
    return np.sqrt(np.maximum(squares.min(axis=-1), 0)).astype(np.float32)
