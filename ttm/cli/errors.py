"""The error that ends a command with one line and an exit code."""

from __future__ import annotations

EXIT_FAILED = 1
"""Something outside the command line is not as expected: a file, the disk, the weights."""

EXIT_USAGE = 2
"""The command line itself is wrong: an unknown option, a value out of range."""


class CommandError(Exception):
    """Ends the command; its text is the one line that the user reads.

    Attributes:
        exit_code: what the process returns; ``EXIT_FAILED`` unless told otherwise.
    """

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
