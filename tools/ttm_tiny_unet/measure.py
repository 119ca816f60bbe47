"""Figures of ttm-tiny-unet on held-out scenes, as its model card states them.

    python -m tools.ttm_tiny_unet.measure

The noise is predicted at the same places by all: lower is better, 1 is a model that knows nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from tools.ttm_tiny_unet.controlnet import steered, trained_controlnet
from tools.ttm_tiny_unet.encoded_scenes import encode
from tools.ttm_tiny_unet.noisy_scenes import NoisyScenes, noisy_scenes, weighted_error
from tools.ttm_tiny_unet.train_autoencoder import measure as measure_autoencoder
from tools.ttm_tiny_unet.train_unet import EMBEDDED, trained_parts, with_motion
from ttm.data.synthetic import SyntheticWorld


@torch.no_grad()
def noise_errors(folder: Path, source: NoisyScenes, batches: int) -> dict[str, float]:
    """Mean error of pictures with nothing, with the caption, with caption and ControlNet; of clips with the prompt."""
    unet, adapter = trained_parts(folder)
    controlnet = trained_controlnet(folder)
    for module in (unet, adapter, controlnet):
        module.eval()
    count = len(source.scenes)
    errors: dict[str, list[float]] = {"nothing": [], "caption": [], "caption and masks": [], "clips": []}
    for _ in range(batches):
        index, frame, latents, weights = source.pictures(24)
        noisy, noise, timesteps = source.noised(latents)
        nothing = source.embeddings[2 * count].expand(len(index), -1, -1)
        text = source.embeddings[index]
        ids = source.masks(index, frame)
        made = {
            "nothing": unet(noisy, timesteps, nothing).sample,
            "caption": unet(noisy, timesteps, text).sample,
            "caption and masks": steered(unet, controlnet, noisy, timesteps, text, ids),
        }
        for name, prediction in made.items():
            errors[name].append(float(weighted_error(prediction, noise, weights)))
    video = with_motion(unet, adapter)
    for _ in range(batches):
        index, latents, weights = source.clips(2)
        noisy, noise, timesteps = source.noised(latents)
        text = source.embeddings[index + count].repeat_interleave(latents.shape[2], 0)
        errors["clips"].append(float(weighted_error(video(noisy, timesteps, text).sample, noise, weights)))
    return {name: sum(values) / len(values) for name, values in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=EMBEDDED)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--batches", type=int, default=12)
    arguments = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(arguments.folder / "vae", torch_dtype=torch.float32).eval()
    print({name: round(value, 3) for name, value in measure_autoencoder(vae, 12).items()}, flush=True)
    with tempfile.TemporaryDirectory() as scenes, torch.no_grad():
        encode(vae, SyntheticWorld("val"), Path(scenes), arguments.scenes)
        source = noisy_scenes(Path(scenes), arguments.folder, seed=0)
    found = noise_errors(arguments.folder, source, arguments.batches)
    print("error of the predicted noise:", {name: round(value, 4) for name, value in found.items()})


if __name__ == "__main__":
    main()
