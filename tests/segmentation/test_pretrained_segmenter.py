"""What the trained weights of ttm-tiny do on pictures that training never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage import data as photographs

from ttm.data.synthetic import SyntheticWorld
from ttm.metrics.mask_iou import mask_iou, mean_iou
from ttm.segmentation import Segmenter
from ttm.segmentation.segmenter import PhraseNotFoundError

FOLDER = Path(__file__).parents[2] / "ttm" / "pretrained" / "ttm-tiny" / "segmenter"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained(FOLDER)


def _disc_on_photograph(side: int) -> tuple[Image.Image, NDArray[np.bool_]]:
    """A flat red disc drawn on the photograph of a rocket, and its mask."""
    picture = Image.fromarray(photographs.rocket()[:420, 100:520]).resize((side, side))
    box = (side * 0.2, side * 0.45, side * 0.46, side * 0.71)
    ImageDraw.Draw(picture).ellipse(box, fill=(220, 40, 40))
    drawn = Image.new("L", (side, side))
    ImageDraw.Draw(drawn).ellipse(box, fill=255)
    return picture, np.asarray(drawn) > 127


@pytest.mark.parametrize("side", [128, 320])
def test_a_disc_that_no_code_here_drew_is_found(segmenter: Segmenter, side: int) -> None:
    picture, mask = _disc_on_photograph(side)
    ids = segmenter.segment(picture, ["red ball"])
    assert mask_iou(ids == 1, mask) > 0.75


def test_what_is_not_there_is_not_found(segmenter: Segmenter) -> None:
    picture, _ = _disc_on_photograph(128)
    with pytest.raises(PhraseNotFoundError, match="'green horse'.*What was seen: .*'red ball'"):
        segmenter.segment(picture, ["green horse"])


def test_held_out_scenes_are_segmented_and_tracked(segmenter: Segmenter) -> None:
    world = SyntheticWorld("test", num_objects=(1, 2), motions=("left", "right", "up", "down"), appearance=0.0)
    found, followed = [], []
    for number in range(4):
        scene = world[number]
        ids = segmenter.segment(scene.frames[0], scene.plan.phrases)
        found.append(mean_iou(ids, scene.ids[0]))
        followed.append(mean_iou(segmenter.track(scene.frames[::2], scene.ids[0]), scene.ids[::2]))
    assert np.mean(found) > 0.7 and np.mean(followed) > 0.6
