"""How well a segmenter finds and follows the objects of synthetic scenes it has not seen.

python -m tools.ttm_tiny.measure_segmenter --segmenter ttm/pretrained/ttm-tiny/segmenter --split test --scenes 64
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttm.data.synthetic import Split, SyntheticScene, SyntheticWorld
from ttm.metrics.mask_iou import mask_iou, mean_iou
from ttm.segmentation import Segmenter
from ttm.segmentation.candidates import find_candidates
from ttm.segmentation.segmenter import PhraseNotFoundError

SEED = 7


def held_out(split: Split, scenes: int) -> Iterator[SyntheticScene]:
    """So many scenes: half with one object, half with two or three."""
    one = SyntheticWorld(split, num_objects=(1, 1), seed=SEED)
    more = SyntheticWorld(split, num_objects=(2, 3), seed=SEED)
    for number in range(scenes):
        yield (one if number % 2 == 0 else more)[number]


def evaluate(segmenter: Segmenter, split: Split, scenes: int = 64) -> dict[str, float]:
    """Figures over so many scenes.

    Returns:
        "iou": mean over all objects of the first frame's IoU, from image and phrases; 0 for all of a scene's objects
            where a phrase was not found. "iou_single" and "iou_multiple": the same where there is one object, or more.
        "refused": share of the scenes where a phrase was not found.
        "masks": mean over all objects of the best IoU of any mask that SAM2 proposed: what perfect naming would give.
        "tracking": J of tracking the true first-frame masks, mean over objects and frames after the first.
        "seconds_segment", "seconds_track": mean time of a call.
    """
    ious: dict[bool, list[float]] = {True: [], False: []}
    best: list[float] = []
    tracking: list[float] = []
    refused: list[float] = []
    segmenting, following = 0.0, 0.0
    for scene in held_out(split, scenes):
        image, ids = scene.frames[0], scene.ids[0]
        visible = [number for number in range(1, len(scene.objects) + 1) if (ids == number).any()]
        began = time.perf_counter()
        try:
            found: NDArray[np.uint8] | None = segmenter.segment(image, scene.plan.phrases)
        except PhraseNotFoundError:
            found = None
        segmenting += time.perf_counter() - began
        refused.append(float(found is None))
        each = [0.0 if found is None else mask_iou(found == number, ids == number) for number in visible]
        ious[len(scene.objects) == 1] += each
        masks = find_candidates(segmenter.sam2, image, dict(segmenter.config["mask_generator"] or {})).masks
        best += [max((mask_iou(mask, ids == number) for mask in masks), default=0.0) for number in visible]
        began = time.perf_counter()
        tracked = segmenter.track(scene.frames, ids)
        following += time.perf_counter() - began
        tracking += [mean_iou(tracked[1:], scene.ids[1:], [number]) for number in visible]
    figures = {
        "iou": ious[True] + ious[False],
        "iou_single": ious[True],
        "iou_multiple": ious[False],
        "refused": refused,
        "masks": best,
        "tracking": tracking,
    }
    means = {name: round(float(np.mean(values)), 4) for name, values in figures.items()}
    return {**means, "seconds_segment": segmenting / scenes, "seconds_track": following / scenes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmenter", type=Path, default=Path("ttm/pretrained/ttm-tiny/segmenter"))
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=64)
    arguments = parser.parse_args()
    segmenter = Segmenter.from_pretrained(arguments.segmenter)
    print(json.dumps(evaluate(segmenter, arguments.split, arguments.scenes), indent=2))


if __name__ == "__main__":
    main()
