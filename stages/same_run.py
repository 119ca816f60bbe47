"""Whether a run that goes on is the run that was begun.

A run is known by its output folder, and the same command goes on there. Other settings, another base or other clips may
fit its weights all the same: the samples of its steps would be of two kinds, or what it leaves would name a base that
it never saw. That is refused. A run of the two stages knows weights and clips by what they hold, and both may move; a
few-shot run knows its base by its name too, because what it leaves names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.checkpoint import latest_checkpoint
from stages.settings import Settings
from stages.whole_files import write_json

if TYPE_CHECKING:  # a trainer of two stages has no need of them
    from ttm.data.clip_folder import Clip
    from ttm.pipelines.few_shot_base import Base

KEPT = (
    "stage.name", "objective.name", "objective.beta_schedule", "objective.beta_start", "objective.beta_end",
    "objective.weighting", "objective.sampling", "objective.mean", "objective.std", "objective.shift", "motion.name",
    "seed", "batch_size", "optimizer.name", "data.name", "data.seed", "data.size", "data.num_frames",
    "data.num_objects", "data.appearance", "data.pieces", "data.clips.height", "data.clips.width", "data.clips.fps",
    "host.region", "host.first_frame_attention", "host.mask_cross_attention",
)  # fmt: skip
"""Settings that a run keeps from its first step to its last: they decide its samples, what is learnt of them, and what
an optimiser's state means. How often a condition is left out may change on the way, as the learning rate does."""
BEGUN_WITH = "begun_with.json"


def expect_same_settings(settings: Settings) -> None:
    """Compare settings with those of the last checkpoint in their output folder, if there is one.

    Raises:
        ValueError: one of ``KEPT`` differs; says which. Or the checkpoint is damaged.
    """
    folder = Path(settings.output_dir)
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        return
    begun_with, now = checkpoint.state.get("settings", {}), asdict(settings)
    for path in KEPT:
        known, asked = (_setting(values, path) for values in (begun_with, now))
        if known is not None and known != asked:
            raise ValueError(
                f"{folder} holds a run with {path}={known}; expected that, not {asked}, or another output_dir."
            )


def _setting(values: Mapping[str, Any], path: str) -> Any:
    """The value of "optimizer.lr" in nested settings; None where there is none."""
    found: Any = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def expect_same_base(settings: Settings, base: Base) -> None:
    """Compare a few-shot run's base, and what is trained of it, with those that the run in its folder was begun with.

    Raises:
        ValueError, OSError: as :func:`expect_begun_with`.
    """
    host = settings.host
    described = {
        "base": asdict(base),
        "base_fingerprint": base.fingerprint(),
        "vary_colours": settings.data.clips.vary_colours,
        "trained": {"trainable": host.trainable, "lora_rank": host.lora_rank if host.trainable == "lora" else None},
    }
    expect_begun_with(settings, described)


def expect_same_clips(settings: Settings, clips: Sequence[Clip], folder: Path | None = None) -> None:
    """Compare a few-shot run's clips with those that the run in its folder was begun with.

    They are known by their names and prompts and, where they come from a folder, by the bytes of their files: pixels
    may differ in the last bit from one machine to the next, and a run may move.

    Args:
        settings: of the run.
        clips: its windows.
        folder: that they were read from; None: from none.

    Raises:
        ValueError, OSError: as :func:`expect_begun_with`.
    """
    described: dict[str, Any] = {"clips": [f"{clip.name}: {clip.prompt}" for clip in clips]}
    expect_begun_with(settings, described | ({} if folder is None else _contents(folder)))


def _contents(folder: Path) -> dict[str, str]:
    """A digest of the bytes of each clip and of the masks given for it."""
    from ttm.data.clip_folder import clip_names, masks_beside
    from ttm.data.clip_prompts import read_clip_prompts

    names, contents = clip_names(folder), {}
    for name, told in read_clip_prompts(folder, names).items():
        files = [folder / name]
        if masks := told.masks or masks_beside(folder / name):
            painted = sorted(path for path in masks.rglob("[!.]*") if path.is_file()) if masks.is_dir() else [masks]
            files += painted
        digest = hashlib.sha256()
        for path in files:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        contents[f"content of {name}"] = digest.hexdigest()[:12]
    return contents


def expect_begun_with(settings: Settings, described: Mapping[str, Any]) -> None:
    """Compare what a run stands on with what the run in its folder was begun with, and write down what is new.

    Args:
        settings: of the run.
        described: its parts by their names, as JSON values; None: not known, and not compared.

    Raises:
        ValueError: there are checkpoints of a run that was begun with others; says with which.
        OSError: the folder can't be written.
    """
    folder = Path(settings.output_dir)
    path = folder / BEGUN_WITH
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    goes_on = any((folder / "checkpoints").glob("step-*"))
    for name, value in described.items():
        if goes_on and None not in (known.get(name), value) and known[name] != value:
            raise ValueError(
                f"{folder} holds a run that was begun with another {name}: {known[name]}, not {value}; expected the"
                " same, or another folder to write (output_dir)."
            )
    write_json(path, known | {name: value for name, value in described.items() if value is not None})
