"""Measure "sa_v": a real video's trajectory, of five objects that hide and appear late, reaches stage 2's attention
without losing one.

The manual masklets of one SA-V video (its annotations; the video itself is not needed) become a
:class:`MaskTrajectory`, at the model's size and number of frames; then the sets of objects in the tokens
(masked cross-attention), the owners of the tokens (masked self-attention). Counted: the objects that each step still
has, of those that the annotation shows in any frame. Stage 2 renders it over a photograph, to be looked at; a video
of one flat colour counts as no object kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.measure import Figure, Measure, Outcome, Row, Settings, sampling_seed
from benchmarks.subject import Subject
from ttm.data.sa_v import load_trajectory
from ttm.data.sprites import photograph
from ttm.objects import ObjectPrompt, PromptPlan

FILE = "sav_000001_manual.json"
NAME = "SA-V trajectory, objects that reach stage 2's attention"


def items(settings: Settings) -> list[str]:
    """One video."""
    return ["sav_000001"]


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """The video, step by step."""
    path = None if settings.real_data is None else settings.real_data / FILE
    if path is None or not path.is_file():
        return Outcome({"skipped": f"{FILE} is not there; expected it in TTM_REAL_DATA or ../shared/data"})
    whole = load_trajectory(path)
    fitted = whole.resample(subject.num_frames).resize(*subject.size)
    numbers = whole.object_ids
    image = subject.fit(photograph("coffee"))
    names = [ObjectPrompt(f"object {number}", f"the object {number} moves") for number in range(1, max(numbers) + 1)]
    prompt = " and ".join(item.local_prompt for item in names)
    plan = PromptPlan(prompt, ", ".join(item.local_prompt for item in names), tuple(names))
    occupied, owned = subject.object_tokens(fitted, len(names))
    frames = subject.render(image, fitted, plan, sampling_seed(settings, "sa_v", item))
    row = {
        "annotated": len(numbers),
        "frames": whole.num_frames,
        "trajectory": len(fitted.object_ids),
        "token_sets": occupied,
        "token_owners": owned,
        "rendered": int(frames.shape[0]) if np.ptp(frames) > 0 else 0,
        "visible_frames": {str(number): int((fitted.ids == number).any(axis=(1, 2)).sum()) for number in numbers},
    }
    return Outcome(row, {"trajectory": fitted.to_video(), "generated": frames})


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """Objects that each step keeps, as a share of those annotated."""
    figures = []
    for row in rows:
        if "skipped" in row:
            figures.append(Figure(NAME, None, 0, note="skipped: " + row["skipped"]))
            continue
        count = row["annotated"]
        steps = [row[name] for name in ("trajectory", "token_sets", "token_owners")]
        note = f"of {count} objects: trajectory {steps[0]}, token sets {steps[1]}, owners {steps[2]}"
        note += f"; stage 2 rendered {row['rendered']} frames"
        kept = min(steps) / count if row["rendered"] else 0.0
        figures.append(Figure(NAME, kept, count, unit="%", goal=1.0, note=note))
    return figures


MEASURE = Measure("sa_v", items, measure, summarise, samplings=1)
