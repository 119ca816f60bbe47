"""Videos of a model in training, drawn by the pipelines that users call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stages.cache import build_world
from stages.host import image_parts, load_text, load_vae
from stages.objectives import build_objective
from stages.settings import Settings
from stages.trainer import Sampler
from ttm.data.synthetic import SyntheticScene
from ttm.motion.optical_flow import FlowTrajectory
from ttm.motion.representation import motion_representation
from ttm.pipelines.image_to_motion import ImageToMotionPipeline
from ttm.pipelines.motion_to_video import MotionToVideoPipeline


def build_sampler(settings: Settings, device: torch.device) -> Sampler:
    """A function from a model to ``sample_scenes`` clips of validation scenes, each above its true clip.

    Scenes and starting noise are the same at every call, so that TensorBoard's slider shows one video improving.
    Guidance is left out (scale 1): it shows what the model learned, and costs one pass a step.
    """
    vae = load_vae(settings.host.pipeline, device)
    tokenizer, text_encoder = load_text(settings.host.pipeline, device)
    world = build_world(settings.data, "val")
    scenes = [world[index] for index in range(settings.sample_scenes)]
    first = settings.stage.name == "image_to_motion"
    draw = _draw_motion if first else _draw_video
    kind = ImageToMotionPipeline if first else MotionToVideoPipeline

    def sample(model: nn.Module) -> list[NDArray[np.uint8]]:
        scheduler = build_objective(settings.objective).scheduler()
        length = settings.host.max_sequence_length
        told: dict[str, Any] = {"max_sequence_length": length, "motion": settings.motion.name}
        told |= image_parts(model, settings.host.pipeline, device)
        pipe = kind(vae, tokenizer, text_encoder, model, scheduler, **told)
        pipe.set_progress_bar_config(disable=True)
        clips = []
        for number, scene in enumerate(scenes):
            arguments = {
                "height": settings.data.size,
                "width": settings.data.size,
                "num_inference_steps": settings.sample_steps,
                "guidance_scale": 1.0,
                "image_guidance_scale": 1.0,
                "generator": torch.Generator().manual_seed(number),
            }
            made, true = draw(pipe, scene, FlowTrajectory(scene.ids, scene.flow()), arguments)
            clips.append(np.concatenate([made, true], axis=1))
        return clips

    return sample


def _draw_motion(
    pipe: Any, scene: SyntheticScene, moves: FlowTrajectory, arguments: dict[str, Any]
) -> tuple[Any, Any]:
    out = pipe(scene.frames[0], scene.plan, scene.ids[0], num_frames=len(scene.ids), **arguments)
    return out.frames, motion_representation(pipe.config.motion).to_video(moves)


def _draw_video(
    pipe: Any, scene: SyntheticScene, moves: FlowTrajectory, arguments: dict[str, Any]
) -> tuple[Any, Any]:
    out = pipe(scene.frames[0], scene.plan, moves, output_type="np", **arguments)
    made = np.asarray(out.frames[0])
    return (made * 255).round().astype(np.uint8) if made.dtype != np.uint8 else made, scene.frames
