"""``ttm segment``: who is where in an image."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ttm.cli.errors import EXIT_USAGE, CommandError
from ttm.cli.generate import load_pipeline, write_json
from ttm.cli.inputs import read_image
from ttm.cli.output_folder import check_output, written_whole
from ttm.cli.progress import Progress
from ttm.motion.mask_pictures import ids_picture
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import MAX_OBJECTS, ObjectPrompt, PromptPlan

OUTPUTS = ("ids.png", "overlay.png", "segment.json")


def run(arguments: Namespace) -> int:
    """Find the phrases in the image; write ids, a picture to look at, and each object's share of it."""
    from PIL import Image

    if len(arguments.phrases) > MAX_OBJECTS:
        raise CommandError(f"{len(arguments.phrases)} phrases; expected at most {MAX_OBJECTS}.", EXIT_USAGE)
    folder = Path(arguments.output)
    check_output(folder, OUTPUTS, arguments.overwrite)
    image = read_image(arguments.image)
    with Progress() as progress:
        with progress.stage("load", "loading the model"):
            pipe = load_pipeline(arguments.model, arguments.device, arguments.dtype)
        with progress.stage("segment", "finding the objects"):
            ids = pipe.segment(image, _plan(arguments.phrases))
    shares = [round(float((ids == number).mean()), 4) for number in range(1, len(arguments.phrases) + 1)]
    rows = [
        {"id": number, "phrase": phrase, "share_of_image": share}
        for number, (phrase, share) in enumerate(zip(arguments.phrases, shares, strict=True), start=1)
    ]
    with written_whole(folder, arguments.overwrite) as filling:
        ids_picture(ids).save(filling / "ids.png")
        Image.fromarray(MaskTrajectory(ids[None]).overlay(image[None])[0]).save(filling / "overlay.png")
        write_json(filling / "segment.json", {"image": arguments.image, "model": arguments.model, "objects": rows})
    for row in rows:
        print(f"{row['id']:>2}  {row['phrase']}  {row['share_of_image']:.1%} of the image")
    print(folder / "ids.png")
    return 0


def _plan(phrases: list[str]) -> PromptPlan:
    """A plan that asks for the phrases and for no motion."""
    text = ", ".join(phrases)
    return PromptPlan(text, text, tuple(ObjectPrompt(phrase, phrase) for phrase in phrases))
