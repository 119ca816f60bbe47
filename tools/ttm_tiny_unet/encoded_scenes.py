"""Scenes of the synthetic world as latents and texts, encoded once and kept in files of 32 scenes.

    python -m tools.ttm_tiny_unet.encoded_scenes --scenes 768
    python -m tools.ttm_tiny_unet.encoded_scenes --scenes 768 --worker 0/2     # in two terminals: 0/2 and 1/2

Letters: N scenes, C channels of the latents, T frames, h w places of a latent frame.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from stages.cache import parse_worker
from stages.host import encoder_digest
from tools.ttm_tiny_unet.train_autoencoder import to_pictures
from tools.ttm_tiny_unet.train_text_encoder import caption
from ttm.atomic_write import written_beside
from ttm.data.synthetic import SyntheticScene, SyntheticWorld

SCENES_A_FILE = 32
KEPT_IDS = 4
"""Of every how-manieth frame the ids are kept in full."""


@dataclass(frozen=True)
class EncodedScenes:
    """What the diffusion models are trained on.

    Attributes:
        latents: fp16 [N, C, T, h, w], of unit variance.
        coverage: uint8 [N, T, h, w], how much of a place any object covers, 0..255.
        ids: uint8 [N, ceil(T / KEPT_IDS), H, W].
        captions: what the pictures show.
        prompts: what happens in the clips.
        faithful_frames: for how many frames from the first on each caption stays true.
    """

    latents: Tensor
    coverage: Tensor
    ids: Tensor
    captions: list[str]
    prompts: list[str]
    faithful_frames: list[int]

    def __len__(self) -> int:
        return len(self.captions)


def _faithful_frames(scene: SyntheticScene) -> int:
    """A red ball that turns green is a red ball only at first."""
    changes = any((item.appearance or "").startswith(("turns", "flashes")) for item in scene.objects)
    return 3 if changes else len(scene.frames)


@torch.no_grad()
def encode_scene(vae: AutoencoderKL, scene: SyntheticScene) -> dict[str, Tensor]:
    """Latents, coverage and ids of one scene, as :class:`EncodedScenes` holds them."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = vae.encode(to_pictures(scene.frames)).latent_dist.mode().float() * vae.config.scaling_factor
    covered = torch.from_numpy(scene.ids > 0).float()
    coverage = functional.adaptive_avg_pool2d(covered, latents.shape[-2:]) * 255
    return {
        "latents": latents.transpose(0, 1).to(torch.float16),
        "coverage": coverage.round().to(torch.uint8),
        "ids": torch.from_numpy(np.ascontiguousarray(scene.ids[::KEPT_IDS])),
    }


def encode(
    vae: AutoencoderKL, world: SyntheticWorld, folder: Path, scenes: int, worker: tuple[int, int] = (0, 1)
) -> None:
    """Encode the first ``scenes`` scenes; files of this autoencoder that hold all of theirs are left as they are.

    Args:
        vae: encodes the frames.
        world: where the scenes come from.
        folder: receives a file for every ``SCENES_A_FILE`` scenes.
        scenes: how many.
        worker: (rank, count): this process writes every ``count``-th file, from ``rank`` on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder = encoder_digest(vae)
    for first in range(0, scenes, SCENES_A_FILE)[worker[0] :: worker[1]]:
        path = folder / f"{first:06d}.safetensors"
        if _holds(path, encoder, min(SCENES_A_FILE, scenes - first)):
            continue
        drawn = [world[index] for index in range(first, min(first + SCENES_A_FILE, scenes))]
        encoded = [encode_scene(vae, scene) for scene in drawn]
        texts = {
            "captions": [caption(scene.plan.phrases) for scene in drawn],
            "prompts": [scene.plan.prompt for scene in drawn],
            "faithful_frames": [_faithful_frames(scene) for scene in drawn],
        }
        stacked = {name: torch.stack([item[name] for item in encoded]) for name in encoded[0]}
        with written_beside(path) as beside:
            save_file(stacked, beside, metadata={"texts": json.dumps(texts), "encoder": encoder})
        print(f"{first + len(drawn)} of {scenes} scenes", flush=True)


def _holds(path: Path, encoder: str, scenes: int) -> bool:
    """Whether a file is there, of this autoencoder, with so many scenes: a rehearsal's is neither."""
    if not path.exists():
        return False
    with safe_open(path, framework="pt") as opened:
        return opened.metadata().get("encoder") == encoder and opened.get_slice("latents").get_shape()[0] >= scenes


def load(folder: Path) -> EncodedScenes:
    """Every scene of the folder.

    Raises:
        ValueError: there is none, or they are of several autoencoders.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no encoded scenes; run python -m tools.ttm_tiny_unet.encoded_scenes first.")
    tensors: dict[str, list[Tensor]] = {"latents": [], "coverage": [], "ids": []}
    texts: dict[str, list[Any]] = {"captions": [], "prompts": [], "faithful_frames": []}
    encoders = set()
    for path in paths:
        with safe_open(path, framework="pt") as opened:
            encoders.add(opened.metadata().get("encoder"))
            if len(encoders) > 1:
                raise ValueError(
                    f"{path} is of another autoencoder than the files before it; expected scenes of one: encode as many"
                    f" as {folder} holds, or remove those."
                )
            for name, parts in tensors.items():
                parts.append(opened.get_tensor(name))
            for name, told in json.loads(opened.metadata()["texts"]).items():
                texts[name] += told
    latents, coverage, ids = (torch.cat(tensors[name]) for name in ("latents", "coverage", "ids"))
    return EncodedScenes(latents, coverage, ids, **texts)


@torch.no_grad()
def embed(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, texts: list[str]) -> Tensor:
    """The text encoder's last layer with its padding, as Stable Diffusion takes it: [N, S, D]."""
    found = []
    for first in range(0, len(texts), 64):
        some = texts[first : first + 64]
        tokens = tokenizer(some, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        found.append(encoder(input_ids=tokens).last_hidden_state)
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scenes", type=int, default=768)
    parser.add_argument("--vae", type=Path, default=Path("ttm/pretrained/ttm-tiny-unet/vae"))
    parser.add_argument("--output", type=Path, default=Path("runs/ttm-tiny-unet/scenes"))
    parser.add_argument("--worker", default="0/1", help="RANK/COUNT: do every COUNT-th file from RANK on")
    arguments = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(arguments.vae).eval().requires_grad_(False)
    worker = parse_worker(arguments.worker)
    encode(vae, SyntheticWorld("train"), arguments.output, arguments.scenes, worker)


if __name__ == "__main__":
    main()
