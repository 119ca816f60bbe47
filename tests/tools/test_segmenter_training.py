"""What the small SAM2 and the small CLIP are trained on, and that their training resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tools.ttm_tiny import train_segmenter
from tools.ttm_tiny.clip_crops import CONTRAST, PHRASES, crop_batch, said_otherwise
from tools.ttm_tiny.segmenter_objectives import DecoderTap, clip_loss, image_loss, mask_loss, prompt_loss
from tools.ttm_tiny.segmenter_scenes import clip_batch, image_batch, sample_points
from tools.ttm_tiny.train_clip import CONFIG, loss_at
from ttm.data.sprites import COLOURS, SHAPES
from ttm.data.synthetic import SyntheticWorld, is_held_out
from ttm.segmentation.grounding import build_clip
from ttm.segmentation.sam2_loading import build_sam2


def _world(frames: int) -> SyntheticWorld:
    return SyntheticWorld("train", size=64, num_frames=frames, num_objects=(1, 2))


def test_the_right_mask_costs_nothing_and_has_iou_one() -> None:
    target = torch.zeros(2, 32, 32)
    target[0, 8:24, 8:24] = 1
    target[1, 0:8, 16:32] = 1
    right = (target[:, None, ::4, ::4] - 0.5) * 60
    loss, iou = mask_loss(torch.cat([right, -right], dim=1), target)
    assert (iou[:, 0] > 0.8).all() and (iou[:, 1] < 0.2).all()
    assert (loss[:, 0] < 0.2).all() and (loss[:, 1] > 5).all()


def test_of_three_candidates_the_best_counts_and_absent_objects_ask_for_no_mask() -> None:
    target = torch.zeros(2, 32, 32)
    target[0, 8:24, 8:24] = 1
    good = (target[:, None, ::4, ::4] - 0.5) * 60
    masks = torch.cat([good, -good, -good], dim=1).requires_grad_()
    ious, scores = torch.full((2, 3), 0.5), torch.zeros(2, 1)
    present = torch.tensor([True, False])
    parts = prompt_loss(masks, ious, scores, target, present)
    worse = prompt_loss(torch.cat([-good] * 3, dim=1), ious, scores, target, present)
    assert parts["mask"] < 0.5 * worse["mask"]
    parts["mask"].backward()
    assert masks.grad is not None and masks.grad[1].abs().max() == 0


def test_points_lie_on_what_they_are_said_to_lie_on() -> None:
    ids = np.zeros((20, 30), np.uint8)
    ids[5:10, 5:10], ids[12:18, 20:28] = 1, 2
    points, owners = sample_points(np.random.default_rng(0), ids, 60)
    assert set(owners) == {0, 1, 2}
    for (x, y), owner in zip(points.astype(int), owners, strict=True):
        assert ids[y, x] == owner


def test_batches_come_from_seed_and_step_alone() -> None:
    images, ids = image_batch(_world(2), seed=1, step=5, count=4)
    again, _ = image_batch(_world(2), seed=1, step=5, count=4)
    other, _ = image_batch(_world(2), seed=1, step=6, count=4)
    assert images.shape == (4, 64, 64, 3) and ids.shape == (4, 64, 64) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, again)
    assert (images != other).any()


def test_every_part_of_sam2_learns_but_the_one_that_it_never_uses() -> None:
    torch.manual_seed(0)
    model = build_sam2(train_segmenter.tiny_config(64)).train()
    tap = DecoderTap(model)
    for seed in (0, 1):  # one of them gives its boxes a rough mask
        batch = image_batch(_world(2), seed=0, step=seed, count=2)
        parts = image_loss(model, *batch, np.random.default_rng(seed), points=4)
        (parts["mask"] + parts["iou"] + parts["object"]).backward()
    parts = clip_loss(model, *clip_batch(_world(5), seed=0, step=0, count=1, length=3), tap)
    (parts["mask"] + parts["iou"] + parts["object"]).backward()
    still = {name for name, value in model.named_parameters() if value.grad is None}
    assert still == {"no_mem_pos_enc"}
    head = model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    assert head.grad is not None and head.grad.abs().max() > 0


def test_training_goes_on_where_it_stopped(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(train_segmenter, "IMAGES", 2)
    monkeypatch.setattr(train_segmenter, "POINTS", 2)
    first = train_segmenter.train(tmp_path, minutes=60, most_steps=2)
    again = train_segmenter.Run(tmp_path, minutes=60)
    assert again.step == 2 and again.used == first.used
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(again.average[name], first.average[name], rtol=0, atol=0)
    moments = list(zip(first.model.parameters(), again.model.parameters(), strict=True))
    for before, after in moments:
        kept, found = first.optimizer.state.get(before, {}), again.optimizer.state.get(after, {})
        assert set(kept) == set(found)
        for key, value in kept.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=0)
    assert train_segmenter.train(tmp_path, minutes=60, most_steps=3).step == 3
    assert len(list(tmp_path.glob("step-*.safetensors"))) == 1


def test_clip_is_told_what_crops_show_and_never_a_held_out_pair() -> None:
    crops, names = crop_batch(_world(2), seed=0, step=0, scenes=4, side=16)
    assert crops.shape == (len(names), 16, 16, 3) and None in names
    assert any(name is not None for name in names)
    held_out = {f"{c} {s}" for c in COLOURS for s in SHAPES if is_held_out(c, s)}
    assert not held_out & set(PHRASES) and held_out <= set(CONTRAST)
    rng = np.random.default_rng(0)
    said = {said_otherwise(rng, "red ball") for _ in range(200)}
    assert {"red ball", "the red ball", "red disc"} <= said


def test_clip_learns_in_both_towers() -> None:
    torch.manual_seed(0)
    clip = build_clip(CONFIG).train()
    loss_at(clip, _world(2), 0, 0.0).backward()
    assert all(value.grad is not None for value in clip.parameters())
