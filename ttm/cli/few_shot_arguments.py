"""What can be written after ``ttm generate --few-shot``. Imports nothing heavy."""

from __future__ import annotations

import argparse

from ttm.cli.argument_types import scale, share

ONLY_FEW_SHOT = (
    *("sharing", "renormalise_sharing", "carried_first_frame", "match_colours"),
    *("controlnet_scale", "controlnet_guidance", "no_controlnet"),
)
"""Options that mean nothing without ``--few-shot``; None or False where they were not given."""


def add_few_shot(page: argparse.ArgumentParser) -> None:
    """Add the options to the page of ``ttm generate``."""
    few = page.add_argument_group("a motion learnt from a few clips")
    few.add_argument(
        "--few-shot",
        metavar="FOLDER",
        help="what `python -m stages.few_shot` wrote, in the place of --model. --trajectory gives the masks to follow; "
        "without IMAGE the first frame is drawn, by ControlNet from the first mask where there is one. A trajectory "
        "longer than the window that was learnt is followed window by window",
    )
    few.add_argument(
        "--sharing",
        metavar="R",
        type=share,
        help="share of the first frame in the others' noise (default: the folder's own)",
    )
    few.add_argument(
        "--carried-first-frame",
        action=argparse.BooleanOptionalAction,
        help="share the first frame with its objects moved along their masks, or (--no-…) as it is (default: the "
        "folder's own)",
    )
    few.add_argument("--renormalise-sharing", action="store_true", help="bring that noise back to unit variance")
    few.add_argument(
        "--match-colours",
        choices=("latents", "histograms", "both"),
        help="bring later frames to the first frame's colours: by the statistics of latents, by histograms, or both",
    )
    few.add_argument(
        "--controlnet-scale",
        metavar="S",
        type=scale,
        help="how strongly ControlNet shapes the first frame (default: the folder's own); more, where the object also "
        "turns up elsewhere",
    )
    few.add_argument(
        "--controlnet-guidance",
        metavar="S",
        type=scale,
        help="how far the first frame is pushed from what it would be without ControlNet (default: the folder's own)",
    )
    few.add_argument("--no-controlnet", action="store_true", help="draw the first frame from the prompt alone")
