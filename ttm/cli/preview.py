"""``ttm generate --preview N``: N motions of stage 1 on one sheet, to choose a seed from before rendering."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttm.cli.generate import Inputs, Sampling, told_to, write_json
from ttm.cli.output_folder import written_whole
from ttm.cli.progress import Progress
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan

if TYPE_CHECKING:
    from ttm.pipelines.image_to_video import Pipeline


@dataclass(frozen=True)
class Preview:
    """Motions to choose from.

    Attributes:
        plan: the sentence, taken apart.
        first_frame: the image at the working size, uint8 [H, W, 3].
        trajectories: by seed.
    """

    plan: PromptPlan
    first_frame: NDArray[np.uint8]
    trajectories: dict[int, MaskTrajectory]


def outputs(seed: int, count: int) -> list[str]:
    """The files that a preview writes."""
    return [
        "preview.png",
        "plan.json",
        "run.json",
        *(_trajectory_name(seed + index) for index in range(count)),
    ]


def draw(pipe: Pipeline, inputs: Inputs, sampling: Sampling, count: int, progress: Progress) -> Preview:
    """Stage 1 for ``count`` seeds from ``sampling.seed`` on.

    Each seed has a generator of its own, whose first noise is stage 1's, as in ``Pipeline.__call__``: what is
    drawn for a seed is what that seed renders, however many are drawn.
    """
    import torch

    from ttm.pipelines.inputs import fit_ids, fit_image

    height = sampling.height or pipe.config.height
    width = sampling.width or pipe.config.width
    plan = inputs.plan or pipe.planner.plan(inputs.prompt or "")
    masks = inputs.masks
    if masks is None:
        with progress.stage("segment", "finding the objects"):
            masks = pipe.segment(inputs.image, plan, height, width)
    frame, ids = fit_image(inputs.image, height, width), fit_ids(masks, height, width, plan.phrases)

    progress.expect(count * (sampling.num_inference_steps or pipe.config.motion_num_inference_steps))
    trajectories = {}
    for seed in range(sampling.seed, sampling.seed + count):
        title = f"motion of seed {seed}"
        with progress.stage("image_to_motion", title):
            made = pipe.image_to_motion(
                frame,
                plan,
                ids,
                generator=torch.Generator("cpu").manual_seed(seed),
                callback_on_step_end=told_to(progress, title),
                **{**sampling.options(), "height": height, "width": width},
            )
        trajectories[seed] = made.trajectory
    return Preview(plan, frame, trajectories)


def sheet(preview: Preview) -> NDArray[np.uint8]:
    """The motions, one a row: their paths over the first frame, then a few frames; uint8 [H, W, 3]."""
    from ttm.visualization import preview_sheet

    rows = {f"seed {seed}": trajectory for seed, trajectory in preview.trajectories.items()}
    return preview_sheet(preview.first_frame, rows, preview.plan)


def write(folder: Path, preview: Preview, record: dict[str, Any], overwrite: bool) -> None:
    """Write the sheet, the plan and every trajectory, all together or not at all."""
    from PIL import Image

    picture = Image.fromarray(sheet(preview))
    with written_whole(folder, overwrite) as filling:
        picture.save(filling / "preview.png")
        preview.plan.save(filling / "plan.json")
        for seed, trajectory in preview.trajectories.items():
            trajectory.save(filling / _trajectory_name(seed))
        write_json(filling / "run.json", {**record, "preview_seeds": list(preview.trajectories)})


def closing_words(folder: Path, seed: int, count: int) -> str:
    """What to do next."""
    last = seed + count - 1
    advice = f"Render one: the same command with --seed {seed}..{last} in the place of --preview, and another -o."
    return f"{folder / 'preview.png'}\n{advice}"


def _trajectory_name(seed: int) -> str:
    return f"trajectory_seed_{seed}.npz"
