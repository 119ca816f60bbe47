"""Train the video encoder of FVD's stand-in: it names the objects, motions and changes of clips.

    python -m tools.ttm_tiny.train_video_encoder --minutes 15

What it has to name of a clip: which colours and shapes are in it, which motions, which changes, and which way each
colour goes. The last makes it tell who moves; played backwards, a clip is another one to it. What is kept is the
network below the names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tools.ttm_tiny.timed_training import Progress, train
from ttm.data.sprites import COLOURS, CUT_OUTS, SHAPES
from ttm.data.synthetic import DIRECTIONS, MOTIONS, SceneObject, Split, SyntheticWorld
from ttm.evaluation.video_encoder import VideoEncoder, to_clips

OUTPUT = Path("ttm/pretrained/ttm-tiny-video")
CHANGES = ("turns", "spins", "flashes")
WAYS = tuple(f"{colour} {way}" for colour in COLOURS for way in DIRECTIONS)
NAMES = (*COLOURS, *SHAPES, *CUT_OUTS, *MOTIONS, *CHANGES, *WAYS)
SEED = 50
BATCH = 16


def names_of(item: SceneObject) -> set[str]:
    """What there is to say of an object."""
    said = {item.shape, item.motion}
    if item.colour is not None:
        said |= {item.colour, f"{item.colour} {item.motion}"}
    if item.appearance is not None:
        said.add(item.appearance.split()[0])
    return said & set(NAMES)


def draw(split: Split, count: int, encoder: VideoEncoder) -> tuple[NDArray[np.uint8], Tensor]:
    """Clips uint8 [N, T, H, W, 3] and whether each name is true of them, [N, names]."""
    world = SyntheticWorld(split, encoder.config.side, encoder.config.num_frames, seed=SEED)
    clips, truth = [], torch.zeros(count, len(NAMES))
    for index in range(count):
        scene = world[index]
        clips.append(encoder.prepare(scene.frames))
        said = set().union(*(names_of(item) for item in scene.objects))
        truth[index] = torch.tensor([name in said for name in NAMES])
    return np.stack(clips), truth


def average_precision(scores: Tensor, truth: Tensor) -> float:
    """Of one name: the mean, over the clips it is true of, of the precision at their ranks."""
    ranked = truth[scores.argsort(descending=True)]
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    return float((precision * ranked).sum() / ranked.sum().clamp(min=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny/video_encoder"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    encoder = VideoEncoder()
    model = nn.ModuleDict({"encoder": encoder, "names": nn.Linear(encoder.config.width, len(NAMES))})
    print(f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.2f} M parameters", flush=True)
    clips, truth = draw("train", arguments.clips, encoder)
    held_clips, held_truth = draw("test", 256, encoder)
    random = torch.Generator().manual_seed(SEED)

    def loss_at(step: int, fraction: float) -> Tensor:
        index = torch.randint(len(clips), (BATCH,), generator=random)
        logits = model["names"](encoder(to_clips(clips[index.numpy()])))
        return nn.functional.binary_cross_entropy_with_logits(logits, truth[index])

    @torch.no_grad()
    def on_checkpoint(progress: Progress) -> str:
        parts = [model["names"](encoder(to_clips(part))) for part in np.array_split(held_clips, 16)]
        scores, said = torch.cat(parts), []
        groups = {"what": (*COLOURS, *SHAPES, *CUT_OUTS), "motion": MOTIONS, "change": CHANGES, "who": WAYS}
        for group, names in groups.items():
            places = [NAMES.index(name) for name in names if held_truth[:, NAMES.index(name)].any()]
            found = [average_precision(scores[:, place], held_truth[:, place]) for place in places]
            said.append(f"{group} {np.mean(found):.2f} (chance {held_truth[:, places].mean():.2f})")
        return "average precision: " + ", ".join(said)

    train(
        model, loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=2e-3, on_checkpoint=on_checkpoint, checkpoint_every_seconds=90,
    )  # fmt: skip
    encoder.to(torch.float16).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
