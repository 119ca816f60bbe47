"""``ttm generate --few-shot``: a video of a motion that was learnt from a few clips, along given masks."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from ttm.cli.argument_types import DEFAULT_MODEL, given_options
from ttm.cli.errors import EXIT_USAGE, CommandError
from ttm.cli.generate import OUTPUTS, chosen_device, digest, told_to, versions, write_outputs
from ttm.cli.inputs import read_image, read_trajectory
from ttm.cli.output_folder import check_output
from ttm.cli.planner import LLM_OPTIONS
from ttm.cli.progress import Progress, hush_libraries
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan
from ttm.prompt_planner import RulePlanner

NAMES = ("few_shot.json", "model_index.json")
REFUSED = ("plan", "mask", "preview", *LLM_OPTIONS)


def run(arguments: Namespace) -> int:
    """The command: everything that can be wrong is looked at first, then the model is loaded."""
    prompt, image = _prompt_and_image(arguments)
    folder = Path(arguments.output)
    check_output(folder, OUTPUTS, arguments.overwrite)
    if not any((Path(arguments.few_shot) / name).is_file() for name in NAMES):
        expected = "expected a folder of `python -m stages.few_shot`"
        raise CommandError(f"{arguments.few_shot} holds no {NAMES[0]}; {expected}.")
    trajectory = read_trajectory(arguments.trajectory)
    picture = None if image is None else read_image(image)
    shown = digest(image)  # now: by the end the file may be another, or gone
    with Progress() as progress:
        with progress.stage("load", "loading the model"):
            pipe = load_few_shot(arguments.few_shot, arguments.device, arguments.dtype)
        options = _options(arguments)
        _expect_steps(progress, pipe, trajectory, arguments, picture is None)
        begin = time.perf_counter()
        out = _make(pipe, prompt, trajectory, picture, options, arguments.seed, progress)
        progress.seconds["few_shot"] = round(time.perf_counter() - begin, 3)
        record = _record(pipe, arguments, image, shown, options, progress.seconds)
        write_outputs(folder, out, record, arguments.overwrite)
    print(folder / "video.mp4")
    return 0


def load_few_shot(folder: str, device: str | None, dtype: str | None) -> Any:
    """Open a trained folder and bring it to its device; as ``ttm.cli.generate.load_pipeline``."""
    import torch

    hush_libraries()
    from ttm.pipelines.few_shot import FewShotPipeline

    place = chosen_device(device)
    pipe = FewShotPipeline.from_pretrained(folder, dtype=getattr(torch, dtype or "float32"))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(place)


def _prompt_and_image(arguments: Namespace) -> tuple[str, str | None]:
    """With one word after the options, IMAGE is left out and it is the prompt."""
    if given := given_options(arguments, REFUSED):
        raise CommandError(f"{given[0]} has no part in --few-shot; its masks come from --trajectory.", EXIT_USAGE)
    if arguments.planner != "rules":
        raise CommandError("--planner has no part in --few-shot; its prompt is taken as a whole.", EXIT_USAGE)
    if arguments.model != DEFAULT_MODEL:
        raise CommandError("--few-shot FOLDER takes the place of --model; expected one of them.", EXIT_USAGE)
    if not arguments.trajectory:
        raise CommandError("--few-shot needs --trajectory FILE: the masks to follow.", EXIT_USAGE)
    prompt, image = (arguments.image, None) if arguments.prompt is None else (arguments.prompt, arguments.image)
    if not prompt.strip():
        raise CommandError("PROMPT is empty; expected what happens.", EXIT_USAGE)
    if image is None and os.path.isfile(prompt):  # a long sentence is no name of a file; Path would raise
        raise CommandError(f"PROMPT is missing: {prompt} is a file; expected IMAGE and PROMPT.", EXIT_USAGE)
    return prompt, image


def _options(arguments: Namespace) -> dict[str, Any]:
    matched = arguments.match_colours
    return {
        "num_frames": arguments.num_frames,
        "height": arguments.height,
        "width": arguments.width,
        "num_inference_steps": arguments.steps,
        "guidance_scale": arguments.guidance_scale,
        "image_guidance_scale": arguments.image_guidance_scale,
        "negative_prompt": arguments.negative_prompt,
        "sharing_ratio": arguments.sharing,
        "renormalise_sharing": arguments.renormalise_sharing,
        "carried_first_frame": arguments.carried_first_frame,
        "match_latents": matched in ("latents", "both"),
        "match_histograms": matched in ("histograms", "both"),
        "controlnet_conditioning_scale": arguments.controlnet_scale,
        "controlnet_guidance_scale": arguments.controlnet_guidance,
        "use_controlnet": False if arguments.no_controlnet else None,
    }


def _expect_steps(progress: Progress, pipe: Any, trajectory: MaskTrajectory, arguments: Namespace, draws: bool) -> None:
    from ttm.pipelines.few_shot_request import extension_windows

    length = arguments.num_frames or trajectory.num_frames
    windows = sum(1 for _ in extension_windows(length, pipe.config.num_frames))
    progress.expect((windows + draws) * (arguments.steps or pipe.config.num_inference_steps))


def _make(
    pipe: Any, prompt: str, trajectory: MaskTrajectory, picture: Any, options: dict[str, Any], seed: int,
    progress: Progress,
) -> Any:  # fmt: skip
    import torch

    from ttm.pipelines.image_to_video import PipelineOutput

    out = pipe(
        prompt,
        trajectory,
        picture,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
        callback_on_step_end=told_to(progress),
        **options,
    )
    first = (np.asarray(out.frames[0])[0] * 255).round().astype(np.uint8)
    moves = out.trajectory
    return PipelineOutput(out.frames, moves, _plan(prompt, moves), first, moves.ids[0], dict(progress.seconds))


def _plan(prompt: str, trajectory: MaskTrajectory) -> PromptPlan:
    """What the sheet says of each object: the prompt taken apart, or the whole of it where that fits no better."""
    count = trajectory.object_ids[-1]
    try:
        plan = RulePlanner().plan(prompt)
        if len(plan.objects) >= count:
            return plan
    except ValueError:
        pass
    return PromptPlan(prompt, prompt, tuple(ObjectPrompt(f"object {number + 1}", prompt) for number in range(count)))


def _record(
    pipe: Any, arguments: Namespace, image: str | None, shown: str | None, options: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """What run.json holds: enough to make the same video again."""
    names = (
        "num_inference_steps", "guidance_scale", "image_guidance_scale", "controlnet_conditioning_scale",
        "controlnet_guidance_scale", "sharing_ratio", "carried_first_frame",
    )  # fmt: skip
    resolved = {name: pipe.config[name] if options[name] is None else options[name] for name in names}
    others = {name: value for name, value in options.items() if name not in names and value is not None}
    return {
        "few_shot": arguments.few_shot,
        "seed": arguments.seed,
        "inputs": {"trajectory": arguments.trajectory} | ({} if image is None else {"image": image}),
        "image_sha256": shown,
        "sampling": {**resolved, **others},
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "versions": versions(),
        "seconds": seconds,
    }
