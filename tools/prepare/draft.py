"""A clip on its way: what is known of it between two stages, and the row of bytes that carries it between processes.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as arrays_of
from safetensors.numpy import save as bytes_of

from tools.prepare.windows import Window
from ttm.objects import PromptPlan


@dataclass(frozen=True)
class Rejected:
    """A clip, or a whole source, that is left out.

    Attributes:
        source: its name.
        clip_id: of the clip, "" for the whole source.
        stage: where it failed: "cut", "read", "masks", "caption", "plan", "ground", "track", "encode" or "write".
        reason: one sentence.
        shard: that the clip would have gone to.
        unexpected: an error that a better machine or program may not have; tried again by the next run.
    """

    source: str
    clip_id: str
    stage: str
    reason: str
    shard: str = ""
    unexpected: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Stopped:
    """Nothing can go on: the disk is full, a model can't be loaded, or the program is wrong.

    Attributes:
        reason: one sentence.
    """

    reason: str


@dataclass(frozen=True, eq=False)
class Draft:
    """A clip that is being prepared.

    Attributes:
        source: name of its source.
        window: where it lies there.
        fps: frames a second.
        frames: uint8 [T, H, W, 3].
        ids: uint8 [T, H, W]; None until they are given or tracked.
        known: bool [T]: which frames of given ``ids`` have masks of their own; None where they are tracked.
        caption: what it shows, or None.
        phrases: what to look for, where that is given; object ``l`` has id ``l + 1``.
        plan: the caption, taken apart, or None.
        in_order: the given masks' objects are in the order of phrases and plan.
        latents: as in :class:`~ttm.data.prepared_clips.PreparedClip`.
        encoder: as there.
    """

    source: str
    window: Window
    fps: float
    frames: NDArray[np.uint8]
    ids: NDArray[np.uint8] | None = None
    known: NDArray[np.bool_] | None = None
    caption: str | None = None
    phrases: tuple[str, ...] = ()
    plan: PromptPlan | None = None
    in_order: bool = False
    latents: Mapping[str, NDArray[np.float16]] | None = None
    encoder: str | None = None

    def rejected(self, stage: str, reason: str, unexpected: bool = False) -> Rejected:
        """This clip, left out."""
        return Rejected(self.source, self.window.clip_id, stage, reason, self.window.shard, unexpected)


Item = Draft | Rejected | Stopped
_NOTHING = np.zeros(1, np.uint8)


def to_row(item: Item) -> dict[str, Any]:
    """As one row of a data set: JSON, and arrays as safetensors' bytes."""
    if isinstance(item, Stopped):
        return {"facts": json.dumps({"stopped": item.reason}), "arrays": _NOTHING}
    if isinstance(item, Rejected):
        return {"facts": json.dumps({"rejected": item.to_dict()}), "arrays": _NOTHING}
    arrays: dict[str, NDArray[Any]] = {"frames": item.frames}
    arrays |= {name: array for name, array in (("ids", item.ids), ("known", item.known)) if array is not None}
    arrays |= {f"latents.{name}": array for name, array in (item.latents or {}).items()}
    facts = {
        "source": item.source, "window": item.window.to_dict(), "fps": item.fps, "caption": item.caption,
        "phrases": item.phrases, "plan": item.plan.to_dict() if item.plan else None, "in_order": item.in_order,
        "encoder": item.encoder,
    }  # fmt: skip
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {"facts": json.dumps(facts), "arrays": np.frombuffer(bytes_of(contiguous), np.uint8)}


def from_row(row: Mapping[str, Any]) -> Item:
    """The inverse of :func:`to_row`."""
    facts = json.loads(row["facts"])
    if "stopped" in facts:
        return Stopped(facts["stopped"])
    if "rejected" in facts:
        return Rejected(**facts["rejected"])
    arrays = arrays_of(row["arrays"].tobytes())
    latents = {name[8:]: array for name, array in arrays.items() if name.startswith("latents.")}
    plan = None if facts.pop("plan") is None else PromptPlan.from_dict(json.loads(row["facts"])["plan"])
    return Draft(
        **{**facts, "window": Window.from_dict(facts["window"]), "phrases": tuple(facts["phrases"])},
        frames=arrays["frames"],
        ids=arrays.get("ids"),
        known=arrays.get("known"),
        plan=plan,
        latents=latents or None,
    )
