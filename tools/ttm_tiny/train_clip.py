"""Train the small open_clip model of ttm-tiny: crops of the synthetic world against phrases.

    python -m tools.ttm_tiny.train_clip --minutes 8

A softmax over every phrase of the training split, one over the bare shapes and one over the bare colours: the
last two make "ball" and "red thing" mean something alone, and colour and shape add up in pairs that were
never seen.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tools.ttm_tiny import timed_training
from tools.ttm_tiny.clip_crops import ANYTHING, CONTRAST, NOTHING, PHRASES, crop_batch, said_otherwise
from ttm.atomic_write import written_beside
from ttm.data.sprites import COLOURS, CUT_OUTS, SHAPES
from ttm.data.synthetic import SyntheticWorld
from ttm.segmentation import Segmenter
from ttm.segmentation.grounding import build_clip, embed_crops, embed_phrases

SEED = 30
MEAN, STD = [0.5, 0.5, 0.5], [0.27, 0.27, 0.27]
CONTEXT_LENGTH = 16
CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 12, "head_width": 64},
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}
"""2.4M parameters, 1.6M of them the vocabulary. A ResNet tells shapes apart after half the steps of a small ViT."""
SCENES = 8  # a step; about ten crops each

Name = tuple[str | None, str] | None
_SHAPE_NAMES = (*SHAPES, *CUT_OUTS, NOTHING)
_COLOUR_NAMES = (*COLOURS, NOTHING)


def loss_at(clip: nn.Module, world: SyntheticWorld, step: int, fraction: float) -> Tensor:
    """The loss of one step's crops."""
    crops, names = crop_batch(world, SEED, step, SCENES, CONFIG["vision_cfg"]["image_size"])
    rng = np.random.default_rng([SEED, 5, step])
    things = [NOTHING if each == NOTHING else f"{each} {rng.choice(ANYTHING)}" for each in _COLOUR_NAMES]
    texts = [said_otherwise(rng, phrase) for phrase in (*PHRASES, *_SHAPE_NAMES)] + things
    scale: Any = clip.logit_scale
    logits = scale.exp() * embed_crops(clip, crops, MEAN, STD) @ embed_phrases(clip, texts, CONTEXT_LENGTH).T
    by_phrase, by_shape, by_colour = logits.split([len(PHRASES), len(_SHAPE_NAMES), len(_COLOUR_NAMES)], dim=1)
    coloured = torch.tensor([each is None or each[0] is not None for each in names])
    shapes = torch.tensor([_SHAPE_NAMES.index(each[1] if each else NOTHING) for each in names])
    colours = torch.tensor([_COLOUR_NAMES.index(each[0] or NOTHING if each else NOTHING) for each in names])
    phrases = torch.tensor([PHRASES.index(_phrase(each)) for each in names])
    # Half of the crops show nothing: at full weight that answer alone would be learnt for a long time.
    weight = torch.tensor([0.3 if each is None else 1.0 for each in names])
    parts = [
        F.cross_entropy(by_phrase, phrases, reduction="none"),
        0.3 * F.cross_entropy(by_shape, shapes, reduction="none"),
        0.3 * coloured * F.cross_entropy(by_colour, colours, reduction="none"),
    ]
    return (weight * torch.stack(parts).sum(dim=0)).sum() / weight.sum()


def _phrase(name: Name) -> str:
    if name is None:
        return NOTHING
    return name[1] if name[0] is None else f"{name[0]} {name[1]}"


@torch.no_grad()
def evaluate(clip: nn.Module, split: str, batches: int = 8) -> dict[str, float]:
    """Share of crops of a split that are named right, among everything that the world can draw.

    Returns:
        "objects": of crops that show an object; "nothing": of those that show none.
    """
    clip.eval()
    world = SyntheticWorld("test" if split == "test" else "val", num_frames=2, seed=SEED)
    texts = embed_phrases(clip, CONTRAST, CONTEXT_LENGTH)
    right: dict[str, list[bool]] = {"objects": [], "nothing": []}
    for step in range(batches):
        crops, names = crop_batch(world, SEED + 1, step, SCENES, CONFIG["vision_cfg"]["image_size"])
        best = (embed_crops(clip, crops, MEAN, STD) @ texts.T).argmax(dim=1).tolist()
        for name, number in zip(names, best, strict=True):
            right["objects" if name else "nothing"].append(CONTRAST[number] == _phrase(name))
    clip.train()
    return {key: float(np.mean(values)) for key, values in right.items()}


def train(folder: Path, minutes: float, start: Path | None = None) -> nn.Module:
    """Train for so many minutes in all (this and earlier calls); weights end up in ``folder/clip.safetensors``.

    ``start`` is a segmenter's folder whose CLIP a new run starts from; None: from nothing.
    """
    torch.manual_seed(SEED)
    clip = build_clip(CONFIG).train()
    if start is not None:
        clip.load_state_dict(Segmenter.from_pretrained(start).clip.state_dict())
    weights = folder / "clip.safetensors"
    if weights.is_file():  # also holds the running statistics, which the loop's own checkpoint does not
        clip.load_state_dict(load_file(weights))
    world = SyntheticWorld("train", num_frames=2, num_objects=(1, 3), seed=SEED)

    def store_and_tell(progress: timed_training.Progress) -> str:
        with written_beside(weights) as path:
            save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, path)
        return ", ".join(f"val {key} {value:.3f}" for key, value in evaluate(clip, "val", batches=4).items())

    timed_training.train(
        clip,
        partial(loss_at, clip, world),
        folder,
        minutes=minutes,
        peak_learning_rate=2e-3,
        on_checkpoint=store_and_tell,
        checkpoint_every_seconds=300.0,
    )
    return clip.eval()


def main() -> None:
    """Train, then print how many crops are named right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="training time in all, over all starts")
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny/clip"), help="folder of the checkpoints")
    parser.add_argument("--start", type=Path, help="segmenter whose CLIP a new run starts from")
    arguments = parser.parse_args()
    clip = train(arguments.run, arguments.minutes, arguments.start)
    for split in ("val", "test"):
        print(split, evaluate(clip, split, batches=24))


if __name__ == "__main__":
    main()
