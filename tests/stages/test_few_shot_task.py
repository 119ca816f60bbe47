"""The samples of few-shot training: windows of clips, their masks, their colours, and a clean first frame."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from stages.few_shot import read_arguments
from stages.few_shot_task import FewShot
from stages.objectives import Diffusion, build_objective
from stages.settings import Settings
from stages.text_table import TextTable
from stages.trainer import Trainer
from ttm.data.clip_folder import Clip
from ttm.pipelines.autoencoders import encode_video
from ttm.pipelines.few_shot_base import Base

SIZE, WINDOW = 16, 4


@pytest.fixture
def settings(save_stable_diffusion: Callable[..., Path], tmp_path: Path) -> Callable[..., Settings]:
    base, clips = save_stable_diffusion(tmp_path / "base"), tmp_path / "clips"
    clips.mkdir()

    def build(*changes: str) -> Settings:
        small = [f"data.num_frames={WINDOW}", f"data.clips.height={SIZE}", f"data.clips.width={SIZE}", "tracker=none"]
        return read_arguments([str(clips), "--base", str(base), "-o", str(tmp_path / "run"), *small, *changes])

    return build


def test_a_batch_is_clips_masks_and_prompts_with_a_clean_first_frame(settings: Callable[..., Settings]) -> None:
    made = settings()
    parts = Base(made.host.pipeline).components()
    rng = np.random.default_rng(0)
    windows = []
    for number in range(3):
        frames = rng.integers(0, 255, (WINDOW, SIZE, SIZE, 3)).astype(np.uint8)
        ids = np.zeros((WINDOW, SIZE, SIZE), np.uint8)
        ids[:, :4] = number + 1
        windows.append(Clip(f"{number}.mp4", ("a dog runs", "a red square moves")[number % 2], frames, ids))
    texts = TextTable.build((clip.prompt for clip in windows), parts["tokenizer"], parts["text_encoder"], 8)
    task = FewShot(windows, parts["vae"], texts, made, (1, 1, 1))
    batch = task.batch(np.arange(6))
    assert batch.clean_frames == 1 and batch.data.shape == (6, 4, WINDOW, SIZE // 2, SIZE // 2)
    assert batch.conditions.coverage is not None and batch.conditions.coverage.shape[1] == 3
    assert batch.conditions.inputs(torch.float32)["condition_latents"] is None
    seen = []
    for place in range(6):  # an epoch after the other holds every window once
        number = int(batch.conditions.coverage[place].sum((1, 2, 3)).argmax())
        clip = windows[number]
        pixels = torch.from_numpy(clip.frames).movedim(-1, 0)[None] / 127.5 - 1
        torch.testing.assert_close(batch.data[place], encode_video(parts["vae"], pixels)[0])
        assert torch.equal(batch.conditions.text[place], texts.lookup([clip.prompt])[0][0])
        assert torch.equal(batch.covered[place, 0], batch.conditions.coverage[place, number])
        seen.append(number)
    assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 1, 2]


@pytest.mark.parametrize(("varied", "count"), [("clip", 6), ("objects", 36)])
def test_varied_colours_show_a_clip_in_every_order_of_its_channels(
    settings: Callable[..., Settings], varied: str, count: int
) -> None:
    made = settings(f"data.clips.vary_colours={varied}")
    parts = Base(made.host.pipeline).components()
    frames = np.random.default_rng(0).integers(0, 255, (WINDOW, SIZE, SIZE, 3)).astype(np.uint8)
    left = np.arange(SIZE) < SIZE // 2
    ids = np.broadcast_to(left, (WINDOW, SIZE, SIZE)).astype(np.uint8)
    clip = Clip("0.mp4", "a dog runs", frames, ids)
    texts = TextTable.build([clip.prompt], parts["tokenizer"], parts["text_encoder"], 8)
    task = FewShot([clip], parts["vae"], texts, made, (1, 1, 1))
    samples = 10 * count
    data = task.batch(np.arange(samples)).data
    pixels = torch.from_numpy(frames).movedim(-1, 0)[None] / 127.5 - 1
    times = []
    for objects, ground in product(permutations(range(3)), repeat=2):
        seen = torch.where(torch.from_numpy(left), pixels[:, list(objects)], pixels[:, list(ground)])
        times.append(int((data - encode_video(parts["vae"], seen)).abs().amax((1, 2, 3, 4)).lt(1e-4).sum()))
    assert sum(times) == samples and sum(n > 0 for n in times) == count
    assert torch.equal(task.batch(np.arange(50, 60)).data, data[50:60]), "a sample's colours depend on its index alone"


def test_the_first_frame_has_no_noise_and_no_loss(settings: Callable[..., Settings]) -> None:
    """What the model says of frame 1 changes nothing; what it is told of it is the clean latent."""
    made = settings()

    class Echo(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))
            self.seen: list[torch.Tensor] = []

        def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, **inputs: object) -> tuple[torch.Tensor]:
            self.seen.append(noisy.detach())
            first = torch.full_like(noisy[:, :, :1], 1e4)
            return (self.weight * torch.cat([first, noisy[:, :, 1:]], dim=2),)

    parts = Base(made.host.pipeline).components()
    frames = np.random.default_rng(0).integers(0, 255, (WINDOW, SIZE, SIZE, 3)).astype(np.uint8)
    texts = TextTable.build(["a dog runs"], parts["tokenizer"], parts["text_encoder"], 8)
    window = Clip("0.mp4", "a dog runs", frames, np.ones((WINDOW, SIZE, SIZE), np.uint8))
    task, model = FewShot([window], parts["vae"], texts, made, (1, 1, 1)), Echo()
    trainer = Trainer(made, Accelerator(cpu=True), model, task, build_objective(made.objective))
    loss = trainer._loss(np.array([5]))
    assert float(loss.detach()) < 100
    assert torch.equal(model.seen[0][:, :, 0], task.latents[:, 0, :, 0])
    assert not torch.allclose(model.seen[0][:, :, 1:], task.latents[:, 0, :, 1:])
    trainer.objective = Diffusion("epsilon", weighting="v")
    importance = trainer.objective.importance(trainer.objective.levels(made.seed, np.array([5])))
    assert importance is not None
    torch.testing.assert_close(trainer._loss(np.array([5])), loss * importance[0])
