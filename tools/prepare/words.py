"""What a clip shows, in words: given, described by a model, or told by its masks.

Letters: T frames, H W pixels, L objects.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ttm.data.clip_prompts import prompt_of_name
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan

_STILL = 0.04
"""A centre that moves by less than this share of the picture's diagonal stays."""
_GROWS = 1.5
"""An area that changes by this factor grows or shrinks."""
_SAME = 0.5
"""IoU from which on a grounded phrase is a given mask."""


class Captioner(Protocol):
    """Anything that says what a clip shows."""

    def caption(self, frames: NDArray[np.uint8]) -> str:
        """One sentence on frames uint8 [T, H, W, 3]; "" if there is nothing to say."""
        ...


class ImageCaptioner:
    """A public image-to-text model of transformers: it describes a clip's middle frame.

    Such captions say what is seen, seldom how it moves: a planner that reads motion out of them has little to go by.
    For captions of motion, caption by a video language model and hand the texts in beside the videos.

    Args:
        model: folder or Hub id, such as "Salesforce/blip-image-captioning-base".
        device: torch's.
        max_new_tokens: most tokens of a caption.

    Raises:
        OSError: no such model, or one whose weights are no safetensors.
    """

    def __init__(self, model: str, device: str = "cpu", max_new_tokens: int = 40) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(model)
        loaded = AutoModelForImageTextToText.from_pretrained(model, use_safetensors=True)
        self.model = loaded.to(device).eval()
        self.max_new_tokens = max_new_tokens

    def caption(self, frames: NDArray[np.uint8]) -> str:
        """See :class:`Captioner`."""
        import torch

        inputs = self.processor(images=frames[len(frames) // 2], return_tensors="pt").to(self.model.device)
        with torch.no_grad():
            tokens = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        text: str = self.processor.batch_decode(tokens, skip_special_tokens=True)[0]
        return text.strip()


def caption_of_name(template: str, name: str) -> str:
    """A caption by a template in which {name} is what a file's name says ("a-dog-runs-03.mp4" says "a dog runs").

    Raises:
        ValueError: the name says nothing.
    """
    words = prompt_of_name(name)
    if "{name}" in template and not words:
        raise ValueError(f"its name {name!r} says nothing; expected a name such as a-dog-runs-1.mp4, or a caption")
    return template.replace("{name}", words)


def plan_of_trajectory(ids: NDArray[np.uint8], caption: str | None = None) -> PromptPlan:
    """What masks alone say: "object 1 moves left, object 2 stays".

    Directions are those in which centres move from the first to the last frame in which the object is seen; an object
    that hardly moves grows, shrinks or stays. Ids that are in no frame are called "object k" and stay too.

    Args:
        ids: uint8 [T, H, W].
        caption: the prompt, where one is given.

    Raises:
        ValueError: no object.
    """
    moves = MaskTrajectory(ids)
    if not moves.object_ids:
        raise ValueError("no object is in its masks; expected at least one")
    objects = tuple(
        ObjectPrompt(f"object {number}", f"the object {number} {_action(moves, number)}")
        for number in range(1, max(moves.object_ids) + 1)
    )
    motion = ", ".join(item.local_prompt for item in objects)
    return PromptPlan(caption or motion, motion, objects)


def _action(moves: MaskTrajectory, number: int) -> str:
    centres, areas = moves.centroids(number), moves.areas()[:, number]
    seen = np.flatnonzero(areas)
    if not len(seen):
        return "stays"
    first, last = int(seen[0]), int(seen[-1])
    across, down = centres[last] - centres[first]
    if np.hypot(across, down) < _STILL * np.hypot(moves.width, moves.height):
        factor = areas[last] / areas[first]
        return "grows" if factor > _GROWS else "shrinks" if factor < 1 / _GROWS else "stays"
    if abs(across) >= abs(down):
        return "moves right" if across > 0 else "moves left"
    return "moves down" if down > 0 else "moves up"


def name_masks(plan: PromptPlan, grounded: NDArray[np.uint8], ids: NDArray[np.uint8]) -> tuple[PromptPlan, Any]:
    """Bring a plan and given masks together: each phrase is the mask that it was found on in the first frame.

    Phrases that were found on no mask leave the plan, masks that no phrase was found on become background.

    Args:
        plan: of L objects.
        grounded: uint8 [H, W], where phrase ``l`` was found, as ``l + 1``.
        ids: uint8 [T, H, W], the masks, in any order.

    Returns:
        the plan of the objects that are both, and their ids uint8 [T, H, W], in the plan's order.

    Raises:
        ValueError: no phrase was found on a mask.
    """
    numbers = [int(number) for number in np.unique(ids[0]) if number]
    phrases = range(1, len(plan.objects) + 1)
    overlaps = np.array([[_iou(grounded == phrase, ids[0] == number) for number in numbers] for phrase in phrases])
    pairs = zip(*linear_sum_assignment(-overlaps), strict=True) if numbers else ()
    same = [(int(row), numbers[column]) for row, column in pairs if overlaps[row, column] >= _SAME]
    if not same:
        found = ", ".join(repr(phrase) for phrase in plan.phrases)
        raise ValueError(f"none of {found} is found on a given mask of the first frame; expected at least one")
    named = np.zeros_like(ids)
    for new, (_, number) in enumerate(same, start=1):
        named[ids == number] = new
    objects = tuple(plan.objects[row] for row, _ in same)
    motion = plan.motion_prompt if len(same) == len(plan.objects) else ", ".join(o.local_prompt for o in objects)
    return PromptPlan(plan.prompt, motion, objects), named


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = int((one | other).sum())
    return float((one & other).sum()) / union if union else 0.0
