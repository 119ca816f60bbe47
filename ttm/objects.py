"""What every part passes on: the prompts and the masks of objects.

Letters: T frames, H W pixels, L objects.

Object ``l`` of a plan (counted from 0) carries id ``l + 1`` in every mask, trajectory and token grid of the
library; id 0 is the background. The order of the plan is therefore the order of the palette, and a model can
learn that the k-th clause of the motion prompt moves the k-th colour.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttm.atomic_write import written_beside

MAX_OBJECTS = 12
"""Most objects in one clip: as many palette colours as nearest-colour decoding still tells apart."""


@dataclass(frozen=True)
class ObjectPrompt:
    """One object of a plan.

    Attributes:
        phrase: what the object is called, without an article ("red ball"); grounds the segmentation.
        local_prompt: what this object alone does ("the red ball moves left"); c_local of Through-The-Mask.
    """

    phrase: str
    local_prompt: str


@dataclass(frozen=True)
class PromptPlan:
    """A sentence, taken apart.

    Attributes:
        prompt: the sentence as the user wrote it; the global prompt c of Through-The-Mask.
        motion_prompt: all the motion and no spatial detail; c_motion of Through-The-Mask.
        objects: the objects that the sentence moves; object ``l`` has id ``l + 1``.

    Raises:
        ValueError: no object, more than ``MAX_OBJECTS``, or an empty text.
    """

    prompt: str
    motion_prompt: str
    objects: tuple[ObjectPrompt, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(self.objects))
        if not 1 <= len(self.objects) <= MAX_OBJECTS:
            raise ValueError(f"A plan holds {len(self.objects)} objects; expected 1 to {MAX_OBJECTS}.")
        texts = {"prompt": self.prompt, "motion_prompt": self.motion_prompt}
        for number, item in enumerate(self.objects, start=1):
            texts[f"objects[{number - 1}].phrase"] = item.phrase
            texts[f"objects[{number - 1}].local_prompt"] = item.local_prompt
        for name, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name} of the plan is {text!r}; expected a text that is not empty.")

    @property
    def phrases(self) -> list[str]:
        """The objects' phrases, in the order of their ids."""
        return [item.phrase for item in self.objects]

    @property
    def local_prompts(self) -> list[str]:
        """The objects' local prompts, in the order of their ids."""
        return [item.local_prompt for item in self.objects]

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        objects = [{"phrase": item.phrase, "local_prompt": item.local_prompt} for item in self.objects]
        return {"prompt": self.prompt, "motion_prompt": self.motion_prompt, "objects": objects}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PromptPlan:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: a key is missing or unknown.
        """
        _expect_keys(values, {"prompt", "motion_prompt", "objects"}, "A plan")
        if not isinstance(values["objects"], list):
            raise ValueError("'objects' of a plan is not a list; expected [{'phrase': …, 'local_prompt': …}, …].")
        for item in values["objects"]:
            _expect_keys(item, {"phrase", "local_prompt"}, "An object of a plan")
        objects = tuple(ObjectPrompt(item["phrase"], item["local_prompt"]) for item in values["objects"])
        return cls(values["prompt"], values["motion_prompt"], objects)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, whole or not at all.

        Raises:
            OSError: the folder is missing or read-only, or the disk is full; names the path.
        """
        with written_beside(path) as beside:
            beside.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> PromptPlan:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file is no JSON, or no plan.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a plan: it does not hold JSON ({error}).") from error
        return cls.from_dict(values)


def whole_plan(prompt: str) -> PromptPlan:
    """A sentence that nobody took apart: its one local prompt is the sentence itself, and no mask belongs to it."""
    return PromptPlan(prompt, prompt, (ObjectPrompt("scene", prompt),))


def _expect_keys(values: Any, expected: set[str], what: str) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} is a {type(values).__name__}; expected an object with the keys {sorted(expected)}.")
    if set(values) != expected:
        raise ValueError(f"{what} has the keys {sorted(values)}; expected {sorted(expected)}.")


def validate_ids(ids: ArrayLike, *, ndim: int, name: str = "ids") -> NDArray[np.uint8]:
    """Check an array of object ids and return it as uint8.

    Args:
        ids: integers in 0..MAX_OBJECTS, [H, W] or [T, H, W].
        ndim: the number of axes expected.
        name: what to call it in an error.

    Raises:
        ValueError: another shape, an empty axis, values that are no ids.
    """
    array = np.asarray(ids)
    if array.ndim != ndim or 0 in array.shape:
        shape = "[H, W]" if ndim == 2 else "[T, H, W]"
        raise ValueError(f"{name} has shape {list(array.shape)}; expected {shape} with no empty axis.")
    if array.dtype.kind not in "biu":
        raise ValueError(f"{name} has dtype {array.dtype}; expected integers, 0 for the background.")
    if array.min() < 0 or array.max() > MAX_OBJECTS:
        found = f"{int(array.min())}..{int(array.max())}"
        raise ValueError(f"{name} holds values {found}; expected ids 0..{MAX_OBJECTS} (the limit on objects).")
    return array.astype(np.uint8)


def ids_from_masks(masks: Sequence[ArrayLike], *, name: str = "masks") -> NDArray[np.uint8]:
    """Merge L boolean masks [H, W] into ids [H, W]; where masks overlap, the later one is in front.

    Raises:
        ValueError: no mask, too many, different sizes, not boolean, or a mask with no pixel left visible.
    """
    arrays = [np.asarray(mask) for mask in masks]
    if not 1 <= len(arrays) <= MAX_OBJECTS:
        raise ValueError(f"{name} holds {len(arrays)} masks; expected 1 to {MAX_OBJECTS}.")
    ids = np.zeros(arrays[0].shape, np.uint8)
    for number, array in enumerate(arrays, start=1):
        if array.ndim != 2 or array.shape != ids.shape or array.dtype != bool:
            raise ValueError(
                f"{name}[{number - 1}] is {array.dtype} {list(array.shape)}; expected bool {list(ids.shape)}"
                " (all masks of one size [H, W])."
            )
        ids[array] = number
    for number in range(1, len(arrays) + 1):
        if not (ids == number).any():
            raise ValueError(f"{name}[{number - 1}] has no visible pixel; every object needs at least one.")
    return ids
