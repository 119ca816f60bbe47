"""Clips that are never trained on, and what is measured on those that a model in training draws of them.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from stages.cache import build_world
from stages.prepared import ShardIndex, split_clips
from stages.settings import Settings
from ttm.data.clip_manifest import ClipFolderManifest
from ttm.data.prepared_clips import PreparedClip
from ttm.metrics.mask_iou import mean_iou
from ttm.metrics.psnr import psnr
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.optical_flow import FlowTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.autoencoders import decode_latents

MOST_DECIBELS = 100.0
"""Equal pixels; so that a mean stays a number."""


@dataclass(frozen=True, eq=False)
class ValidationClip:
    """A clip: frames uint8 [T, H, W, 3], what they show, and how its objects move."""

    frames: NDArray[np.uint8]
    plan: PromptPlan
    moves: MaskTrajectory


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a model drew: frames and true_frames uint8 [T, H, W, 3], and its scores by their names."""

    frames: NDArray[np.uint8]
    true_frames: NDArray[np.uint8]
    scores: dict[str, float]

    def beside_truth(self) -> NDArray[np.uint8]:
        """The drawn clip above the true one."""
        return np.concatenate([self.frames, self.true_frames], axis=1)


def validation_clips(settings: Settings, vae: Any) -> list[ValidationClip]:
    """The first ``sample_scenes`` validation clips: scenes of another split, or the clips that were held out.

    Args:
        vae: the frozen autoencoder; frames of a prepared clip without a video are decoded from its latents.
    """
    data, count = settings.data, settings.sample_scenes
    if data.name != "prepared":
        world = build_world(data, "val")
        scenes = [world[index] for index in range(count)]
        return [ValidationClip(s.frames, s.plan, FlowTrajectory(s.ids, s.flow())) for s in scenes]
    _, rows = split_clips(ClipFolderManifest.load(data.folder), data.held_out)
    index = ShardIndex(Path(data.folder), rows)
    clips = [index.read(row) for row in rows[:count]]
    return [ValidationClip(_frames(clip, vae), clip.plan, clip.trajectory) for clip in clips]


@torch.no_grad()
def _frames(clip: PreparedClip, vae: Any) -> NDArray[np.uint8]:
    if clip.latents is None:
        return clip.frames()
    latents = torch.from_numpy(clip.latents["video"])[None].float().to(vae.device)
    pixels = (decode_latents(vae, latents)[0].cpu() + 1) * 127.5
    return rearrange(pixels.round().to(torch.uint8), "c t h w -> t h w c").numpy()


def motion_scores(made: MaskTrajectory, true: MaskTrajectory) -> dict[str, float]:
    """Of stage 1: "iou", the mean over objects of their masks' intersection over union with the true ones."""
    return {"iou": mean_iou(made.ids, true.ids)} if true.ids.any() else {}


def video_scores(made: NDArray[np.uint8], clip: ValidationClip) -> dict[str, float]:
    """Of stage 2, decibels against the true video: "psnr" of all pixels, "psnr_objects" where its objects are."""
    found = {"psnr": psnr(made, clip.frames)}
    where = clip.moves.ids > 0
    if where.any():
        found["psnr_objects"] = psnr(made, clip.frames, where)
    return {name: min(value, MOST_DECIBELS) for name, value in found.items()}


def mean_scores(clips: Sequence[Drawn]) -> dict[str, float]:
    """Each score's mean over the clips that have it."""
    names = sorted({name for clip in clips for name in clip.scores})
    every = {name: [clip.scores[name] for clip in clips if name in clip.scores] for name in names}
    return {name: math.fsum(values) / len(values) for name, values in every.items()}
