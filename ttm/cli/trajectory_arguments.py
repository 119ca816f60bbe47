"""What can be written after ``ttm trajectory``. Imports nothing heavy."""

from __future__ import annotations

import argparse

from ttm.cli.argument_types import DEFAULT_MODEL, numbers, rate, whole_number, words

PAGE = """\
Mask trajectories to guide a video with: drawn, lifted from a video, or painted frame by frame.
Each is an .npz file for `ttm generate --trajectory`.

  ttm trajectory draw moves.json -o moves.npz
      Draws objects that move by keyframes: along paths, growing, turning, one before another.
      docs/keyframes.md explains the file. With --mask ids.png the objects of a picture move.

  ttm trajectory extract dog.mp4 --phrase "the dog" -o dog.npz
      Follows objects of the first frame through a video. --box and --point choose them too.

  ttm trajectory extract painted/ -o moves.npz
      Reads a folder of painted frames, one mask picture a frame.

  ttm trajectory preview moves.npz -o look --image photo.jpg
      Makes look/preview.png and look/preview.mp4, over a picture or a video if there is one.
"""

EXTRACT_PAGE = """\
Follow objects through a video, or read painted frames.

Of a video, each --phrase, --box and --point makes one object; the k-th on the command line gets
id k. Places are pixels of the video's first frame, from its top left corner.

Of a folder, every picture is a frame, in the order of the numbers in their names: ids (0 is the
background), the palette's colours, or black and white alone.
"""


def add_trajectory(commands: argparse._SubParsersAction) -> None:
    """Add the command, and its own commands, to the parser's."""
    page = commands.add_parser(
        "trajectory",
        usage="ttm trajectory draw|extract|preview ...",
        description=PAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = page.add_subparsers(
        dest="action", prog="ttm trajectory", metavar="draw|extract|preview", required=True, help=argparse.SUPPRESS
    )
    for add in (_add_draw, _add_extract, _add_preview):
        action = add(actions)
        action.add_argument("--overwrite", action="store_true", help="replace what is there")
        # SUPPRESS: the default here would undo a --debug before the action.
        action.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )


def _add_draw(actions: argparse._SubParsersAction) -> argparse.ArgumentParser:
    page: argparse.ArgumentParser = actions.add_parser(
        "draw",
        usage="ttm trajectory draw KEYFRAMES -o FILE [options]",
        description="Draw a trajectory from a keyframe file (JSON; see docs/keyframes.md).",
    )
    page.add_argument("keyframes", metavar="KEYFRAMES", help="the file")
    page.add_argument("-o", "--output", metavar="FILE", required=True, help="the trajectory to write, .npz")
    page.add_argument(
        "--mask",
        metavar="FILE",
        action="append",
        help="first-frame masks whose objects move, as `ttm generate` takes them; the canvas has their size",
    )
    return page


def _add_extract(actions: argparse._SubParsersAction) -> argparse.ArgumentParser:
    page: argparse.ArgumentParser = actions.add_parser(
        "extract",
        usage="ttm trajectory extract VIDEO|FOLDER -o FILE [options]",
        description=EXTRACT_PAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    page.add_argument("source", metavar="VIDEO|FOLDER")
    page.add_argument("-o", "--output", metavar="FILE", required=True, help="the trajectory to write, .npz")
    objects = page.add_argument_group("objects of a video (repeat for more; at least one)")
    objects.add_argument("--phrase", metavar="TEXT", type=words, action="append", dest="wanted", help="what it is")
    objects.add_argument(
        "--box", metavar="X0,Y0,X1,Y1", type=numbers(4), action="append", dest="wanted", help="a box around it"
    )
    objects.add_argument(
        "--point", metavar="X,Y", type=numbers(2), action="append", dest="wanted", help="a point on it"
    )
    form = page.add_argument_group("bring it to one form (default: as it is)")
    form.add_argument(
        "--num-frames",
        metavar="N",
        type=whole_number(1),
        help="of a video with --fps the first N frames, else N frames spread evenly over all",
    )
    form.add_argument(
        "--fps", metavar="F", type=rate, help="of a video: frames a second to take; of a folder: its own (default 8)"
    )
    form.add_argument("--size", metavar=("H", "W"), type=whole_number(1), nargs=2, help="the centre, resized")
    model = page.add_argument_group("model that follows the objects of a video")
    model.add_argument("--model", default=DEFAULT_MODEL, help="ttm-tiny (embedded, default), a folder, or a Hub id")
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one, else cpu)")
    return page


def _add_preview(actions: argparse._SubParsersAction) -> argparse.ArgumentParser:
    page: argparse.ArgumentParser = actions.add_parser(
        "preview",
        usage="ttm trajectory preview TRAJECTORY -o OUT [options]",
        description="Show a trajectory: preview.png, a sheet of paths and frames, and preview.mp4.",
    )
    page.add_argument("trajectory", metavar="TRAJECTORY", help="a trajectory (.npz)")
    page.add_argument("-o", "--output", metavar="OUT", required=True, help="the folder to write")
    behind = page.add_mutually_exclusive_group()
    behind.add_argument("--image", metavar="FILE", help="the picture that it is to move, cut to its size")
    behind.add_argument(
        "--video",
        metavar="FILE",
        help="a video to lay it over, from its beginning, frames nearest in time, cut to its size",
    )
    return page
