"""``ttm generate``: an image and a sentence to a video; with ``--preview`` to motions to choose from."""

from __future__ import annotations

import hashlib
import json
import platform
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttm.cli.argument_types import given_options
from ttm.cli.errors import EXIT_USAGE, CommandError
from ttm.cli.few_shot_arguments import ONLY_FEW_SHOT
from ttm.cli.inputs import read_image, read_masks, read_plan, read_trajectory
from ttm.cli.output_folder import check_output, written_whole
from ttm.cli.planner import LLM_OPTIONS, make_plan
from ttm.cli.progress import Progress, hush_libraries
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan

if TYPE_CHECKING:
    from ttm.pipelines.image_to_video import Pipeline, PipelineOutput

OUTPUTS = (
    *("video.mp4", "trajectory.mp4", "overlay.mp4", "contact_sheet.png"),
    *("plan.json", "trajectory.npz", "run.json"),
)
REPORTED = ("torch", "diffusers", "transformers", "sam2", "open-clip-torch", "numpy")


@dataclass(frozen=True)
class Sampling:
    """How to sample; None = the model's own.

    Attributes:
        seed: of the noise, drawn on the CPU, so that it means the same on every device.
        num_frames, height, width: of the clip.
        num_inference_steps, guidance_scale, image_guidance_scale: of both stages.
        negative_prompt: what guidance pushes away from.
    """

    seed: int = 0
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    negative_prompt: str | None = None

    def options(self) -> dict[str, Any]:
        """As keyword arguments of ``Pipeline.__call__``, without the seed."""
        return {name: value for name, value in asdict(self).items() if name != "seed"}


@dataclass(frozen=True)
class Inputs:
    """What the user handed in.

    Attributes:
        image: uint8 [H, W, 3].
        prompt: the sentence; None with a plan.
        plan: skips the planner.
        masks: ids uint8 [H, W]; skips segmentation.
        trajectory: skips stage 1.
        language_model: which one made the plan, as run.json tells it; None if none did.
    """

    image: NDArray[np.uint8]
    prompt: str | None = None
    plan: PromptPlan | None = None
    masks: NDArray[np.uint8] | None = None
    trajectory: MaskTrajectory | None = None
    language_model: dict[str, Any] | None = None


def run(arguments: Namespace) -> int:
    """The command: everything that can be wrong is looked at first, then the model is loaded."""
    if arguments.few_shot:
        from ttm.cli import few_shot

        return few_shot.run(arguments)
    _check_usage(arguments)
    folder = Path(arguments.output)
    if arguments.preview:
        from ttm.cli import preview

        check_output(folder, preview.outputs(arguments.seed, arguments.preview), arguments.overwrite)
    else:
        check_output(folder, OUTPUTS, arguments.overwrite)
    inputs = _read(arguments)
    sampling = Sampling(
        seed=arguments.seed,
        num_frames=arguments.num_frames,
        height=arguments.height,
        width=arguments.width,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance_scale,
        image_guidance_scale=arguments.image_guidance_scale,
        negative_prompt=arguments.negative_prompt,
    )
    told = {
        "image": arguments.image,
        "mask": arguments.mask,
        "trajectory": arguments.trajectory,
        "plan": arguments.plan,
        "planner": inputs.language_model,
    }
    shown = digest(arguments.image)  # now: by the end the file may be another, or gone
    with Progress() as progress:
        with progress.stage("load", "loading the model"):
            pipe = load_pipeline(arguments.model, arguments.device, arguments.dtype)
        if arguments.preview:
            made = preview.draw(pipe, inputs, sampling, arguments.preview, progress)
            record = run_record(pipe, arguments.model, sampling, progress.seconds, told, shown)
            preview.write(folder, made, record, arguments.overwrite)
        else:
            out = make_video(pipe, inputs, sampling, progress)
            record = run_record(pipe, arguments.model, sampling, progress.seconds, told, shown)
            write_outputs(folder, out, record, arguments.overwrite)
    if arguments.preview:
        print(preview.closing_words(folder, sampling.seed, arguments.preview))
    else:
        print(folder / "video.mp4")
    return 0


def make_video(pipe: Pipeline, inputs: Inputs, sampling: Sampling, progress: Progress) -> PipelineOutput:
    """Run all parts, with the steps and the seconds of each told to ``progress``.

    Returns:
        what ``Pipeline`` returns, frames as uint8-like floats [T, H, W, 3] in 0..1 ("np").
    """
    import torch

    config = pipe.config
    steps = sampling.num_inference_steps
    total = steps or config.num_inference_steps
    if inputs.trajectory is None:
        total += steps or config.motion_num_inference_steps
    progress.expect(total)
    out = pipe(
        inputs.image,
        inputs.prompt,
        masks=inputs.masks,
        trajectory=inputs.trajectory,
        plan=inputs.plan,
        generator=torch.Generator("cpu").manual_seed(sampling.seed),
        output_type="np",
        callback_on_step_end=told_to(progress),
        **sampling.options(),
    )
    progress.seconds.update({name: round(seconds, 3) for name, seconds in out.seconds.items()})
    return out


