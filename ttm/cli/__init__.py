"""The command line ``ttm``: generate, plan, segment, trajectory, evaluate, doctor. It only infers; ``stages`` trains.

This module imports nothing heavy, so that ``ttm --help`` answers at once; each command imports what it needs.
"""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module

from ttm.cli.arguments import build_parser
from ttm.cli.errors import EXIT_FAILED, CommandError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after ``ttm``; None takes the process's own.

    Returns:
        0; or 1 for a failure outside the command line, 2 for a wrong command line, 130 when interrupted.
        A failure prints one line on stderr, and a traceback with ``--debug`` only.
    """
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed its line, or the help page
        return stop.code if isinstance(stop.code, int) else EXIT_FAILED
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        return int(import_module(f"ttm.cli.{arguments.command}").run(arguments))
    except KeyboardInterrupt:
        print("\nttm: stopped; nothing was written.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `ttm plan … | head`: whoever read us has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(error, arguments)


def _report(error: Exception, arguments: Namespace) -> int:
    if arguments.debug:
        traceback.print_exception(error)
    print(f"ttm {arguments.command}: error: {_one_line(error)}", file=sys.stderr)
    return error.exit_code if isinstance(error, CommandError) else EXIT_FAILED


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (CommandError, ValueError, FloatingPointError)):
        return text
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.strerror and error.filename else text
    if isinstance(error, ImportError):
        return f"{text} (is through-the-mask wholly installed? `ttm doctor` tells)"
    if type(error).__name__ == "OutOfMemoryError":
        return "The device ran out of memory; try --dtype bfloat16, or less of --num-frames, --height, --width."
    return f"{type(error).__name__}: {text} (unexpected; --debug shows where)"
