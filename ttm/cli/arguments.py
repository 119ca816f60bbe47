"""What can be written on the command line, and the pages that explain it. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from ttm.cli.argument_types import DEFAULT_MODEL, scale, whole_number, words
from ttm.cli.errors import EXIT_USAGE
from ttm.cli.evaluate_arguments import add_evaluate
from ttm.cli.few_shot_arguments import add_few_shot
from ttm.cli.planner import add_planner
from ttm.cli.trajectory_arguments import add_trajectory

PAGE = """\
Through the Mask: one image and one sentence in, a video out in which each object does what
the sentence says, and beside it the mask trajectory that led there.

  ttm generate photo.jpg "The red ball moves left, and the blue square stays." -o out
      Makes out/video.mp4. On the way it writes down what it thought: plan.json (who does
      what), trajectory.npz and .mp4 (who is where, when), overlay.mp4, contact_sheet.png
      and run.json (model, seed, versions, seconds a stage).

  ttm generate photo.jpg "The red ball moves left." -o look --preview 6
      Draws six motions (seeds 0 to 5) on one sheet, without rendering. Choose one and
      render it: the same command with --seed in the place of --preview, and another -o.

  ttm plan "The cat and the dog run left."
      Shows how the sentence is taken apart: objects, and what each of them does.

  ttm segment photo.jpg "red ball" "blue square" -o out
      Finds the objects in the image; out/ids.png can be edited and handed to --mask.

  ttm trajectory draw moves.json -o moves.npz
      A motion of your own, by keyframes; or lifted from a video (extract), or painted. Hand
      it to --trajectory; `ttm trajectory preview` shows it.

  ttm evaluate videos --reference real --prompts prompts.csv
      Scores any model's videos: FVD, CF, ViCLIP, AD, Alignment, mask IoU.

  ttm doctor
      Versions, device, memory, and which weights are where.

Every step can be yours: --plan, --mask and --trajectory each take the place of one.
`ttm COMMAND --help` explains a command. An output is never overwritten without --overwrite.
"""

GENERATE_PAGE = """\
Make a video from an image and a sentence.

  plan -> segment -> image to motion (stage 1) -> motion to video (stage 2)

Whatever is left out comes from the model: its own size, number of frames, steps and guidance.

  ttm generate --few-shot FOLDER [IMAGE] PROMPT --trajectory FILE -o OUT

makes a video of a motion that `python -m stages.few_shot` learnt from a few clips, of any length.
"""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Print the line and leave with the exit code of a wrong command line."""
        if message.startswith("unrecognized arguments: ") and not message.split(": ", 1)[1].startswith("-"):
            message += "; a text of several words needs quotes around it"
        print(f"{self.prog}: error: {message} (see `{self.prog} --help`)", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; ``command`` is None where none was given, and every command has ``debug``."""
    parser = OneLineParser(
        prog="ttm",
        usage="ttm COMMAND ...",
        description=PAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"through-the-mask {_version()}")
    commands = parser.add_subparsers(dest="command", prog="ttm", metavar="COMMAND", help=argparse.SUPPRESS)
    _add_generate(commands)
    _add_plan(commands)
    _add_segment(commands)
    add_trajectory(commands)
    add_evaluate(commands)
    _add_doctor(commands)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("through-the-mask")
    except PackageNotFoundError:
        return "(not installed; run from a checkout)"


def _add_generate(commands: argparse._SubParsersAction) -> None:
    page = commands.add_parser(
        "generate",
        usage="ttm generate IMAGE [PROMPT] -o OUT [options]",
        description=GENERATE_PAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    page.add_argument("image", metavar="IMAGE", help="the first frame: PNG, JPEG, ... of 8 bits a channel")
    page.add_argument(
        "prompt", metavar="PROMPT", nargs="?", type=words, help="what happens; may be left out with --plan"
    )
    _add_output(page, "the folder to write")

    yours = page.add_argument_group("your own steps")
    yours.add_argument("--plan", metavar="FILE", help="a plan.json; skips the planner")
    yours.add_argument(
        "--mask",
        metavar="FILE",
        action="append",
        help="first-frame masks; skips segmentation. One PNG or NPY of ids (0 background, k the k-th object "
        "of the plan), or --mask once an object, each a black-and-white PNG, in the order of the plan",
    )
    yours.add_argument("--trajectory", metavar="FILE", help="a trajectory.npz; skips stage 1")
    add_planner(page)
    add_few_shot(page)

    look = page.add_argument_group("seeing before rendering")
    look.add_argument(
        "--preview",
        metavar="N",
        type=whole_number(1, 64),
        help="draw N motions, seeds SEED to SEED+N-1, on one sheet; no video",
    )
    look.add_argument("--seed", type=whole_number(0), default=0, help="same seed, same video (default 0)")

    size = page.add_argument_group("size and sampling (default: the model's own)")
    size.add_argument("--num-frames", metavar="N", type=whole_number(1))
    size.add_argument("--height", metavar="PX", type=whole_number(1))
    size.add_argument("--width", metavar="PX", type=whole_number(1))
    size.add_argument("--steps", metavar="N", type=whole_number(1, 1000), help="denoising steps of each stage")
    size.add_argument("--guidance-scale", metavar="S", type=scale, help="how strongly the text is followed")
    size.add_argument(
        "--image-guidance-scale", metavar="S", type=scale, help="how strongly the image and the masks are"
    )
    size.add_argument("--negative-prompt", metavar="TEXT", help="what not to see")
    _add_model(page)


def _add_plan(commands: argparse._SubParsersAction) -> None:
    page = commands.add_parser(
        "plan",
        usage="ttm plan PROMPT [-o FILE] [--json] [options]",
        description="Take a sentence apart: its objects, what each one does, and the motion alone.",
    )
    page.add_argument("prompt", metavar="PROMPT", type=words)
    page.add_argument(
        "-o", "--output", metavar="FILE", help="write the plan as JSON; edit it, then generate --plan FILE"
    )
    page.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    page.add_argument("--json", action="store_true", help="print JSON instead of a page")
    add_planner(page)


def _add_segment(commands: argparse._SubParsersAction) -> None:
    page = commands.add_parser(
        "segment",
        usage="ttm segment IMAGE PHRASE [PHRASE ...] -o OUT [options]",
        description="Find objects in an image. Writes ids.png (an indexed PNG: 0 background, k the k-th "
        "phrase), overlay.png and segment.json. Only what a video of the model shows is searched: the largest centred "
        "part with its aspect ratio; beside it all is background.",
    )
    page.add_argument("image", metavar="IMAGE")
    page.add_argument("phrases", metavar="PHRASE", nargs="+", type=words, help='what to find: "red ball" "blue square"')
    _add_output(page, "the folder to write")
    _add_model(page)


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    commands.add_parser(
        "doctor",
        usage="ttm doctor",
        description="Print versions, device, memory, and which weights are where. Returns 1 if something "
        "that is needed is missing.",
    )


def _add_output(page: argparse.ArgumentParser, what: str) -> None:
    page.add_argument("-o", "--output", metavar="OUT", required=True, help=what)
    page.add_argument("--overwrite", action="store_true", help="replace files of an earlier run")


def _add_model(page: argparse.ArgumentParser) -> None:
    model = page.add_argument_group("model")
    model.add_argument("--model", default=DEFAULT_MODEL, help="ttm-tiny (embedded, default), a folder, or a Hub id")
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one, else cpu)")
    model.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32")
