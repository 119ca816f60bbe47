"""Both stages together: image and sentence in, video out, and beside it the mask trajectory that led there.

Letters: T frames, H W pixels, t h w latent frames, rows and columns, Z latent channels, L objects.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import BaseOutput
from numpy import uint8
from numpy.typing import NDArray
from torch import Tensor

from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.autoencoders import latent_shape
from ttm.pipelines.first_masks import embedded_segmenter, require_segmenter, segment_shown_part
from ttm.pipelines.image_to_motion import ImageToMotionPipeline
from ttm.pipelines.inputs import (
    check_masks_against_plan,
    check_size,
    check_trajectory_against_plan,
    fit_ids,
    fit_image,
    read_image,
)
from ttm.pipelines.motion_to_video import MotionToVideoPipeline
from ttm.pipelines.saved_pipeline import SavedPipeline
from ttm.pipelines.stage_pipeline import (
    SamplingState,
    StagePipeline,
    StepCallback,
    check_output_type,
    draw_noise,
)
from ttm.pipelines.video_request import Packing, VideoRequest, clip_length
from ttm.prompt_planner import PromptPlanner, RulePlanner
from ttm.segmentation import Segmenter

Pixels = NDArray[uint8]
_SHARED = ("vae", "tokenizer", "text_encoder", "image_encoder", "image_processor")


@dataclass
class PipelineOutput(BaseOutput):
    """What ``Pipeline`` makes.

    Attributes:
        frames: a batch of one video: ``frames[0]`` is a list of T PIL images ("pil"), float [T, H, W, 3]
            in 0..1 ("np"), float [T, 3, H, W] in 0..1 ("pt"), or normalised latents [Z, t, h, w]
            ("latent").
        trajectory: how the objects move, at the working size.
        plan: the sentence, taken apart.
        first_frame: the image at the working size, uint8 [H, W, 3].
        first_ids: the objects of the image at the working size, uint8 [H, W].
        seconds: wall time of each part that ran: "plan", "segment", "image_to_motion", "motion_to_video".
    """

    frames: Any
    trajectory: MaskTrajectory
    plan: PromptPlan
    first_frame: Pixels
    first_ids: Pixels
    seconds: dict[str, float]


class Pipeline(SamplingState, SavedPipeline):
    """Image and sentence in, video out (Through-The-Mask).

    All components lie flat in this pipeline, so that device moves, offload and saving see each of them
    once; ``pipe.image_to_motion`` and ``pipe.motion_to_video`` are views of them for running one stage
    alone. ``pipe.planner`` takes sentences apart: ``RulePlanner()``, or anything with its ``plan`` method.

    Args:
        vae: one of :data:`ttm.pipelines.autoencoders.AUTOENCODERS`, used by both stages.
        tokenizer, text_encoder: used by both stages (``UMT5EncoderModel`` or ``CLIPTextModel``).
        motion_transformer, motion_scheduler: stage 1, image to motion.
        transformer, scheduler: stage 2, motion to video. A host, ``MaskedWanTransformer3DModel`` or
            ``MaskedUNetMotionModel`` (the name says its role), and the scheduler that it was trained for.
        segmenter: finds the objects in the image; None if every call brings masks or a trajectory.
        segmenter_from: an embedded model whose segmenter is taken where ``segmenter`` is None; it is not saved again.
        image_encoder, image_processor: CLIP's, of hosts with an image embedder (Wan 2.1 image-to-video), else None.
        planner: takes the sentence apart; not saved. None = ``RulePlanner()``.
        num_frames, height, width, fps: of the clips; what calls use by default.
        num_inference_steps, guidance_scale, image_guidance_scale: of stage 2, what calls use by default.
        motion_num_inference_steps, motion_guidance_scale, motion_image_guidance_scale: the same of stage 1.
        max_sequence_length: text tokens; a longer text is cut off.
        motion: what stage 1 predicts and stage 2 follows: "masks", or "optical_flow".
        sigmas, motion_sigmas: noise levels of the steps in flow matching, "linear" or "linear_quadratic".

    Arguments of a call (None = the pipeline's setting; the rule for aspect ratio and size stands in
    ``ttm.pipelines.inputs``: the largest centred part with the video's aspect ratio, resized):
        image: PIL image, path, or uint8 [H, W, 3].
        prompt: one sentence about how the objects move. May be None beside a plan, which wins over it.
        masks: first-frame ids [H, W] (0 = background, k = the plan's k-th object) or a list of L boolean
            masks, of the image's size: skips segmentation.
        trajectory: skips stage 1; its number of frames is the video's. What stage 1 made can be handed
            back in: with an equal generator the video is the one of that run.
        plan: skips the planner.
        num_frames: T, 1 + a multiple of the autoencoder's time factor (any number for an image autoencoder).
        height, width: multiples of the autoencoder's space factor times the transformer's patch.
        num_inference_steps, guidance_scale, image_guidance_scale: steps, scale of the texts and scale of
            the visual conditions, for both stages (two scales after InstructPix2Pix; 1 and 1 = no
            guidance).
        negative_prompt: the text that guidance pushes away from, in both stages; "" by default.
        generator: of the noise. Stage 1's is drawn first, also where stage 1 is skipped.
        output_type: "pil", "np", "pt" or "latent".
        callback_on_step_end: called as callback(pipe, step, timestep, tensors) after each step of each
            stage (``pipe.stage`` tells which); the tensors that it returns replace the old ones, and
            ``pipe._interrupt = True`` leaves out the remaining steps of the stage.
        callback_on_step_end_tensor_inputs: which tensors it gets, of "latents" and "prompt_embeds".
        motion_num_inference_steps, motion_guidance_scale, motion_image_guidance_scale: for stage 1 alone.
    """

    model_cpu_offload_seq = "segmenter->text_encoder->image_encoder->motion_transformer->transformer->vae"
    _callback_tensor_inputs = ["latents", "prompt_embeds"]
    _optional_components = ["segmenter", "image_encoder", "image_processor"]
    segmenter: Any

    def __init__(
        self,
        vae: Any,
        tokenizer: Any,
        text_encoder: Any,
        motion_transformer: Any,
        transformer: Any,
        motion_scheduler: Any,
        scheduler: Any,
        segmenter: Segmenter | None = None,
        planner: Any = None,
        num_frames: int = 17,
        height: int = 128,
        width: int = 128,
        fps: float = 8.0,
        num_inference_steps: int = 20,
        guidance_scale: float = 3.0,
        image_guidance_scale: float = 1.5,
        motion_num_inference_steps: int = 20,
        motion_guidance_scale: float = 3.0,
        motion_image_guidance_scale: float = 1.5,
        max_sequence_length: int = 48,
        sigmas: str = "linear",
        motion_sigmas: str = "linear",
        motion: str = "masks",
        segmenter_from: str | None = None,
        image_encoder: Any = None,
        image_processor: Any = None,
    ) -> None:
        super().__init__()
        borrows = segmenter is None and segmenter_from is not None
        self._borrowed = embedded_segmenter(str(segmenter_from)) if borrows else None
        self.register_modules(
            vae=vae,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            motion_transformer=motion_transformer,
            transformer=transformer,
            motion_scheduler=motion_scheduler,
            scheduler=scheduler,
            segmenter=self._borrowed if borrows else segmenter,
            image_encoder=image_encoder,
            image_processor=image_processor,
        )
        self.register_to_config(
            num_frames=num_frames,
            height=height,
            width=width,
            fps=fps,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            motion_num_inference_steps=motion_num_inference_steps,
            motion_guidance_scale=motion_guidance_scale,
            motion_image_guidance_scale=motion_image_guidance_scale,
            max_sequence_length=max_sequence_length,
            sigmas=sigmas,
            motion_sigmas=motion_sigmas,
            motion=motion,
            segmenter_from=segmenter_from,
        )
        self.planner: PromptPlanner = RulePlanner() if planner is None else planner

    @property
    def image_to_motion(self) -> ImageToMotionPipeline:
        """Stage 1 on this pipeline's components, as a pipeline of its own."""
        config = self.config
        return self._view(
            ImageToMotionPipeline,
            transformer=self.motion_transformer,
            scheduler=self.motion_scheduler,
            num_inference_steps=config.motion_num_inference_steps,
            guidance_scale=config.motion_guidance_scale,
            image_guidance_scale=config.motion_image_guidance_scale,
            sigmas=config.motion_sigmas,
        )

    @property
    def motion_to_video(self) -> MotionToVideoPipeline:
        """Stage 2 on this pipeline's components, as a pipeline of its own."""
        config = self.config
        return self._view(
            MotionToVideoPipeline,
            transformer=self.transformer,
            scheduler=self.scheduler,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            image_guidance_scale=config.image_guidance_scale,
            sigmas=config.sigmas,
        )

    def _view(self, stage: type[StagePipeline], **own: Any) -> Any:
        shared = {name: getattr(self, name) for name in _SHARED}
        names = ("num_frames", "height", "width", "fps", "max_sequence_length", "motion")
        view = stage(**shared, **own, **{name: self.config[name] for name in names})
        view.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
        view.maybe_free_model_hooks = self.maybe_free_model_hooks  # the hooks of offload are this pipeline's
        return view

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        prompt: str | None = None,
        masks: Any = None,
        trajectory: MaskTrajectory | None = None,
        plan: PromptPlan | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        motion_num_inference_steps: int | None = None,
        motion_guidance_scale: float | None = None,
        motion_image_guidance_scale: float | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Make a video of an image: see the class for the arguments.

        Returns:
            ``PipelineOutput``, or (frames, trajectory, plan).

        Raises:
            ValueError: anything wrong with what was given, before a model runs.
        """
        packing = Packing.of(self.vae, self.transformer)
        frames = clip_length(num_frames, trajectory, self.config.num_frames, packing.group)
        size = self._size(height, width)
        request = VideoRequest.read(packing, image, prompt, masks, trajectory, plan, frames, *size)
        check_output_type(output_type)
        if request.trajectory is None and request.masks is None:
            require_segmenter(self.segmenter)
        shared = (negative_prompt, callback_on_step_end_tensor_inputs)
        motion = self.image_to_motion.check_sampling(
            _first(motion_num_inference_steps, num_inference_steps),
            _first(motion_guidance_scale, guidance_scale),
            _first(motion_image_guidance_scale, image_guidance_scale),
            *shared,
        )
        video = self.motion_to_video.check_sampling(num_inference_steps, guidance_scale, image_guidance_scale, *shared)
        # Both at once and stage 1's first: a trajectory that is handed back in meets the noise of its own run.
        shape = latent_shape(self.vae, request.num_frames, *request.size)
        noise = [draw_noise(shape, generator, self._execution_device) for _ in range(2)]
        callback = None if callback_on_step_end is None else self._forwarded(callback_on_step_end)
        output = self._run(request, (noise[0], motion, callback), (noise[1], video, callback, output_type))
        self.maybe_free_model_hooks()
        return output if return_dict else (output.frames, output.trajectory, output.plan)

    @torch.no_grad()
    def segment(self, image: Any, plan: PromptPlan, height: int | None = None, width: int | None = None) -> Pixels:
        """Find a plan's objects in an image; what it gives can be handed in as ``masks``.

        Only the part of the image is looked at that the video will show.

        Args:
            image: PIL image, path, or uint8 [H, W, 3].
            plan: whose phrases to look for.
            height, width: of the video; the pipeline's own by default.

        Returns:
            ids uint8 [H, W], of the image's size.

        Raises:
            ValueError: no segmenter, a phrase that was not found, or anything wrong with what was given.
        """
        picture = read_image(image)
        size = check_size(*self._size(height, width), Packing.of(self.vae, self.transformer).multiple)
        return segment_shown_part(self.segmenter, picture, plan, size)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *arguments: Any, **options: Any) -> None:
        """As in :class:`SavedPipeline`; a segmenter that came from an embedded model is left to that one."""
        segmenter, borrowed = self.segmenter, self.segmenter is not None and self.segmenter is self._borrowed
        if borrowed:
            self.segmenter = None
        try:
            super().save_pretrained(save_directory, *arguments, **options)
        finally:
            self.segmenter = segmenter

    def _size(self, height: Any, width: Any) -> tuple[Any, Any]:
        return _first(height, self.config.height), _first(width, self.config.width)

    def _run(self, request: VideoRequest, motion: tuple[Any, ...], video: tuple[Any, ...]) -> PipelineOutput:
        clock = _Clock()
        plan = request.plan
        if plan is None:
            with clock("plan"):
                plan = self.planner.plan(request.prompt)
        ids, moves = request.masks, request.trajectory
        if ids is not None:
            check_masks_against_plan(ids, plan)
        if moves is not None:
            check_trajectory_against_plan(moves, plan)
        frame = fit_image(request.image, *request.size)
        if moves is None:
            if ids is None:
                with clock("segment"):
                    ids = segment_shown_part(self.segmenter, request.image, plan, request.size)
            first_ids = fit_ids(ids, *request.size, plan.phrases)
            with clock("image_to_motion"):
                moves = self.image_to_motion.predict(frame, first_ids, plan.motion_prompt, *motion).trajectory
        else:
            first_ids = moves.ids[0]
        assert moves is not None
        with clock("motion_to_video"):
            frames = self.motion_to_video.render(frame, plan, moves, *video)
        return PipelineOutput(frames, moves, plan, frame, first_ids, clock.seconds)

    def _forwarded(self, callback: StepCallback) -> StepCallback:
        """A callback of a view that calls the user's with this pipeline, and hands its state on both ways."""
        names = (
            "_guidance_scale",
            "_image_guidance_scale",
            "_num_timesteps",
            "_current_timestep",
            "_interrupt",
        )

        def forwarded(view: Any, step: int, timestep: Tensor, tensors: dict[str, Any]) -> Any:
            for name in (*names, "_stage"):
                setattr(self, name, getattr(view, name))
            given = callback(self, step, timestep, tensors)
            for name in names:
                setattr(view, name, getattr(self, name))
            return given

        return forwarded


class _Clock:
    """Seconds of the parts of a call, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _first(*values: Any) -> Any:
    """The first of the values that is not None."""
    return next((value for value in values if value is not None), None)
