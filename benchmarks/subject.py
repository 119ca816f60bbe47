"""What a benchmark measures: a video model behind a few calls, whatever it is made of.

Letters: T frames, H W pixels. All sampling is seeded by a whole number a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width in pixels; None in a call: the model's own working size."""


@dataclass(frozen=True)
class Generated:
    """What comes out of one image and one sentence.

    Attributes:
        frames: uint8 [T, H, W, 3].
        trajectory: ids [T, H, W] that led there.
        plan: the sentence, taken apart.
    """

    frames: Pixels
    trajectory: MaskTrajectory
    plan: PromptPlan


class Subject(Protocol):
    """A model to measure.

    Attributes:
        name: what to call it in a report.
        source: what it was opened from: "ttm-tiny", a folder, or a Hub id.
        size: its working height and width, pixels.
        num_frames: T.
    """

    name: str
    source: str
    size: Size
    num_frames: int

    def round_trip(self, frames: Pixels) -> Pixels:
        """Frames uint8 [T, H, W, 3] through the autoencoder and back."""

    def segment(self, image: Pixels, phrases: list[str]) -> Pixels:
        """First-frame ids uint8 [H, W] of the phrases' objects. ValueError: a phrase was not found."""

    def track(self, frames: Pixels, first_ids: Pixels) -> Pixels:
        """First-frame ids followed through a video, uint8 [T, H, W]."""

    def predict_motion(self, image: Pixels, first_ids: Pixels, plan: PromptPlan, seed: int) -> MaskTrajectory:
        """Stage 1 alone."""

    def render(self, image: Pixels, trajectory: MaskTrajectory, plan: PromptPlan, seed: int) -> Pixels:
        """Stage 2 alone, uint8 [T, H, W, 3]."""

    def generate(
        self, image: Pixels, prompt: str, seed: int, first_ids: Pixels | None = None, size: Size | None = None
    ) -> Generated:
        """Everything. ``first_ids`` [H, W] of the image's size skip segmentation.

        Raises:
            ValueError: a phrase was not found.
        """

    def object_tokens(self, trajectory: MaskTrajectory, num_objects: int) -> tuple[int, int]:
        """How many objects have a token of stage 2: in the sets of cross-attention, as owners in self-attention."""

    def fit(self, image: Pixels, size: Size | None = None) -> Pixels:
        """The image as the model sees it: cut and resized to the working size, uint8 [H, W, 3]."""

    def fit_ids(self, ids: Pixels, size: Size | None = None) -> Pixels:
        """First-frame ids [H, W], cut and resized as their image is."""
