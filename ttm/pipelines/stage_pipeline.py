"""What the two stages share, on either host: components, settings, checks, text, noise and the sampling loop.

Letters: B batch, T frames, H W pixels, t h w latent frames, rows and columns, Z latent channels, S text
tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor

from ttm.models.image_input import with_first_frame
from ttm.motion.representation import MotionRepresentation, motion_representation
from ttm.pipelines.autoencoders import LatentFormat, latent_shape
from ttm.pipelines.conditioning import (
    Conditions,
    Passes,
    check_text_length,
    encode_text,
    guidance_passes,
    guided,
    input_device,
    stack_passes,
)
from ttm.pipelines.host_image import check_host_image, host_image
from ttm.pipelines.inputs import check_count, check_num_frames, check_scale, check_size, to_model
from ttm.pipelines.samplers import Sampler
from ttm.pipelines.saved_pipeline import SavedPipeline
from ttm.pipelines.video_request import Packing

StepCallback = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any] | None]
"""callback_on_step_end(pipeline, step, timestep, tensors) -> tensors to go on with, or None: as they are."""

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class SamplingState:
    """The state of a running call that callbacks read and may set, as in diffusers."""

    _guidance_scale: float = 1.0
    _image_guidance_scale: float = 1.0
    _num_timesteps: int = 0
    _current_timestep: Tensor | None = None
    _interrupt: bool = False
    _stage: str = ""

    @property
    def stage(self) -> str:
        """Which stage is running or ran last: "image_to_motion" or "motion_to_video"."""
        return self._stage

    @property
    def guidance_scale(self) -> float:
        """Of the text, in the running call."""
        return self._guidance_scale

    @property
    def image_guidance_scale(self) -> float:
        """Of the visual condition, in the running call."""
        return self._image_guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Sampling steps of the running stage."""
        return self._num_timesteps

    @property
    def current_timestep(self) -> Tensor | None:
        """Timestep of the running step, None between calls."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """Whether a callback asked, with ``pipe._interrupt = True``, to leave out the remaining steps."""
        return self._interrupt


class StagePipeline(SamplingState, SavedPipeline):
    """One stage: an autoencoder, a text encoder and one transformer.

    Args:
        vae: one of :data:`ttm.pipelines.autoencoders.AUTOENCODERS`.
        tokenizer: of the text encoder.
        text_encoder: ``UMT5EncoderModel`` or ``CLIPTextModel``.
        transformer: a host (:class:`ttm.models.host.VideoHost`) with ``condition_channels`` twice the latent channels.
        scheduler: what the transformer was trained for: ``FlowMatchEulerDiscreteScheduler``, or ``DDIMScheduler``.
        num_frames, height, width, fps: of the clips that the transformer was trained on; what calls use by
            default.
        num_inference_steps, guidance_scale, image_guidance_scale: what calls use by default.
        max_sequence_length: text tokens; a longer text is cut off.
        sigmas: "linear" or "linear_quadratic", the noise levels of the steps in flow matching.
        motion: what the transformer predicts or follows, a name of :mod:`ttm.motion.representation`.
        image_encoder, image_processor: CLIP's, of a host with an image embedder (Wan 2.1 image-to-video).
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->transformer->vae"
    _callback_tensor_inputs = ["latents", "prompt_embeds"]
    _optional_components = ["image_encoder", "image_processor"]

    def __init__(
        self,
        vae: Any,
        tokenizer: Any,
        text_encoder: Any,
        transformer: Any,
        scheduler: Any,
        num_frames: int = 17,
        height: int = 128,
        width: int = 128,
        fps: float = 8.0,
        num_inference_steps: int = 20,
        guidance_scale: float = 3.0,
        image_guidance_scale: float = 1.5,
        max_sequence_length: int = 48,
        sigmas: str = "linear",
        motion: str = "masks",
        image_encoder: Any = None,
        image_processor: Any = None,
    ) -> None:
        super().__init__()
        motion_representation(motion)
        self.register_modules(
            vae=vae,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            transformer=transformer,
            scheduler=scheduler,
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
            max_sequence_length=max_sequence_length,
            sigmas=sigmas,
            motion=motion,
        )

    @property
    def _motion(self) -> MotionRepresentation:
        return motion_representation(self.config.motion)

    @property
    def _sampler(self) -> Sampler:
        return Sampler(self.scheduler, self.config.sigmas)

    def _setting(self, value: Any, name: str) -> Any:
        return self.config[name] if value is None else value

    def _scale(self, value: Any, name: str) -> float:
        """A scale of guidance, or the pipeline's setting, checked."""
        return check_scale(self._setting(value, name), name)

    def _check_clip(self, num_frames: Any, height: Any, width: Any) -> tuple[int, int, int]:
        """Resolve and check the size of a clip: (T, H, W)."""
        packing = Packing.of(self.vae, self.transformer)
        size = self._setting(height, "height"), self._setting(width, "width")
        frames = check_num_frames(self._setting(num_frames, "num_frames"), packing.group)
        return frames, *check_size(*size, packing.multiple)

    def _check_components(self) -> None:
        check_components(self.vae, self.text_encoder, self.transformer)
        images = (self.image_encoder, self.image_processor)
        check_host_image(self.vae, self.transformer, *images, self.config.max_sequence_length)

    def check_sampling(
        self,
        num_inference_steps: Any = None,
        guidance_scale: Any = None,
        image_guidance_scale: Any = None,
        negative_prompt: Any = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> dict[str, Any]:
        """Resolve and check what the sampling loop is told, and that the components fit together.

        Returns:
            The same arguments with nothing left open.

        Raises:
            ValueError: anything wrong with them.
        """
        self._check_components()
        check_text_length(self.text_encoder, check_count(self.config.max_sequence_length, "max_sequence_length"))
        steps = self._setting(num_inference_steps, "num_inference_steps")
        if negative_prompt is not None and not isinstance(negative_prompt, str):
            kind = type(negative_prompt).__name__
            raise ValueError(f"negative_prompt is a {kind}; expected a text or None.")
        unknown = [name for name in callback_on_step_end_tensor_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs names {unknown}; expected some of {self._callback_tensor_inputs}."
            )
        self._sampler.check(check_count(steps, "num_inference_steps"))
        return {
            "num_inference_steps": int(steps),
            "guidance_scale": self._scale(guidance_scale, "guidance_scale"),
            "image_guidance_scale": self._scale(image_guidance_scale, "image_guidance_scale"),
            "negative_prompt": negative_prompt or "",
            "callback_on_step_end_tensor_inputs": list(callback_on_step_end_tensor_inputs),
        }

    def _encode_text(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        device = input_device(self.text_encoder, self._execution_device)
        return encode_text(self.tokenizer, self.text_encoder, texts, self.config.max_sequence_length, device)

    def _host_image(self, frame: NDArray[np.uint8], num_latent_frames: int) -> dict[str, Tensor]:
        """The clip's first frame, uint8 [H, W, 3], as the host takes it; see :mod:`ttm.pipelines.host_image`."""
        pixels = to_model(frame[None], self._execution_device)
        images = (self.image_encoder, self.image_processor)
        return host_image(self.vae, self.transformer, pixels, num_latent_frames, *images)

    def _noise(self, clip: tuple[int, int, int], generator: Any, latents: Tensor | None) -> Tensor:
        shape = latent_shape(self.vae, *clip)
        return draw_noise(shape, generator, self._execution_device, latents)

    def _denoise(
        self,
        latents: Tensor,
        conditions: Conditions,
        nothing: tuple[Tensor, Tensor],
        sampling: dict[str, Any],
        callback_on_step_end: StepCallback | None,
    ) -> Tensor:
        """From noise to latents.

        Args:
            latents: noise, float32 [B, Z, t, h, w].
            nothing: embedding [1, S, D] and mask [1, S] of the text that says nothing.
            sampling: what :meth:`check_sampling` returned.

        Returns:
            float32 [B, Z, t, h, w].
        """
        self._guidance_scale = sampling["guidance_scale"]
        self._image_guidance_scale = sampling["image_guidance_scale"]
        sampler = self._sampler
        timesteps = sampler.timesteps(sampling["num_inference_steps"], latents.device)
        latents = sampler.first(latents)
        self._num_timesteps, self._interrupt = len(timesteps), False
        passes: Passes = ()
        with self.progress_bar(total=len(timesteps)) as bar:
            bar.set_description(self._stage.replace("_", " "))
            for step, timestep in enumerate(timesteps):
                if self._interrupt:
                    continue
                self._current_timestep = timestep
                wanted = guidance_passes(self._guidance_scale, self._image_guidance_scale)
                if wanted != passes:  # once, unless a callback changes something
                    passes, stacked = wanted, stack_passes(conditions, wanted, *nothing)
                seen = sampler.model_input(latents, timestep)
                prediction = guided(self.transformer, seen, timestep, stacked, passes)
                latents = sampler.step(prediction, timestep, latents)
                if callback_on_step_end is not None:
                    held = {"latents": latents, "prompt_embeds": conditions.text}
                    asked = {name: held[name] for name in sampling["callback_on_step_end_tensor_inputs"]}
                    given = callback_on_step_end(self, step, timestep, asked) or {}
                    latents = given.get("latents", latents)
                    if given.get("prompt_embeds", conditions.text) is not conditions.text:
                        conditions, passes = replace(conditions, text=given["prompt_embeds"]), ()
                bar.update()
        self._current_timestep = None
        first = conditions.image_latents
        if first is not None and self.transformer.config.get("known_first_frame") and any(item[1] for item in passes):
            return with_first_frame(latents, first.to(latents))
        return latents


def draw_noise(shape: tuple[int, ...], generator: Any, device: torch.device, latents: Tensor | None = None) -> Tensor:
    """Noise float32 of ``shape`` from a generator, or the noise that was handed in, checked."""
    if latents is None:
        return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        found = list(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"latents is {found}; expected a tensor of shape {list(shape)} for this clip.")
    return latents.to(device, torch.float32)


def check_output_type(output_type: str) -> None:
    """Raise ValueError unless the pipelines can give this kind of frames."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {output_type!r}; expected one of {', '.join(OUTPUT_TYPES)}.")


def check_components(vae: Any, text_encoder: Any, transformer: Any) -> None:
    """Raise ValueError unless autoencoder, text encoder and transformer fit together."""
    channels = LatentFormat.of(vae).channels
    expected = {
        "latent_channels": channels,
        "condition_channels": 2 * channels,
        "text_width": text_encoder.config.hidden_size,
    }
    found = {name: getattr(transformer, name) for name in ("latent_channels", "text_width")}
    found["condition_channels"] = transformer.config.get("condition_channels")
    for name, value in expected.items():
        if found[name] != value:
            raise ValueError(
                f"The transformer's {name} is {found[name]}; expected {value} to fit this autoencoder and text encoder."
            )
