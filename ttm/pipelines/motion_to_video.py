"""Stage 2: image, mask trajectory and a plan's texts in; the video that follows the trajectory out.

Letters: T frames, H W pixels, t h w latent frames, rows and columns, Z latent channels, L objects, S text
tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from diffusers.video_processor import VideoProcessor
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ttm.motion.carried_frame import carry_first_frame
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.autoencoders import LatentFormat, decode_latents, encode_video
from ttm.pipelines.conditioning import Conditions, motion_to_video_condition, trajectory_coverage
from ttm.pipelines.inputs import (
    check_trajectory_against_plan,
    fit_image,
    fit_trajectory,
    read_image,
    to_model,
)
from ttm.pipelines.stage_pipeline import StagePipeline, StepCallback, check_output_type
from ttm.pipelines.video_request import clip_length


@dataclass
class MotionToVideoOutput(BaseOutput):
    """What stage 2 makes.

    Attributes:
        frames: a batch of one video: ``frames[0]`` is a list of T PIL images ("pil"), float [T, H, W, 3]
            in 0..1 ("np"), float [T, 3, H, W] in 0..1 ("pt"), or normalised latents [Z, t, h, w]
            ("latent").
        trajectory: the trajectory at the working size.
    """

    frames: Any
    trajectory: MaskTrajectory


class MotionToVideoPipeline(StagePipeline):
    """Through-The-Mask's second stage: the video in which every object follows its mask and its own text."""

    _stage = "motion_to_video"

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        plan: PromptPlan,
        trajectory: MaskTrajectory,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> Any:
        """Make a video.

        Args:
            image: PIL image, path, or uint8 [H, W, 3]; cut and resized by the rule of
                ``ttm.pipelines.inputs``.
            plan: the global prompt, and every object's own.
            trajectory: how the objects move; as many frames as the video gets.
            negative_prompt: the text that guidance pushes away from; "" by default.
            latents: noise to start from, [1, Z, t, h, w].
            output_type: "pil", "np", "pt" or "latent".
            others: as in ``ttm.Pipeline``; None = the pipeline's setting.

        Returns:
            ``MotionToVideoOutput``, or its frames in a tuple.

        Raises:
            ValueError: anything wrong with what was given, before a model runs.
        """
        if not isinstance(plan, PromptPlan):
            raise ValueError(f"plan is a {type(plan).__name__}; expected a ttm.PromptPlan.")
        length = clip_length(None, trajectory, self.config.num_frames, LatentFormat.of(self.vae).group)
        clip = self._check_clip(length, height, width)
        picture = read_image(image)
        moves = fit_trajectory(trajectory, picture.shape[:2], *clip[1:])
        check_trajectory_against_plan(moves, plan)
        check_output_type(output_type)
        sampling = self.check_sampling(
            num_inference_steps,
            guidance_scale,
            image_guidance_scale,
            negative_prompt,
            callback_on_step_end_tensor_inputs,
        )
        noise = self._noise(clip, generator, latents)
        frame = fit_image(picture, *clip[1:])
        frames = self.render(frame, plan, moves, noise, sampling, callback_on_step_end, output_type)
        self.maybe_free_model_hooks()
        return MotionToVideoOutput(frames=frames, trajectory=moves) if return_dict else (frames,)

    @torch.no_grad()
    def render(
        self,
        frame: NDArray[np.uint8],
        plan: PromptPlan,
        trajectory: MaskTrajectory,
        noise: Tensor,
        sampling: dict[str, Any],
        callback_on_step_end: StepCallback | None = None,
        output_type: str = "pil",
    ) -> Any:
        """What a call does once everything is checked and has the working size.

        Args:
            frame: the image, uint8 [H, W, 3].
            plan: its texts.
            trajectory: ids [T, H, W].
            noise: float32 [1, Z, t, h, w].
            sampling: what :meth:`check_sampling` returned.
            callback_on_step_end, output_type: as in a call.

        Returns:
            frames as in ``MotionToVideoOutput``.
        """
        trajectory, plan = self._motion.seen(trajectory, plan)
        conditions, nothing = self._conditions(frame, plan, trajectory, sampling["negative_prompt"])
        self.maybe_free_model_hooks()  # with model CPU offload: what is not at work in the next part
        latents = self._denoise(noise, conditions, nothing, sampling, callback_on_step_end)
        self.maybe_free_model_hooks()
        return latents if output_type == "latent" else self._decode(latents, output_type)

    def _conditions(
        self, image: NDArray[np.uint8], plan: PromptPlan, trajectory: MaskTrajectory, negative: str
    ) -> tuple[Conditions, tuple[Tensor, Tensor]]:
        device, pictures = self._execution_device, self._motion.to_video(trajectory)
        embeds, mask = self._encode_text([plan.prompt, negative, *plan.local_prompts])
        embeds, mask = embeds.to(device), mask.to(device)
        carries = self.transformer.config.get("carried_first_frame") and trajectory.ids.any()
        first = carry_first_frame(image, trajectory.ids) if carries else image[None]
        x0 = encode_video(self.vae, to_model(first, device))
        clip = encode_video(self.vae, to_model(pictures, device))
        coverage = trajectory_coverage(
            torch.from_numpy(trajectory.ids[None]).to(device),
            len(plan.objects),
            clip.shape[2:],
            self.transformer.token_patch,
        )
        conditions = Conditions(
            latents=motion_to_video_condition(x0, clip),
            text=embeds[:1],
            coverage=coverage,
            local_text=rearrange(embeds[2:], "l s d -> 1 l s d"),
            local_mask=rearrange(mask[2:], "l s -> 1 l s"),
            **self._host_image(image, clip.shape[2]),
        )
        return conditions, (embeds[1:2], mask[1:2])

    def _decode(self, latents: Tensor, output_type: str) -> Any:
        video = decode_latents(self.vae, latents)
        return VideoProcessor().postprocess_video(video, output_type=output_type)
