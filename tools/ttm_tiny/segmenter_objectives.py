"""What the small SAM2 is trained on: points, boxes and masks on single images, and the tracking of masks in
clips.

Letters: B images, T frames, H W pixels, N prompts, K masks a prompt, O objects.

Focal and dice loss on the masks, of the three candidate masks the best alone (and a little on all, so that
none dies), squared error of the predicted IoU, cross-entropy of "is there an object" (SAM 2, arXiv
2408.00714, section D).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from numpy.typing import NDArray
from torch import Tensor, nn

from tools.ttm_tiny.segmenter_scenes import sample_points

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FINE = 2  # losses are taken at twice the decoder's resolution: edges count, full resolution costs too much


def normalized(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [..., H, W, 3] to what SAM2's image encoder takes, float32 [..., 3, H, W]."""
    pixels = torch.from_numpy(images).float() / 255
    return rearrange((pixels - torch.tensor(_MEAN)) / torch.tensor(_STD), "... h w c -> ... c h w")


def mask_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Focal (x 20) plus dice loss, and IoU, of logits [N, K, h, w] against targets 0..1 [N, H, W]: both [N, K]."""
    logits = F.interpolate(logits, scale_factor=_FINE, mode="bilinear")
    target = F.adaptive_avg_pool2d(target[:, None], logits.shape[-1]).expand_as(logits)
    chance = logits.sigmoid()
    wrong = chance + target - 2 * chance * target
    focal = (wrong.square() * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).mean((-2, -1))
    overlap = (chance * target).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (chance.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    with torch.no_grad():
        found, true = logits > 0, target > 0.5
        iou = (found & true).sum((-2, -1)) / (found | true).sum((-2, -1)).clamp(min=1)
    return 20 * focal + dice, iou


def prompt_loss(masks: Tensor, ious: Tensor, scores: Tensor, target: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Loss of the decoder's output for N prompts.

    Args:
        masks: logits [N, K, h, w]; K = 4 (the single mask, then three candidates) or 3 (candidates alone).
        ious: predicted IoU [N, K].
        scores: logits of "there is an object" [N, 1].
        target: the true masks [N, H, W] in 0..1; all zero where there is no object.
        present: bool [N], whether there is an object.
    """
    true_iou = torch.zeros_like(ious)
    loss = masks.new_zeros(())
    if present.any():
        each, found = mask_loss(masks[present], target[present])
        candidates = each[:, -3:]
        loss = candidates.min(dim=1).values.mean() + 0.1 * candidates.mean()
        if each.shape[1] == 4:
            loss = loss + each[:, 0].mean()
        true_iou[present] = found
    wanted = present.float()[:, None]
    parts = {
        "mask": loss,
        "iou": 2 * F.mse_loss(ious, true_iou),
        "object": 0.2 * F.binary_cross_entropy_with_logits(scores, wanted),
    }
    with torch.no_grad():
        best = ious[:, -3:].argmax(dim=1, keepdim=True)
        chosen = true_iou[:, -3:].gather(1, best)[present]
        parts["found"] = chosen.mean() if len(chosen) else chosen.new_zeros(())
    return parts


def image_features(model: Any, images: Tensor) -> list[Tensor]:
    """SAM2's three feature maps of images [B, 3, H, W], finest first, as its image predictor makes them."""
    _, flat, _, sizes = model._prepare_backbone_features(model.forward_image(images))
    flat[-1] = flat[-1] + model.no_mem_embed
    return [rearrange(each, "(h w) b d -> b d h w", h=h) for each, (h, _) in zip(flat, sizes, strict=True)]