def told_to(progress: Progress, title: str = "") -> Callable[..., dict[str, Any]]:
    """A ``callback_on_step_end`` that moves the bar; ``title`` stands beside it, or else the stage's name."""

    def step(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        progress.step(title or pipe.stage.replace("_", " "))
        return {}

    return step


def load_pipeline(model: str, device: str | None = None, dtype: str | None = None) -> Pipeline:
    """Open a model and bring it to its device.

    Args:
        model: "ttm-tiny", a folder, or a Hub id.
        device: None = cuda where there is one, else cpu.
        dtype: None = float32.

    Raises:
        CommandError: no such device. ValueError: no such model.
    """
    import torch

    hush_libraries()
    from ttm.pipelines.image_to_video import Pipeline

    place = chosen_device(device)
    pipe = Pipeline.from_pretrained(model, dtype=getattr(torch, dtype or "float32"))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(place)


def chosen_device(device: str | None) -> str:
    """The device to work on: the one asked for, else cuda where there is one, else cpu.

    Raises:
        CommandError: no such device.
    """
    import torch

    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise CommandError(f"--device {place} is not here ({reason}); `ttm doctor` lists what is.") from error
    return place


def run_record(
    pipe: Pipeline,
    model: str,
    sampling: Sampling,
    seconds: dict[str, float],
    told: dict[str, Any],
    image_sha256: str | None,
) -> dict[str, Any]:
    """What run.json holds: enough to make the same video again, and how long each stage took."""
    config = pipe.config
    names = ("num_inference_steps", "guidance_scale", "image_guidance_scale")
    settings = {name: getattr(sampling, name) for name in names}
    resolved = {
        "image_to_motion": {name: _or(settings[name], config[f"motion_{name}"]) for name in names},
        "motion_to_video": {name: _or(settings[name], config[name]) for name in names},
    }
    return {
        "model": model,
        "seed": sampling.seed,
        "inputs": {name: value for name, value in told.items() if value is not None},
        "image_sha256": image_sha256,
        "negative_prompt": sampling.negative_prompt,
        "sampling": resolved,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "versions": versions(),
        "seconds": seconds,
    }


def write_outputs(folder: Path, out: PipelineOutput, record: dict[str, Any], overwrite: bool) -> None:
    """Write everything that ``generate`` writes, all together or not at all.

    Raises:
        CommandError: the folder can't be written, or holds outputs by now that may not be replaced.
    """
    from ttm.visualization import contact_sheet, write_video

    frames = (np.asarray(out.frames[0]) * 255).round().astype(np.uint8)
    trajectory: MaskTrajectory = out.trajectory
    overlay = trajectory.overlay(frames)
    clip = {"num_frames": trajectory.num_frames, "height": trajectory.height, "width": trajectory.width}
    with written_whole(folder, overwrite) as filling:
        write_video(filling / "video.mp4", frames, trajectory.fps)
        write_video(filling / "trajectory.mp4", trajectory.to_video(), trajectory.fps)
        write_video(filling / "overlay.mp4", overlay, trajectory.fps)
        contact_sheet(filling / "contact_sheet.png", frames, trajectory, out.plan)
        out.plan.save(filling / "plan.json")
        trajectory.save(filling / "trajectory.npz")
        write_json(filling / "run.json", {**record, "clip": {**clip, "fps": trajectory.fps}})


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Values as JSON that people can read."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_usage(arguments: Namespace) -> None:
    if given := given_options(arguments, ONLY_FEW_SHOT):
        raise CommandError(f"{given[0]} has no part in this; expected --few-shot FOLDER beside it.", EXIT_USAGE)
    if arguments.prompt is None and arguments.plan is None:
        raise CommandError("PROMPT is missing; expected a sentence, or --plan FILE.", EXIT_USAGE)
    if arguments.plan and arguments.planner == "llm":
        raise CommandError("--plan takes the place of --planner llm; expected one of them.", EXIT_USAGE)
    if arguments.plan and (given := given_options(arguments, LLM_OPTIONS)):
        raise CommandError(f"{given[0]} has no part in --plan FILE, which skips the planner.", EXIT_USAGE)
    if arguments.preview and arguments.trajectory:
        raise CommandError("--preview draws what --trajectory would skip; expected one of them.", EXIT_USAGE)


def _read(arguments: Namespace) -> Inputs:
    plan = read_plan(arguments.plan) if arguments.plan else None
    if plan is not None and arguments.prompt not in (None, plan.prompt):
        raise CommandError(
            f"PROMPT and {arguments.plan} say different things; leave out PROMPT, for the plan holds one.",
            EXIT_USAGE,
        )
    trajectory = read_trajectory(arguments.trajectory) if arguments.trajectory else None
    if trajectory is not None and arguments.num_frames:
        trajectory = trajectory.resample(arguments.num_frames)
    image = read_image(arguments.image)
    masks = read_masks(arguments.mask, (image.shape[1], image.shape[0])) if arguments.mask else None
    asked = None
    if plan is None:  # before the weights, that a sentence may name nothing; after the files, for a model may plan
        plan, asked = make_plan(arguments)
    return Inputs(image, arguments.prompt, plan, masks, trajectory, asked)


def versions() -> dict[str, str]:
    """Of this package and of those that decide what a video looks like."""
    found = {"python": platform.python_version()}
    for name in ("through-the-mask", *REPORTED):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def digest(path: str | None) -> str | None:
    """SHA-256 of a file; None for none."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else None


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
