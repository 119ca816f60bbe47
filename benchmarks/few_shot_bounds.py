"""What the variants of :mod:`benchmarks.few_shot` are held against: videos that no model of motion has a part in.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ttm.data.synthetic import SyntheticScene
from ttm.pipelines.autoencoders import decode_latents, encode_video
from ttm.pipelines.inputs import to_model, to_uint8

Pixels = NDArray[np.uint8]


@torch.no_grad()
def round_trip(vae: Any, frames: Pixels) -> Pixels:
    """A video [T, H, W, 3] through the autoencoder."""
    decoded: Pixels = to_uint8(decode_latents(vae, encode_video(vae, to_model(frames, vae.device))))
    return decoded


def carried(first: Pixels, scene: SyntheticScene) -> Pixels:
    """The object of a first frame [H, W, 3] moved as the scene's is, over the ground around it, [T, H, W, 3].

    What lies in the scene's first mask is taken for the object; the hole that it leaves is inpainted (Telea 2004).
    """
    covered = cv2.dilate((scene.ids[0] > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    ground = cv2.inpaint(first, covered, 3, cv2.INPAINT_TELEA)
    path = scene.objects[0].path
    frames = []
    for ids, (x, y) in zip(scene.ids, path - path[0], strict=True):
        shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
        there = cv2.warpAffine(first, shift, first.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        frames.append(np.where((ids > 0)[..., None], there, ground))
    return np.stack(frames).astype(np.uint8)
