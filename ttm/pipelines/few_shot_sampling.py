"""How a few-shot video is sampled: the first frame's latents, then window by window what follows them.

Letters: T frames, Z latent channels, h w the latent grid.

Source: the few-shot paper (arXiv 2503.18386), Eq. 2-4 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.video_processor import VideoProcessor
from numpy.typing import NDArray
from torch import Tensor

from ttm.motion.carried_frame import carry_first_frame
from ttm.pipelines.autoencoders import decode_latents, encode_video, latent_shape
from ttm.pipelines.colour_matching import match_frame_histograms, match_latent_statistics
from ttm.pipelines.conditioning import Conditions, trajectory_coverage
from ttm.pipelines.few_shot_request import FewShotRequest, extension_windows
from ttm.pipelines.first_frame import Control, draw_first_frame
from ttm.pipelines.inputs import to_model, to_uint8
from ttm.pipelines.shared_noise import share_first_frame
from ttm.pipelines.stage_pipeline import StagePipeline, StepCallback, draw_noise


@dataclass(frozen=True)
class Sharing:
    """First-frame sharing (Eq. 8): its ratio, whether the noise is brought back to unit variance, and whether what is
    shared is the first frame carried along the masks."""

    ratio: float
    renormalise: bool
    carried: bool


class FewShotSampling(StagePipeline):
    """The part of :class:`ttm.FewShotPipeline` that runs the models, once everything is checked."""

    def _first_latents(
        self,
        request: FewShotRequest,
        control: Control | None,
        sampling: dict[str, Any],
        generator: Any,
        callback: StepCallback | None,
    ) -> Tensor:
        """Eq. 3, or the user's image: z_1, float32 [1, Z, 1, h, w]."""
        if request.first_frame is not None:
            return encode_video(self.vae, to_model(request.first_frame[None], self._execution_device))
        self._stage = "first_frame"
        self._guidance_scale, self._interrupt = sampling["guidance_scale"], False
        self._num_timesteps = sampling["num_inference_steps"]

        def on_step(index: int, timestep: Tensor) -> bool:
            if callback is not None:
                self._current_timestep = timestep
                callback(self, index, timestep, {})
            return self._interrupt

        try:
            latents = draw_first_frame(
                self.components, request.prompt, sampling["negative_prompt"], control, request.size,
                sampling["num_inference_steps"], sampling["guidance_scale"], generator, on_step,
            )  # fmt: skip
        finally:
            self._stage = "few_shot"
        return latents.to(self._execution_device)

    def _extend(
        self,
        first: Tensor,
        request: FewShotRequest,
        sampling: dict[str, Any],
        share: Sharing,
        match_latents: bool,
        generator: Any,
        callback: StepCallback | None,
    ) -> Tensor:
        """Eq. 4, window by window: latents [1, Z, T, h, w] from those of the first frame."""
        device = self._execution_device
        embeds, mask = (x.to(device) for x in self._encode_text([request.prompt, sampling["negative_prompt"]]))
        self.maybe_free_model_hooks()  # with model CPU offload: the text encoder, and what drew the first frame
        nothing = embeds[1:2], mask[1:2]
        asked = sampling["callback_on_step_end_tensor_inputs"]
        sampling = {**sampling, "callback_on_step_end_tensor_inputs": ["latents", *asked]}
        made = [first]
        for window in extension_windows(request.trajectory.num_frames, self.config.num_frames):
            if self._interrupt:
                break
            clean = made[-1][:, :, -1:]
            ids = request.trajectory.ids[window]
            noise = draw_noise(latent_shape(self.vae, len(ids) - 1, *request.size), generator, device)
            conditions = self._conditions(embeds[:1], ids, clean)
            shared = self._carried(clean, ids) if share.carried and share.ratio > 0 else clean
            noise = share_first_frame(noise, shared, share.ratio, share.renormalise)
            held = _hold_first(clean, callback, asked)
            latents = self._denoise(torch.cat([clean, noise], dim=2), conditions, nothing, sampling, held)[:, :, 1:]
            made.append(match_latent_statistics(latents, first) if match_latents else latents)
        return torch.cat(made, dim=2)

    def _carried(self, clean: Tensor, ids: NDArray[np.uint8]) -> Tensor:
        """A window's first frame carried along its masks, latents [1, Z, T - 1, h, w] of the frames behind it."""
        picture = to_uint8(decode_latents(self.vae, clean))[0]
        carried = encode_video(self.vae, to_model(carry_first_frame(picture, ids)[1:], clean.device))
        self.maybe_free_model_hooks()  # with model CPU offload: the autoencoder
        return carried

    def _conditions(self, text: Tensor, ids: NDArray[np.uint8], clean: Tensor) -> Conditions:
        frames, grid = len(ids), clean.shape[3:]
        coverage = trajectory_coverage(
            torch.from_numpy(np.ascontiguousarray(ids)[None]).to(clean.device),
            max(1, int(ids.max())),
            (frames, *grid),
            self.unet.token_patch,
        )
        return Conditions(latents=clean.new_zeros(1, 0, frames, *grid), text=text, coverage=coverage)

    def _decode(self, latents: Tensor, output_type: str, match_histograms: bool) -> Any:
        video = decode_latents(self.vae, latents)
        if match_histograms:
            video = to_model(match_frame_histograms(to_uint8(video)), video.device)
        return VideoProcessor().postprocess_video(video, output_type=output_type)


def _hold_first(clean: Tensor, callback: StepCallback | None, asked: Sequence[str]) -> StepCallback:
    """A callback that puts the clean first frame back after every step, after the user's own had what it asked for."""

    def held(pipe: Any, step: int, timestep: Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if callback is not None:
            given.update(callback(pipe, step, timestep, {name: tensors[name] for name in asked}) or {})
        latents = given.get("latents", tensors["latents"])
        given["latents"] = torch.cat([clean, latents[:, :, 1:]], dim=2)
        return given

    return held
