"""``ttm trajectory``: mask trajectories drawn, extracted, and shown."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ttm.cli.errors import EXIT_USAGE, CommandError
from ttm.cli.generate import chosen_device, load_pipeline
from ttm.cli.inputs import read_image, read_masks, read_trajectory
from ttm.cli.output_folder import check_output, refuse_overwriting, written_whole
from ttm.cli.progress import Progress
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import MAX_OBJECTS

if TYPE_CHECKING:
    from ttm.segmentation.places import Place

PREVIEW = ("preview.png", "preview.mp4")
_PAPER_GREY = 96  # what stands behind a trajectory that has no picture


def run(arguments: Namespace) -> int:
    """One of draw, extract and preview."""
    return {"draw": draw, "extract": extract, "preview": preview}[arguments.action](arguments)


def draw(arguments: Namespace) -> int:
    """Keyframes to a trajectory."""
    from ttm.motion.keyframes import Keyframes

    path = _checked_output(arguments)
    if not Path(arguments.keyframes).is_file():
        found = "is a folder" if Path(arguments.keyframes).is_dir() else "is not there"
        raise CommandError(f"{arguments.keyframes} {found}; expected keyframes (.json).")
    keyframes = Keyframes.load(arguments.keyframes)
    trajectory = keyframes.draw(read_masks(arguments.mask) if arguments.mask else None)
    names = [item.name for item in keyframes.scene.objects]
    return _finish(path, trajectory, names, arguments.overwrite)


def extract(arguments: Namespace) -> int:
    """A video, or a folder of painted frames, to a trajectory."""
    path, source = _checked_output(arguments), Path(arguments.source)
    if not source.exists():
        raise CommandError(f"{source} is not there; expected a video, or a folder of painted frames.")
    wanted = arguments.wanted or []
    if source.is_dir():
        if wanted:
            raise CommandError("--phrase, --box and --point are for a video; a folder holds its objects.", EXIT_USAGE)
        return _finish(path, _painted(source, arguments), [], arguments.overwrite)
    if not 1 <= len(wanted) <= MAX_OBJECTS:
        expected = f"expected 1 to {MAX_OBJECTS} of --phrase, --box and --point"
        raise CommandError(f"{len(wanted)} objects are asked for; {expected}.", EXIT_USAGE)
    place = chosen_device(arguments.device)
    with Progress() as progress:
        with progress.stage("load", "loading the model"):
            segmenter = load_pipeline(arguments.model, "cpu").segmenter  # the rest of it stays there
        if segmenter is None:
            raise CommandError(f"{arguments.model} has no segmenter; expected a model that can follow objects.")
        segmenter.to(place)
        with progress.stage("follow", "following the objects"):
            from ttm.segmentation.extraction import extract_trajectory

            size = tuple(arguments.size) if arguments.size else None
            chosen = [_choice(each) for each in wanted]
            trajectory = extract_trajectory(segmenter, source, chosen, arguments.fps, arguments.num_frames, size)
    names = [each if isinstance(each, str) else "at " + ",".join(f"{value:g}" for value in each) for each in wanted]
    return _finish(path, trajectory, names, arguments.overwrite)


def preview(arguments: Namespace) -> int:
    """A sheet of a trajectory, and an mp4."""
    from PIL import Image

    from ttm.visualization import contact_sheet, preview_sheet, write_video

    folder = Path(arguments.output)
    check_output(folder, PREVIEW, arguments.overwrite)
    trajectory = read_trajectory(arguments.trajectory)
    frames = _background(trajectory, arguments)
    with written_whole(folder, arguments.overwrite) as filling:
        if arguments.video:
            contact_sheet(filling / "preview.png", frames, trajectory)
        else:
            sheet = preview_sheet(frames[0], {Path(arguments.trajectory).stem: trajectory})
            Image.fromarray(sheet).save(filling / "preview.png")
        write_video(filling / "preview.mp4", trajectory.overlay(frames), trajectory.fps)
    print(folder / "preview.png")
    print(folder / "preview.mp4")
    return 0


def _checked_output(arguments: Namespace) -> Path:
    path = Path(arguments.output)
    if path.suffix.lower() != ".npz":
        raise CommandError(f"-o {path} can't hold a trajectory; expected a file that ends in .npz.", EXIT_USAGE)
    check_output(path.parent, [path.name], arguments.overwrite)
    return path


def _painted(folder: Path, arguments: Namespace) -> MaskTrajectory:
    from ttm.motion.mask_pictures import read_painted_frames

    trajectory = read_painted_frames(folder, arguments.fps or 8.0)
    if arguments.num_frames:
        trajectory = trajectory.resample(arguments.num_frames)
    if arguments.size:
        from ttm.pipelines.inputs import centre_crop

        height, width = arguments.size
        top, left, rows, columns = centre_crop((trajectory.height, trajectory.width), (height, width))
        part = trajectory.ids[:, top : top + rows, left : left + columns]
        trajectory = MaskTrajectory(part, trajectory.fps).resize(height, width)
    if not trajectory.object_ids:
        raise CommandError(f"{folder} shows no object in what is kept of it; expected another --size or --num-frames.")
    return trajectory


def _choice(wanted: str | tuple[float, ...]) -> str | Place:
    """What one of --phrase, --box and --point says."""
    from ttm.segmentation.places import Box, Point

    if isinstance(wanted, str):
        return wanted
    return Box(*wanted) if len(wanted) == 4 else Point(*wanted)


def _background(trajectory: MaskTrajectory, arguments: Namespace) -> NDArray[np.uint8]:
    """What stands behind a trajectory: uint8 [T, H, W, 3]."""
    shape = (*trajectory.ids.shape, 3)
    if arguments.video:
        from ttm.data.video_reader import read_video

        size = (trajectory.height, trajectory.width)
        return read_video(arguments.video, trajectory.num_frames, size=size, fps=trajectory.fps).frames
    if arguments.image:
        image = read_image(arguments.image)
        from ttm.pipelines.inputs import fit_image

        return np.broadcast_to(fit_image(image, trajectory.height, trajectory.width), shape)
    return np.full(shape, _PAPER_GREY, np.uint8)


def _finish(path: Path, trajectory: MaskTrajectory, names: list[str], overwrite: bool) -> int:
    """Write a trajectory and say what is in it."""
    refuse_overwriting(path.parent, [path.name], overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    trajectory.save(path)
    seen = (trajectory.areas() > 0).sum(axis=0)
    for number in range(1, max(trajectory.object_ids, default=0) + 1):
        name = names[number - 1] if number <= len(names) else ""
        print(f"{number:>2}  {name or 'object'}  in {seen[number]} of {trajectory.num_frames} frames")
    print(f"{path}  {trajectory.width} x {trajectory.height}, {trajectory.fps:g} frames a second")
    return 0
