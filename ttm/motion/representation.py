"""What stage 1 predicts and stage 2 follows, by name: masks, optical flow, or nothing.

Stages and pipelines ask the representation for its pictures and never which one it is. Whatever it is, stage 1 begins
with the masks of the first frame, and masked attention gets masks.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.optical_flow import FlowTrajectory, carry_ids, flow_from_video, flow_to_video
from ttm.objects import PromptPlan, whole_plan

Pixels = NDArray[np.uint8]


class MotionRepresentation(Protocol):
    """A motion as a clip of pictures, and back.

    Attributes:
        name: as in ``motion=...`` and in a pipeline's settings.
        shows_masks: its pictures are those of the masks.
    """

    name: str
    shows_masks: bool

    def to_video(self, trajectory: MaskTrajectory) -> Pixels:
        """The pictures of a motion, uint8 [T, H, W, 3].

        Raises:
            ValueError: the trajectory does not know this kind of motion.
        """
        ...

    def from_video(self, frames: Pixels, first_ids: Pixels, fps: float) -> MaskTrajectory:
        """The motion that pictures uint8 [T, H, W, 3] show of the objects ``first_ids`` [H, W]."""
        ...

    def at_rest(self, num_frames: int, height: int, width: int) -> MaskTrajectory:
        """A motion without objects."""
        ...

    def seen(self, trajectory: MaskTrajectory, plan: PromptPlan) -> tuple[MaskTrajectory, PromptPlan]:
        """What stage 2 is to see of a motion and of what its objects do."""
        ...


class MaskPictures:
    """One constant colour an object: the paper's."""

    name = "masks"
    shows_masks = True

    def to_video(self, trajectory: MaskTrajectory) -> Pixels:
        """See :class:`MotionRepresentation`."""
        return trajectory.to_video()

    def from_video(self, frames: Pixels, first_ids: Pixels, fps: float) -> MaskTrajectory:
        """See :class:`MotionRepresentation`."""
        present = [int(number) for number in np.unique(first_ids) if number]
        return MaskTrajectory.from_video(frames, fps=fps, ids=present)

    def at_rest(self, num_frames: int, height: int, width: int) -> MaskTrajectory:
        """See :class:`MotionRepresentation`."""
        return MaskTrajectory(np.zeros((num_frames, height, width), np.uint8))

    def seen(self, trajectory: MaskTrajectory, plan: PromptPlan) -> tuple[MaskTrajectory, PromptPlan]:
        """All of both."""
        return trajectory, plan


class FlowPictures(MaskPictures):
    """The colour wheel of :mod:`ttm.motion.optical_flow`; masks are those of the first frame, carried along."""

    name = "optical_flow"
    shows_masks = False

    def to_video(self, trajectory: MaskTrajectory) -> Pixels:
        """See :class:`MotionRepresentation`."""
        if not isinstance(trajectory, FlowTrajectory):
            raise ValueError("The trajectory knows no optical flow; expected one that stage 1 of such a model made.")
        return flow_to_video(trajectory.flow)

    def from_video(self, frames: Pixels, first_ids: Pixels, fps: float) -> MaskTrajectory:
        """See :class:`MotionRepresentation`."""
        flow = flow_from_video(frames)
        return FlowTrajectory(carry_ids(first_ids, flow), flow, fps)

    def at_rest(self, num_frames: int, height: int, width: int) -> MaskTrajectory:
        """See :class:`MotionRepresentation`."""
        nothing = np.zeros((num_frames, height, width), np.uint8)
        return FlowTrajectory(nothing, np.zeros((num_frames - 1, height, width, 2), np.float32))


class NoMotion(MaskPictures):
    """No motion: stage 2 sees image and sentence alone (the TI2V twin). There is no stage 1."""

    name = "none"

    def from_video(self, frames: Pixels, first_ids: Pixels, fps: float) -> MaskTrajectory:
        """Raises ValueError: there is no motion to read."""
        raise ValueError("motion is none; expected masks or optical_flow for a stage that predicts motion.")

    def seen(self, trajectory: MaskTrajectory, plan: PromptPlan) -> tuple[MaskTrajectory, PromptPlan]:
        """Nothing that moves, and the sentence as nobody took it apart."""
        return self.at_rest(*trajectory.ids.shape), whole_plan(plan.prompt)


_KNOWN: tuple[MotionRepresentation, ...] = (MaskPictures(), FlowPictures(), NoMotion())
REPRESENTATIONS = tuple(item.name for item in _KNOWN)


def motion_representation(name: str) -> MotionRepresentation:
    """The representation of a name.

    Raises:
        ValueError: there is none.
    """
    for item in _KNOWN:
        if item.name == name:
            return item
    raise ValueError(f"There is no motion representation {name!r}; expected one of {', '.join(REPRESENTATIONS)}.")