def _decode(
    model: Any, features: list[Tensor], owner: Tensor, points: Any, masks: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    sparse, dense = model.sam_prompt_encoder(points=points, boxes=None, masks=masks)
    each = [feature[owner] for feature in features]
    decoder = model.sam_mask_decoder
    logits, ious, _, scores = decoder.predict_masks(
        each[-1], model.sam_prompt_encoder.get_dense_pe(), sparse, dense, False, each[:-1]
    )
    return logits, ious, scores


def image_loss(
    model: Any, images: NDArray[np.uint8], ids: NDArray[np.uint8], rng: np.random.Generator, points: int
) -> dict[str, Tensor]:
    """Loss on single images [B, H, W, 3] with ids [B, H, W]: ``points`` single clicks each, then a box for
    each object.

    Every other step the boxes come with a rough mask, as when a first answer is refined.
    """
    features = image_features(model, normalized(images))
    clicks, owners = zip(*(sample_points(rng, each, points) for each in ids), strict=True)
    owner = torch.from_numpy(np.concatenate(owners))
    batch = repeat(torch.arange(len(images)), "b -> (b n)", n=points)
    labels = torch.from_numpy(ids).long()
    target = ((labels[batch] == owner[:, None, None]) & (owner > 0)[:, None, None]).float()
    coords = torch.from_numpy(np.concatenate(clicks))[:, None]
    masks, ious, scores = _decode(model, features, batch, (coords, torch.ones(len(coords), 1)), None)
    parts = prompt_loss(masks, ious, scores, target, owner > 0)
    boxes = [(b, int(value)) for b, each in enumerate(ids) for value in np.unique(each) if value]
    if boxes:
        batch = torch.tensor([b for b, _ in boxes])
        target = torch.stack([(labels[b] == value).float() for b, value in boxes])
        corners = torch.from_numpy(np.stack([_box(rng, ids[b] == value) for b, value in boxes]))
        rough = _rough_masks(rng, target, model.sam_prompt_encoder.mask_input_size) if rng.random() < 0.5 else None
        prompts = (corners, torch.tensor([[2, 3]]).expand(len(boxes), 2))
        masks, ious, scores = _decode(model, features, batch, prompts, rough)
        again = prompt_loss(masks, ious, scores, target, torch.ones(len(boxes)) > 0)
        parts = {name: value if name == "found" else value + 0.5 * again[name] for name, value in parts.items()}
    return parts


def _box(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The mask's box, its corners [2, 2] (x, y) moved by up to a tenth of its sides."""
    y, x = np.nonzero(mask)
    corners = np.array([[x.min(), y.min()], [x.max() + 1, y.max() + 1]], np.float32)
    return (corners + rng.uniform(-0.1, 0.1, (2, 2)) * (corners[1] - corners[0])).astype(np.float32)


def _rough_masks(rng: np.random.Generator, target: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [N, 1, h, w] of a first answer that is shifted, blurred and not sure of itself."""
    shift = rng.integers(-4, 5, 2).tolist()
    moved = torch.roll(target, shift, dims=(1, 2))[:, None]
    blurred = F.avg_pool2d(moved, 7, stride=1, padding=3)
    small = F.interpolate(blurred, size, mode="bilinear", antialias=True)
    noise = torch.from_numpy(rng.normal(0, 1.0, tuple(small.shape)).astype(np.float32))
    return (small - 0.5) * float(rng.uniform(8, 24)) + noise


def clip_loss(
    model: nn.Module, clips: NDArray[np.uint8], ids: NDArray[np.uint8], hook: DecoderTap
) -> dict[str, Tensor]:
    """Loss of tracking the first frame's masks through clips [B, T, H, W, 3] with ids [B, T, H, W]."""
    tracker: Any = model
    length = clips.shape[1]
    objects = [(b, int(value)) for b, each in enumerate(ids) for value in np.unique(each[0]) if value]
    batch = torch.tensor([b for b, _ in objects])
    target = torch.stack([torch.from_numpy(ids[b] == value).float() for b, value in objects])
    out = tracker.forward_image(rearrange(normalized(clips), "b t c h w -> (b t) c h w"))
    _, features, places, sizes = tracker._prepare_backbone_features(out)
    memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    losses: list[dict[str, Tensor]] = []
    for t in range(length):
        index = batch * length + t
        current = tracker.track_step(
            frame_idx=t,
            is_init_cond_frame=t == 0,
            current_vision_feats=[each[:, index] for each in features],
            current_vision_pos_embeds=[each[:, index] for each in places],
            feat_sizes=sizes,
            point_inputs=None,
            mask_inputs=target[:, :1] if t == 0 else None,
            output_dict=memory,
            num_frames=length,
        )
        memory["cond_frame_outputs" if t == 0 else "non_cond_frame_outputs"][t] = current
        if t > 0:
            masks, ious, scores = hook.seen
            losses.append(prompt_loss(masks, ious, scores, target[:, t], target[:, t].sum((1, 2)) >= 8))
    return {name: torch.stack([each[name] for each in losses]).mean() for name in losses[0]}


class DecoderTap:
    """Keeps the mask decoder's last output as it was before SAM2 wipes the masks of absent objects.

    While tracking, SAM2 replaces every mask whose object score is negative by a constant, and hides the score
    in training mode: neither would get a gradient from what ``track_step`` returns.
    """

    def __init__(self, model: nn.Module) -> None:
        tracker: Any = model
        self.seen: tuple[Tensor, Tensor, Tensor]
        tracker.sam_mask_decoder.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        self.seen = (output[0], output[1], output[3])
