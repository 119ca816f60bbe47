"""Crops, probabilities and the assignment of phrases to masks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ttm.segmentation.grounding import (
    FADE,
    GREY,
    assign,
    build_clip,
    phrase_log_odds,
    public_clip,
    region_crop,
)


def _rectangles(*boxes: tuple[int, int, int, int], side: int = 32) -> np.ndarray:
    masks = np.zeros((len(boxes), side, side), bool)
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_a_crop_keeps_the_region_and_fades_the_rest() -> None:
    image = np.full((40, 60, 3), 20, np.uint8)
    image[10:30, 20:40] = (200, 40, 90)
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    crop = region_crop(image, mask, 52)  # 20 px and a margin of 15% on each side = 26 px, shown twice as large
    assert crop.shape == (52, 52, 3) and crop.dtype == np.uint8
    assert (crop[26, 26] == (200, 40, 90)).all()
    assert (crop[0, 0] == round(20 + FADE * (GREY - 20))).all()


def test_a_crop_beyond_the_image_is_grey() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[0, 0] = True
    crop = region_crop(image, mask, 4)
    assert (crop[0, 0] == GREY).all() and (crop[-1, -1] != GREY).all()


def test_assignment_is_the_best_of_all_assignments() -> None:
    rng = np.random.default_rng(0)
    masks = _rectangles(*((0, 4, 5 * n, 5 * n + 4) for n in range(5)))
    for _ in range(20):
        log_odds, quality = rng.uniform(-6, 0, (5, 3)), rng.uniform(0, 1, 5)
        worth = log_odds + 0.7 * quality[:, None]
        best = max(permutations(range(5), 3), key=lambda rows: sum(worth[row, n] for n, row in enumerate(rows)))
        assert assign(log_odds, masks, quality, 0.7) == list(best)


def test_a_thing_and_a_part_of_it_are_not_two_objects() -> None:
    masks = _rectangles((0, 20, 0, 20), (0, 10, 0, 20), (24, 30, 24, 30))
    log_odds = np.array([[-0.1, -0.5], [-3.0, -0.2], [-9.0, -4.0]])
    assert assign(log_odds, masks, np.ones(3), 0.0) == [0, 2]


def test_a_phrase_without_a_mask_left_is_minus_one() -> None:
    masks = _rectangles((0, 20, 0, 20), (0, 10, 0, 20))
    assert assign(np.array([[-0.1, -0.5], [-3.0, -0.2]]), masks, np.ones(2), 0.0) == [0, -1]
    assert assign(np.array([[-0.1, -0.5]]), masks[:1], np.ones(1), 0.0) == [0, -1]


def test_probabilities_of_different_phrases_sum_to_one() -> None:
    directions = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    log_odds = phrase_log_odds(directions[:2], directions[2:], torch.zeros(0, 16), scale=4.0)
    torch.testing.assert_close(log_odds.exp().sum(dim=1), torch.ones(2))


def test_phrases_that_say_the_same_are_no_rivals() -> None:
    directions = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    region, phrase, other = directions[:1], directions[1:2], directions[2:]
    alone = phrase_log_odds(region, phrase, other, scale=4.0)
    twice = phrase_log_odds(region, phrase.repeat(2, 1), torch.cat([phrase, other]), scale=4.0)
    torch.testing.assert_close(twice, alone.expand(1, 2))


def test_clip_models_that_cannot_be_rebuilt_are_refused() -> None:
    text = {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"}
    with pytest.raises(ValueError, match="expected one with CLIP's"):
        build_clip({"embed_dim": 8, "vision_cfg": {}, "text_cfg": text})
    with pytest.raises(ValueError, match="cannot build"):
        build_clip({"embed_dim": 8, "vision_cfg": {"colour": 1}, "text_cfg": {}})
    with pytest.raises(ValueError, match="no model 'ViT-Z'"):
        public_clip("ViT-Z", "openai")
