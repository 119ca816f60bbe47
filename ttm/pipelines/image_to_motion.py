"""Stage 1: image, first-frame masks and the text of the motion in; a mask trajectory out.

Letters: T frames, H W pixels, t h w latent frames, rows and columns, Z latent channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from numpy.typing import NDArray
from torch import Tensor

from ttm.motion.mask_trajectory import PALETTE, MaskTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.autoencoders import decode_latents, encode_video
from ttm.pipelines.conditioning import Conditions, image_to_motion_condition
from ttm.pipelines.host_image import check_first_frame_known
from ttm.pipelines.inputs import (
    check_masks_against_plan,
    fit_ids,
    fit_image,
    read_image,
    read_masks,
    to_model,
    to_uint8,
)
from ttm.pipelines.stage_pipeline import StagePipeline, StepCallback


@dataclass
class ImageToMotionOutput(BaseOutput):
    """What stage 1 makes.

    Attributes:
        trajectory: ids [T, H, W]; None for ``output_type="latent"``.
        frames: the motion's pictures as the autoencoder decoded them, uint8 [T, H, W, 3]; None for latents.
        latents: normalised latents of the clip, float32 [1, Z, t, h, w].
    """

    trajectory: MaskTrajectory | None
    frames: NDArray[np.uint8] | None
    latents: Tensor


class ImageToMotionPipeline(StagePipeline):
    """Through-The-Mask's first stage: how will the objects move?

    Nothing of the first frame is pasted into the result: what it gives is the model's own prediction,
    frame 0 included (but for a host that takes its first frame as known, Wan 2.2 TI2V).
    """

    _stage = "image_to_motion"

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        prompt: str | PromptPlan,
        masks: Any,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "trajectory",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> Any:
        """Make a trajectory.

        Args:
            image: PIL image, path, or uint8 [H, W, 3]; cut and resized by the rule of
                ``ttm.pipelines.inputs``.
            prompt: the motion prompt, or a plan to take it from.
            masks: first-frame ids [H, W] or L boolean masks, of the image's size.
            negative_prompt: the text that guidance pushes away from; "" by default.
            latents: noise to start from, [1, Z, t, h, w].
            output_type: "trajectory" or "latent".
            others: as in ``ttm.Pipeline``; None = the pipeline's setting.

        Returns:
            ``ImageToMotionOutput``, or the trajectory in a tuple.

        Raises:
            ValueError: anything wrong with what was given, before a model runs.
        """
        clip = self._check_clip(num_frames, height, width)
        sampling = self.check_sampling(
            num_inference_steps,
            guidance_scale,
            image_guidance_scale,
            negative_prompt,
            callback_on_step_end_tensor_inputs,
        )
        if output_type not in ("trajectory", "latent"):
            raise ValueError(f"output_type is {output_type!r}; expected 'trajectory' or 'latent'.")
        picture = read_image(image)
        ids = read_masks(masks, picture.shape[:2])
        text = _motion_prompt(prompt, ids)
        phrases = prompt.phrases if isinstance(prompt, PromptPlan) else None
        ids = fit_ids(ids, clip[1], clip[2], phrases)
        noise = self._noise(clip, generator, latents)
        frame = fit_image(picture, clip[1], clip[2])
        output = self.predict(frame, ids, text, noise, sampling, callback_on_step_end, output_type)
        self.maybe_free_model_hooks()
        return output if return_dict else (output.trajectory if output_type == "trajectory" else output.latents,)

    @torch.no_grad()
    def predict(
        self,
        frame: NDArray[np.uint8],
        first_ids: NDArray[np.uint8],
        motion_prompt: str,
        noise: Tensor,
        sampling: dict[str, Any],
        callback_on_step_end: StepCallback | None = None,
        output_type: str = "trajectory",
    ) -> ImageToMotionOutput:
        """What a call does once everything is checked and has the working size.

        Args:
            frame: the image, uint8 [H, W, 3].
            first_ids: its objects, uint8 [H, W].
            motion_prompt: the text.
            noise: float32 [1, Z, t, h, w].
            sampling: what :meth:`check_sampling` returned.
            callback_on_step_end, output_type: as in a call.
        """
        texts = [motion_prompt, sampling["negative_prompt"]]
        conditions, nothing = self._conditions(frame, first_ids, texts, noise.shape[2])
        self.maybe_free_model_hooks()  # with model CPU offload: what is not at work in the next part
        latents = self._denoise(noise, conditions, nothing, sampling, callback_on_step_end)
        self.maybe_free_model_hooks()
        decoded = self._decode(latents, first_ids) if output_type == "trajectory" else (None, None)
        return ImageToMotionOutput(trajectory=decoded[0], frames=decoded[1], latents=latents)

    def _check_components(self) -> None:
        super()._check_components()
        if self.transformer.image_channels:
            check_first_frame_known(self._motion)

    def _conditions(
        self, image: NDArray[np.uint8], ids: NDArray[np.uint8], texts: list[str], num_latent_frames: int
    ) -> tuple[Conditions, tuple[Tensor, Tensor]]:
        device = self._execution_device
        embeds, mask = self._encode_text(texts)
        embeds, mask = embeds.to(device), mask.to(device)
        both = np.stack([image, PALETTE[ids]])
        x0, s0 = encode_video(self.vae, to_model(both, device).transpose(0, 2)).chunk(2)
        visual = image_to_motion_condition(x0, s0, num_latent_frames)
        own = self._host_image(both[1], num_latent_frames)
        return Conditions(latents=visual, text=embeds[:1], **own), (embeds[1:], mask[1:])

    def _decode(self, latents: Tensor, first_ids: NDArray[np.uint8]) -> tuple[MaskTrajectory, NDArray[np.uint8]]:
        frames = to_uint8(decode_latents(self.vae, latents))
        return self._motion.from_video(frames, first_ids, self.config.fps), frames


def _motion_prompt(prompt: str | PromptPlan, ids: NDArray[np.uint8]) -> str:
    if isinstance(prompt, PromptPlan):
        check_masks_against_plan(ids, prompt)
        return prompt.motion_prompt
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"prompt is {prompt!r}; expected the text of the motion, or a PromptPlan.")
    return prompt
