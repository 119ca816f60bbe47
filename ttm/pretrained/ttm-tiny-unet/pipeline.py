"""Opens this folder with diffusers alone; needs the package `through-the-mask`.

    DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
"""

import ttm.models.unet_motion

from ttm.pipelines.image_to_video import Pipeline

__all__ = ["Pipeline"]
