"""Put the trained components of ttm-tiny together into a pipeline folder.

    python -m tools.ttm_tiny.assemble --motion-transformer runs/A/transformer --transformer runs/B/transformer

Components that are not named stay as they are in the output folder. Weights are stored in 16 bits; they are computed
in 32 unless the caller of ``from_pretrained`` asks for another dtype.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler
from transformers import AutoTokenizer, UMT5EncoderModel

from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.pipelines.image_to_video import Pipeline
from ttm.segmentation import Segmenter

OUTPUT = Path("ttm/pretrained/ttm-tiny")
LIMIT_MB = 36.0
SHIFT = 3.0
"""Of both schedulers, and of training: which way an object moves is decided at the high noise levels."""


def assemble(output: Path, motion_transformer: Path, transformer: Path) -> Pipeline:
    """Load every component, write the pipeline folder, and return the pipeline.

    Raises:
        ValueError: the weights take more than ``LIMIT_MB``.
    """
    pipe = Pipeline(
        vae=AutoencoderKLLTXVideo.from_pretrained(output / "vae"),
        tokenizer=AutoTokenizer.from_pretrained(output / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(output / "text_encoder"),
        motion_transformer=MaskedWanTransformer3DModel.from_pretrained(motion_transformer),
        transformer=MaskedWanTransformer3DModel.from_pretrained(transformer),
        motion_scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        segmenter=Segmenter.from_pretrained(output / "segmenter"),
        **SETTINGS,
    )
    pipe.to(torch.float16)
    pipe.save_pretrained(output)
    megabytes = sum(path.stat().st_size for path in output.rglob("*.safetensors")) / 1e6
    print(f"{output}: {megabytes:.1f} MB of weights")
    if megabytes > LIMIT_MB:
        raise ValueError(f"The weights take {megabytes:.1f} MB; expected at most {LIMIT_MB}.")
    return pipe


SETTINGS: dict[str, Any] = {
    "num_frames": 17, "height": 128, "width": 128, "fps": 8.0, "max_sequence_length": 48,
    "num_inference_steps": 20, "guidance_scale": 2.0, "image_guidance_scale": 2.0,
    "motion_num_inference_steps": 20, "motion_guidance_scale": 2.0, "motion_image_guidance_scale": 1.0,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--motion-transformer", type=Path, help="default: the one in the output folder")
    parser.add_argument("--transformer", type=Path, help="default: the one in the output folder")
    arguments = parser.parse_args()
    assemble(
        arguments.output,
        arguments.motion_transformer or arguments.output / "motion_transformer",
        arguments.transformer or arguments.output / "transformer",
    )


if __name__ == "__main__":
    main()
