"""What can be written after ``ttm evaluate``. Imports nothing heavy."""

from __future__ import annotations

import argparse

from ttm.cli.argument_types import rate, whole_number

PAGE = """\
Score videos of any model; every figure with its N, a 95% interval, and what it is made of.

  ttm evaluate videos --reference real --prompts prompts.csv --json scores.json
  ttm evaluate videos --metrics cf-adjacent,ad

Videos, references and trajectories are paired by file name, prompts by the names in their file.
Of what `ttm generate` or a benchmark wrote, video.mp4 and trajectory.npz are taken, as a pair.
Metrics: fvd viclip-v (need --reference), viclip-t alignment (--prompts), cf-all-pairs cf-adjacent
ad; cf-all-pairs-foreground cf-adjacent-foreground alignment-foreground mask-iou (--trajectories).
Left out, all are taken that can be had from what is given. Public weights come from the Hub, or
from where you say. docs/metrics.md tells what each figure is exactly.
"""


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser's."""
    page = commands.add_parser(
        "evaluate",
        usage="ttm evaluate VIDEOS [--reference VIDEOS] [--prompts FILE] [options]",
        description=PAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    page.add_argument("videos", metavar="VIDEOS", help="a folder of videos, or one video")
    page.add_argument("--reference", metavar="VIDEOS", help="the real videos")
    page.add_argument("--prompts", metavar="FILE", help="JSON, YAML or CSV: a prompt for every video's name")
    page.add_argument("--trajectories", metavar="FOLDER", help="trajectories (.npz) that the videos should follow")
    page.add_argument("--metrics", metavar="NAMES", help="which, separated by commas")
    page.add_argument("--json", metavar="FILE", help="write all of it: figures, conventions, weights, every video")
    page.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    _add_form(page)
    _add_weights(page)
    run = page.add_argument_group("running")
    run.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one, else cpu)")
    run.add_argument("--batch-size", metavar="N", type=whole_number(1), default=4, help="videos at a time (default 4)")
    run.add_argument("--cache", metavar="FOLDER", help="where features are kept (default: the user's cache folder)")
    run.add_argument("--no-cache", action="store_true", help="keep no features")


def _add_form(page: argparse.ArgumentParser) -> None:
    form = page.add_argument_group("bring every video and reference to one form (default: as they are)")
    form.add_argument("--num-frames", metavar="N", type=whole_number(1), help="the first N frames")
    form.add_argument("--fps", metavar="F", type=rate, help="frames a second; the nearest frames in time")
    form.add_argument("--size", metavar=("H", "W"), type=whole_number(1), nargs=2, help="the centre, resized")


def _add_weights(page: argparse.ArgumentParser) -> None:
    weights = page.add_argument_group("weights: a file, a folder or a Hub id (default: the public ones)")
    weights.add_argument("--i3d", metavar="W", help="of FVD: StyleGAN-V's i3d_torchscript.pt")
    weights.add_argument("--clip", metavar="W", help="of CF and Alignment: openai/clip-vit-large-patch14")
    weights.add_argument("--viclip", metavar="W", help="of ViCLIP-T and -V: OpenGVLab/ViCLIP-L-14-hf")
    weights.add_argument(
        "--viclip-convention", choices=("internvid", "vbench"), default="internvid", help="how clips are prepared"
    )
    weights.add_argument("--raft", metavar="W", help="of AD: torchvision's RAFT-large")
    weights.add_argument("--segmenter", metavar="W", help="of mask IoU: facebook/sam2.1-hiera-tiny, or a Segmenter")
    weights.add_argument(
        "--features", choices=("tiny",), help="stand-ins for I3D, CLIP and the segmenter; columns end in -tiny"
    )
