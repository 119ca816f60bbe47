"""Through-The-Mask: image and sentence in, video out, through a mask trajectory.

``import ttm`` loads none of its parts: each is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttm.models.transformer_wan import MaskedWanTransformer3DModel
    from ttm.models.unet_motion import MaskedUNetMotionModel
    from ttm.motion.keyframes import Keyframes
    from ttm.motion.mask_trajectory import MaskTrajectory
    from ttm.objects import ObjectPrompt, PromptPlan
    from ttm.pipelines.few_shot import FewShotPipeline
    from ttm.pipelines.image_to_motion import ImageToMotionPipeline
    from ttm.pipelines.image_to_video import Pipeline
    from ttm.pipelines.motion_to_video import MotionToVideoPipeline
    from ttm.prompt_planner import LanguageModelPlanner, PromptPlanner, RulePlanner
    from ttm.segmentation import Segmenter

__version__ = "0.1.0"

_HOMES = {
    "FewShotPipeline": "ttm.pipelines.few_shot",
    "ImageToMotionPipeline": "ttm.pipelines.image_to_motion",
    "Keyframes": "ttm.motion.keyframes",
    "LanguageModelPlanner": "ttm.prompt_planner",
    "MaskTrajectory": "ttm.motion.mask_trajectory",
    "MaskedUNetMotionModel": "ttm.models.unet_motion",
    "MaskedWanTransformer3DModel": "ttm.models.transformer_wan",
    "MotionToVideoPipeline": "ttm.pipelines.motion_to_video",
    "ObjectPrompt": "ttm.objects",
    "Pipeline": "ttm.pipelines.image_to_video",
    "PromptPlan": "ttm.objects",
    "PromptPlanner": "ttm.prompt_planner",
    "RulePlanner": "ttm.prompt_planner",
    "Segmenter": "ttm.segmentation",
}

__all__ = [
    "FewShotPipeline",
    "ImageToMotionPipeline",
    "Keyframes",
    "LanguageModelPlanner",
    "MaskTrajectory",
    "MaskedUNetMotionModel",
    "MaskedWanTransformer3DModel",
    "MotionToVideoPipeline",
    "ObjectPrompt",
    "Pipeline",
    "PromptPlan",
    "PromptPlanner",
    "RulePlanner",
    "Segmenter",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ttm' has no attribute {name!r}; it has {', '.join(__all__)}.")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
