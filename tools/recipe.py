"""The command line of a recipe: a row of programs, each of which resumes by itself, run one after the other."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

Steps = Callable[[float, bool], dict[str, list[str]]]
"""(scale of the minutes, go on from the embedded weights?) -> name of each step and its command line."""


def run_recipe(description: str | None, steps: Steps) -> None:
    """Read ``--only``, ``--scale`` and ``--go-on``, and run the steps; the first that fails ends it.

    Args:
        description: what ``--help`` shows.
        steps: of the recipe.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of steps, separated by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every step's minutes")
    parser.add_argument("--go-on", action="store_true", help="start from the embedded weights, not from nothing")
    arguments = parser.parse_args()
    commands = steps(arguments.scale, arguments.go_on)
    wanted = arguments.only.split(",") if arguments.only else list(commands)
    if unknown := set(wanted) - set(commands):
        parser.error(f"there is no step {sorted(unknown)}; expected some of {list(commands)}")
    for name in wanted:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", *commands[name]], check=True)
