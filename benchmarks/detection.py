"""The objects of a known scene, found in three videos: the true one, its autoencoder round trip, a generated
one.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.subject import Pixels
from ttm.data.synthetic import SyntheticScene
from ttm.metrics.rendered_objects import locate_objects, object_colours


class HasRoundTrip(Protocol):
    """What a detector needs of a model."""

    def round_trip(self, frames: Pixels) -> Pixels: ...


class SceneDetector:
    """Finds a scene's objects by colour (:mod:`ttm.metrics.rendered_objects`).

    Videos that came through an autoencoder are compared with the plate that came through it too.

    Args:
        subject: whose autoencoder it is.
        scene: the scene.
    """

    def __init__(self, subject: HasRoundTrip, scene: SyntheticScene) -> None:
        self._colours = [object_colours(layer) for layer in scene.layers]
        self._plate = scene.background
        self._decoded_plate = subject.round_trip(np.repeat(scene.background[None], len(scene.frames), axis=0))

    def in_true(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Ids uint8 [T, H, W] in a video that saw no autoencoder."""
        return locate_objects(frames, self._plate, self._colours)

    def in_decoded(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Ids uint8 [T, H, W] in a video that an autoencoder decoded."""
        return locate_objects(frames, self._decoded_plate, self._colours)
