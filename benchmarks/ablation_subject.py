"""Stage 2 of one run of an ablation, with true motion given to it.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.subject import Pixels
from stages.attention_kernel import attention_kernel
from stages.host import host_class, load_text, load_vae
from stages.objectives import build_objective
from stages.settings import Settings
from ttm.data.synthetic import SyntheticScene
from ttm.motion.optical_flow import FlowTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.autoencoders import decode_latents, encode_video, latent_shape
from ttm.pipelines.inputs import to_model, to_uint8
from ttm.pipelines.motion_to_video import MotionToVideoPipeline
from ttm.pipelines.stage_pipeline import draw_noise


class TrainedStage:
    """Renders scenes with what a run has trained.

    Args:
        settings: of the run.
        sampling: num_inference_steps, guidance_scale, image_guidance_scale.
    """

    def __init__(self, settings: Settings, sampling: Mapping[str, Any]) -> None:
        self.settings, host = settings, settings.host
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        vae, tokenizer, text_encoder = frozen_parts(host.pipeline, str(self._device))
        folder = Path(settings.output_dir) / "transformer"
        model = host_class(host.model).from_pretrained(folder, torch_dtype=torch.float32).eval().to(self._device)
        scheduler = build_objective(settings.objective).scheduler()
        told: dict[str, Any] = {"max_sequence_length": host.max_sequence_length, "motion": settings.motion.name}
        self._pipe = MotionToVideoPipeline(vae, tokenizer, text_encoder, model, scheduler, **told)
        self._sampling = self._pipe.check_sampling(**sampling)
        self._pipe.set_progress_bar_config(disable=True)
        self._config = model.config

    @property
    def reads_local_prompts(self) -> bool:
        """Whether swapping the objects' prompts can change anything."""
        sees_motion = self.settings.motion.left_out < 1  # else it gets the sentence as nobody took it apart
        return bool(sees_motion and self._config.num_masked_blocks > 0 and self._config.masked_cross)

    @torch.no_grad()
    def render(self, scene: SyntheticScene, plan: PromptPlan, seed: int) -> Pixels:
        """A video of the scene's first frame along its true motion, uint8 [T, H, W, 3]."""
        motion = FlowTrajectory(scene.ids, scene.flow())  # knows the masks and the flow: the model's kind is taken
        shape = latent_shape(self._pipe.vae, *scene.ids.shape)
        noise = draw_noise(shape, torch.Generator().manual_seed(seed), self._device)
        half = torch.autocast(self._device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")
        with half, attention_kernel(self.settings.attention, self._device, self.settings.precision):
            video = self._pipe.render(scene.frames[0], plan, motion, noise, self._sampling, output_type="np")
        return np.asarray((np.asarray(video[0]) * 255).round(), np.uint8)

    def round_trip(self, frames: Pixels) -> Pixels:
        """Frames uint8 [T, H, W, 3] through the autoencoder and back."""
        vae = self._pipe.vae
        with torch.no_grad():
            return to_uint8(decode_latents(vae, encode_video(vae, to_model(frames, self._device))))


@lru_cache(maxsize=1)
def frozen_parts(pipeline: str, device: str) -> tuple[Any, Any, Any]:
    """Autoencoder, tokenizer and text encoder of a pipeline; the runs of one process share them."""
    return load_vae(pipeline, device), *load_text(pipeline, device)
