"""Types for argparse: what a word of the command line may say, and the line that says what is wrong with it.

Beside them :func:`given_options`: which of some options were written at all.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable

DEFAULT_MODEL = "ttm-tiny"
"""Of every ``--model``."""


def given_options(arguments: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Which options were given, as they are written ("--llm-model"); their default is None or False, and 0 is given."""
    found = {name: getattr(arguments, name) for name in names}
    return [f"--{name.replace('_', '-')}" for name, value in found.items() if value is not None and value is not False]


def whole_number(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """A whole number in ``least..most``."""

    def read(text: str) -> int:
        limits = f"{least}..{most}" if most < 2**31 else f"{least} to 2^63 - 1"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number; expected {limits}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is out of range; expected {limits}")
        return value

    return read


def numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    """So many finite numbers, separated by commas."""

    def read(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != count or not all(math.isfinite(value) for value in values):
            raise argparse.ArgumentTypeError(f"{text!r} is not {count} numbers separated by commas")
        return values

    return read


def scale(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; expected 0 or more") from None
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected a finite number, 0 or more")
    return value


def rate(text: str) -> float:
    """Frames a second, above 0."""
    if (value := scale(text)) > 0:
        return value
    raise argparse.ArgumentTypeError("0 is out of range; expected frames a second above 0")


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; expected 0 to 1") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected 0 to 1")
    return value


def words(text: str) -> str:
    """A text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the text is empty; expected at least one word")
    return text
