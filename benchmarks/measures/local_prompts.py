"""Measure "local_prompts": does the right object do what a mask cannot show?

Two-object scenes in which exactly one object turns a colour, spins or flashes
(:func:`benchmarks.scenes.pair_scene`). Stage 2 gets the true first frame and trajectory three times: with the
plan as it is; with the two local prompts swapped, the sentence as it was; and with the action handed to the
other object in its own local prompt and in the sentence ("the red ball moves left, and the blue square stays
and turns green").

Whether an object does it: :func:`ttm.metrics.appearance.changed_share` of at least 1/2; that is, over most of
the object's true region the video is closer to the clip in which this object changes than to the ones in which
it only moves or is not there. The detector's hit rates on the true video and on its autoencoder round trip are
printed beside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Figure, Measure, Outcome, Row, Settings, sampling_seed, share_figure
from benchmarks.scenes import PairScene, pair_names, pair_scene
from benchmarks.subject import Subject
from ttm.metrics.appearance import DOES_IT, changed_share
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan


def shares(pair: PairScene, frames: NDArray[np.uint8]) -> list[float]:
    """For each of the two objects, how much of a video shows the scene's change on it."""
    return [
        changed_share(frames, pair.still, pair.changed[number], pair.absent[number], pair.scene.ids == number + 1)
        for number in (0, 1)
    ]


def swapped(plan: PromptPlan) -> PromptPlan:
    """The two local prompts exchanged, word for word; the sentence stays as it was."""
    first, second = plan.objects
    objects = (
        ObjectPrompt(first.phrase, second.local_prompt),
        ObjectPrompt(second.phrase, first.local_prompt),
    )
    return PromptPlan(plan.prompt, plan.motion_prompt, objects)


def reworded(pair: PairScene) -> PromptPlan:
    """The action handed to the other object, in its local prompt and in the sentence alike."""
    appearance = pair.scene.objects[pair.asked].appearance
    clauses = []
    for number, item in enumerate(pair.scene.plan.objects):
        start = f"the {item.phrase} "
        actions = [part for part in item.local_prompt[len(start) :].split(" and ") if part != appearance]
        if number != pair.asked:
            actions.append(str(appearance))
        clauses.append(start + (" and ".join(actions) or "stays"))
    prompts = tuple(
        ObjectPrompt(item.phrase, clause) for item, clause in zip(pair.scene.plan.objects, clauses, strict=True)
    )
    sentence = " and ".join(clauses)
    return PromptPlan(sentence[0].upper() + sentence[1:] + ".", ", ".join(clauses), prompts)


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One scene, rendered three times from the same noise."""
    pair = pair_scene(settings, item)
    scene = pair.scene
    trajectory = MaskTrajectory(scene.ids)
    seed = sampling_seed(settings, "local_prompts", item)
    plans = {"as_asked": scene.plan, "swapped": swapped(scene.plan), "reworded": reworded(pair)}
    videos = {name: subject.render(scene.frames[0], trajectory, plan, seed) for name, plan in plans.items()}
    row: Row = {name: shares(pair, video) for name, video in videos.items()}
    row |= {
        "in_true": shares(pair, scene.frames),
        "in_round_trip": shares(pair, subject.round_trip(scene.frames)),
    }
    row |= {
        "asked": pair.asked,
        "appearance": scene.objects[pair.asked].appearance,
        "prompt": scene.plan.prompt,
    }
    return Outcome(row, {"true": scene.frames, "true trajectory": trajectory.to_video(), **videos})


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """Hit rates of the right and of the wrong object, as asked and swapped; by kind; of the detector."""

    def rate(text: str, name: str, *, right: bool, kind: str = "", **more: float | bool) -> Figure:
        """Share of scenes in which the right (or wrong) object does it; a swap makes the other one right."""
        hits = []
        for row in rows:
            asked = row["asked"] if name not in ("swapped", "reworded") else 1 - row["asked"]
            if row["appearance"].startswith(kind):
                hits.append(row[name][asked if right else 1 - asked] >= DOES_IT)
        return share_figure(text, hits, **more)

    return [
        rate("local prompts: the right object does it", "as_asked", right=True, goal=0.80),
        rate("local prompts: the wrong object does it", "as_asked", right=False, goal=0.10, at_most=True),
        rate("local prompts swapped: the now right object does it", "swapped", right=True, goal=0.80),
        rate(
            "local prompts swapped: the now wrong object does it",
            "swapped",
            right=False,
            goal=0.10,
            at_most=True,
        ),
        rate("  sentence reworded too: the now right object does it", "reworded", right=True),
        rate("  sentence reworded too: the now wrong object does it", "reworded", right=False),
        *(rate(f"  as asked, {kind}: the right object", "as_asked", right=True, kind=kind) for kind in _KINDS),
        rate("  detector on the round trip: right object", "in_round_trip", right=True),
        rate("  detector on the round trip: wrong object", "in_round_trip", right=False),
        rate("  detector on the true video: right object", "in_true", right=True),
        rate("  detector on the true video: wrong object", "in_true", right=False),
    ]


_KINDS = ("turns", "spins", "flashes")

MEASURE = Measure("local_prompts", pair_names, measure, summarise, samplings=3)
