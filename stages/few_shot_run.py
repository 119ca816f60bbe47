"""What a few-shot run was begun with: its base, its clips and what is learnt of them.

A run is known by its output folder, and the same command goes on there. Another base, or other clips, would fit its
weights as well, and be named beside weights that they never made: that is refused. Clips are known by their names and
prompts: pixels may differ in the last bit from one machine to the next, and a run may move.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.settings import Settings
from stages.whole_files import write_json
from ttm.data.clip_folder import Clip
from ttm.pipelines.few_shot_base import Base

BEGUN_WITH = "begun_with.json"


def expect_same_run(settings: Settings, base: Base, clips: Sequence[Clip]) -> None:
    """Compare with what the run in ``settings.output_dir`` was begun with, or write that down.

    Raises:
        ValueError: there are checkpoints of a run that was begun with something else; says with what.
    """
    folder = Path(settings.output_dir)
    described = _described(settings, base, clips)
    path = folder / BEGUN_WITH
    if path.is_file() and any((folder / "checkpoints").glob("step-*")):
        known = json.loads(path.read_text(encoding="utf-8"))
        for name, value in described.items():
            if known.get(name) != value:
                raise ValueError(
                    f"{folder} holds a run with another {name}: {known.get(name)}; expected {value}, or another folder"
                    " to write (-o)."
                )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, described)


def _described(settings: Settings, base: Base, clips: Sequence[Clip]) -> dict[str, Any]:
    data, host = settings.data, settings.host
    return {
        "base": asdict(base),
        "clips": [f"{clip.name}: {clip.prompt}" for clip in clips],
        "data": {"num_frames": data.num_frames, "vary_colours": data.clips.vary_colours},
        "trained": {"trainable": host.trainable, "lora_rank": host.lora_rank if host.trainable == "lora" else None},
        "objective": asdict(settings.objective),
    }
