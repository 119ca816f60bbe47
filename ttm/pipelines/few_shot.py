"""The few-shot variant: a prompt and a mask sequence in, a video of a motion learnt from a few clips out.

Letters: B batch, T frames, W frames of a window, H W pixels, Z latent channels, h w the latent grid, L objects.

Source: the few-shot paper (arXiv 2503.18386). It is stage 2 on the U-Net in another configuration: the first frame is
no condition beside the noisy latents but the first of them, kept clean (Eq. 2, 4); every frame looks at it (Eq. 5);
the masks act in the scores of the cross-attention (Eq. 6-7); the objective is Stable Diffusion's noise.

A video of more frames than the model's window is made window by window: the last frame of one is the first of the
next (they overlap by it), the masks go on, and so T = 1 + n (W - 1) frames take n windows. The frame is handed on as
latents, so nothing is lost in decoding it. The first window of a long video is the short video of the same generator.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from numpy.typing import NDArray

from ttm.motion.control_picture import control_picture
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines import few_shot_folder, saved_pipeline
from ttm.pipelines.autoencoders import LatentFormat
from ttm.pipelines.few_shot_base import Base, check_controlnet
from ttm.pipelines.few_shot_request import FewShotRequest
from ttm.pipelines.few_shot_sampling import FewShotSampling, Sharing
from ttm.pipelines.first_frame import Control
from ttm.pipelines.samplers import Sampler
from ttm.pipelines.shared_noise import SHARING_RATIO, check_ratio
from ttm.pipelines.stage_pipeline import StagePipeline, StepCallback


@dataclass
class FewShotOutput(BaseOutput):
    """What the few-shot pipeline makes.

    Attributes:
        frames: a batch of one video: ``frames[0]`` is a list of T PIL images ("pil"), float [T, H, W, 3] in 0..1
            ("np"), float [T, 3, H, W] in 0..1 ("pt"), or normalised latents [Z, T, h, w] ("latent").
        trajectory: the masks that it followed, at the working size, T of them.
    """

    frames: Any
    trajectory: MaskTrajectory


class FewShotPipeline(FewShotSampling):
    """Prompt and mask sequence in, video out (mask-guided few-shot video generation, arXiv 2503.18386).

    Args:
        vae: ``AutoencoderKL``.
        tokenizer, text_encoder: CLIP's.
        unet: ``MaskedUNetMotionModel`` without condition channels.
        scheduler: ``DDIMScheduler`` with "epsilon", what the U-Net was trained for; or another of diffusers that takes
            latents as they are (not ``EulerDiscreteScheduler``, which scales them).
        image_unet: ``UNet2DConditionModel`` of the base, which draws first frames; None: every call brings an image.
        controlnet: ``ControlNetModel`` of the same base, from masks to first frames, or None.
        num_frames: W, of the windows that the U-Net was trained on; also of a video by default.
        height, width, fps, num_inference_steps: what calls use by default.
        guidance_scale: of the text. image_guidance_scale: of the masks; 1 = with the text's guidance alone.
        controlnet_conditioning_scale, controlnet_guidance_scale: how strongly ControlNet shapes the first frame, and
            how far that is pushed from what it would be without; see :class:`ttm.pipelines.first_frame.Control`.
        sharing_ratio, carried_first_frame: of first-frame sharing, what calls use by default.
        max_sequence_length: text tokens, Stable Diffusion's 77.
        control_picture: what ControlNet is shown, "palette" or "silhouette" (:mod:`ttm.motion.control_picture`).
    """

    # Without ControlNet, which takes turns with image_unet at every step; it comes in at its first, and then stays.
    model_cpu_offload_seq = "text_encoder->image_unet->unet->vae"
    _optional_components = ["image_unet", "controlnet"]
    _stage = "few_shot"

    def __init__(
        self,
        vae: Any,
        tokenizer: Any,
        text_encoder: Any,
        unet: Any,
        scheduler: Any,
        image_unet: Any = None,
        controlnet: Any = None,
        num_frames: int = 16,
        height: int = 512,
        width: int = 512,
        fps: float = 8.0,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        image_guidance_scale: float = 1.0,
        controlnet_conditioning_scale: float = 1.0,
        controlnet_guidance_scale: float = 1.0,
        sharing_ratio: float = SHARING_RATIO,
        carried_first_frame: bool = False,
        max_sequence_length: int = 77,
        control_picture: str = "palette",
    ) -> None:
        super(StagePipeline, self).__init__()  # the components have Stable Diffusion's names, not a stage's
        self.register_modules(
            vae=vae,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=scheduler,
            image_unet=image_unet,
            controlnet=controlnet,
        )
        self.register_to_config(
            num_frames=num_frames,
            height=height,
            width=width,
            fps=fps,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            controlnet_conditioning_scale=controlnet_conditioning_scale,
            controlnet_guidance_scale=controlnet_guidance_scale,
            sharing_ratio=sharing_ratio,
            carried_first_frame=carried_first_frame,
            max_sequence_length=max_sequence_length,
            control_picture=control_picture,
        )

    @property
    def _sampler(self) -> Sampler:
        return Sampler(self.scheduler)

    @property
    def transformer(self) -> Any:
        """The U-Net, by the name of its role in a stage."""
        return self.unet

    @classmethod
    def from_base(
        cls,
        pipeline: str,
        motion_adapter: str | None = None,
        controlnet: str | None = None,
        dtype: torch.dtype = torch.float32,
        switches: dict[str, Any] | None = None,
        **settings: Any,
    ) -> FewShotPipeline:
        """An untrained few-shot pipeline on public weights.

        Args:
            pipeline, motion_adapter, controlnet: see :class:`ttm.pipelines.few_shot_base.Base`.
            dtype: of the models.
            switches: of ``MaskedUNetMotionModel``.
            settings: of the pipeline.

        Raises:
            ValueError: a part is missing, damaged, or of another base than the rest.
        """
        parts = Base(pipeline, motion_adapter, controlnet).components(dtype, **(switches or {}))
        return cls(**parts, **settings)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Open what ``python -m stages.few_shot`` wrote, or what ``save_pretrained`` did.

        Args:
            pretrained_model_name_or_path: a folder, or a Hub id of a whole pipeline.
            kwargs: as in diffusers; for a trained folder ``torch_dtype`` (or ``dtype``), settings of the pipeline, and
                ``base`` (a :class:`~ttm.pipelines.few_shot_base.Base`) in the place of the one that was trained on.

        Raises:
            ValueError: no such folder, a damaged file, an adapter that does not fit the base's U-Net, or a setting
                that the pipeline does not have.
        """
        folder = Path(pretrained_model_name_or_path)
        if few_shot_folder.is_few_shot_folder(folder):
            if "torch_dtype" in kwargs:
                kwargs["dtype"] = kwargs.pop("torch_dtype")
            known = {"dtype", "base", *_settings_of(cls)}
            if unknown := sorted(set(kwargs) - known):
                raise ValueError(f"There is no setting {unknown[0]!r}; expected some of {', '.join(sorted(known))}.")
            return cls(**few_shot_folder.open_few_shot(folder, **kwargs))
        if folder.is_dir() and not (folder / saved_pipeline.INDEX).is_file():
            raise ValueError(
                f"{folder} holds neither {few_shot_folder.INDEX} nor {saved_pipeline.INDEX}; expected what `python -m"
                " stages.few_shot` leaves when it ends, or a folder of save_pretrained."
            )
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        trajectory: MaskTrajectory,
        image: Any = None,
        num_frames: int | None = None,
        num_clips: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        sharing_ratio: float | None = None,
        renormalise_sharing: bool = False,
        carried_first_frame: bool | None = None,
        match_latents: bool = False,
        match_histograms: bool = False,
        use_controlnet: bool | None = None,
        controlnet_conditioning_scale: float | None = None,
        controlnet_guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> Any:
        """Make a video of any length.

        Args:
            prompt: what happens.
            trajectory: the masks to follow, of as many frames as the video or more.
            image: the first frame: PIL image, path, or uint8 [H, W, 3]. None: it is drawn.
            num_frames: T; None = that of the trajectory.
            num_clips: instead of ``num_frames``: n windows, 1 + n (W - 1) frames.
            guidance_scale, image_guidance_scale: of the text, and of the masks (1 = none beyond the text's).
            sharing_ratio, renormalise_sharing, carried_first_frame: of first-frame sharing (Eq. 8), see
                :mod:`ttm.pipelines.shared_noise`; a ratio of 0 shares nothing. The third shares each window's first
                frame with its objects moved along their masks, not as it is; that is not in the paper.
            match_latents: bring every frame's latents to the first frame's mean and spread (AdaIN), window by window.
            match_histograms: bring every frame's colours to the first frame's histogram, at the end.
            use_controlnet: draw the first frame by ControlNet from the first mask (Eq. 3), or by the prompt alone;
                None = by ControlNet where there is one.
            controlnet_conditioning_scale, controlnet_guidance_scale: how strongly ControlNet acts; the second at 1
                is diffusers' own way, above it the first frame's object keeps closer to its mask.
            generator: of the noise: first frame's, then that of each window.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called as callback(pipe, step, timestep, tensors) after each step of each window
                (and of the first frame, with no tensors); ``pipe._interrupt = True`` leaves out what remains of the
                window and all windows after it: the video ends there.
            others: as in ``ttm.Pipeline``; None = the pipeline's setting.

        Returns:
            ``FewShotOutput``, or its frames in a tuple.

        Raises:
            ValueError: anything wrong with what was given, before a model runs.
        """
        sampling = self.check_sampling(
            num_inference_steps,
            guidance_scale,
            image_guidance_scale,
            negative_prompt,
            callback_on_step_end_tensor_inputs,
        )
        self._sampler.check_latents_unscaled(sampling["num_inference_steps"])
        strength = self._scale(controlnet_conditioning_scale, "controlnet_conditioning_scale")
        guidance = self._scale(controlnet_guidance_scale, "controlnet_guidance_scale")
        ratio = check_ratio(self._setting(sharing_ratio, "sharing_ratio"))
        share = Sharing(ratio, renormalise_sharing, bool(self._setting(carried_first_frame, "carried_first_frame")))
        request = FewShotRequest.read(
            self, prompt, trajectory, image, num_frames, num_clips, (height, width), use_controlnet, output_type
        )
        self._interrupt = False
        control = None
        if request.with_controlnet:
            picture = control_picture(request.trajectory.ids[0], self.config.control_picture)
            control = Control(picture, strength, guidance)
        first = self._first_latents(request, control, sampling, generator, callback_on_step_end)
        latents = self._extend(first, request, sampling, share, match_latents, generator, callback_on_step_end)
        frames = latents if output_type == "latent" else self._decode(latents, output_type, match_histograms)
        self.maybe_free_model_hooks()
        followed = MaskTrajectory(request.trajectory.ids[: latents.shape[2]], request.trajectory.fps)
        return FewShotOutput(frames, followed) if return_dict else (frames,)

    @torch.no_grad()
    def edit(
        self, frames: NDArray[np.uint8], prompt: str, segmenter: Any, phrases: Sequence[str], **arguments: Any
    ) -> Any:
        """Video editing: a new video whose objects move as those of a clip do.

        Args:
            frames: the clip, uint8 [T, H, W, 3].
            prompt: what the new video shows.
            segmenter: a ``ttm.Segmenter``, which finds ``phrases`` in the first frame and tracks them.
            phrases: the objects of the clip to follow.
            arguments: of a call; ``image`` gives the first frame (an edited one, say), else it is drawn.

        Raises:
            ValueError: as a call; or a phrase that is not found.
        """
        ids = segmenter.track(frames, segmenter.segment(frames[0], phrases))
        return self(prompt, MaskTrajectory(ids, self.config.fps), **arguments)

    def _check_components(self) -> None:
        channels = LatentFormat.of(self.vae).channels
        expected = {
            "in_channels": channels,
            "condition_channels": 0,
            "cross_attention_dim": self.text_encoder.config.hidden_size,
        }
        for name, value in expected.items():
            if (found := self.unet.config.get(name)) != value:
                raise ValueError(f"The U-Net's {name} is {found}; expected {value} for this pipeline's other parts.")
        check_controlnet(self.controlnet, self.image_unet)
        most = self.unet.config.motion_max_seq_length
        if not 2 <= self.config.num_frames <= most:
            raise ValueError(
                f"The pipeline's num_frames is {self.config.num_frames}; expected a window of 2 to {most} frames, what"
                " the motion modules know."
            )


def _settings_of(pipeline: type) -> list[str]:
    """The arguments of a pipeline's constructor that are no components: those with a value by default."""
    parameters = inspect.signature(pipeline).parameters.values()
    return [p.name for p in parameters if p.default is not p.empty and p.default is not None]
