"""What the processes of a run agree on when they write a folder together."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


class Processes(Protocol):
    """The processes that write one folder; all of them call each method together."""

    is_main: bool
    main_pid: int

    def agree(self, error: Exception | None) -> None:
        """Wait for the others. If one of them has an error, raise it in all."""

    def all_say(self, value: bool) -> bool:
        """Whether every process says so."""


@contextmanager
def together(processes: Processes) -> Iterator[None]:
    """A step that each process does its part of, and that fails in all of them if it fails in one."""
    failed = None
    try:
        yield
    except Exception as error:
        failed = error
    processes.agree(failed)


class Alone:
    """One process."""

    is_main = True

    def __init__(self) -> None:
        self.main_pid = os.getpid()

    def agree(self, error: Exception | None) -> None:
        if error is not None:
            raise error

    def all_say(self, value: bool) -> bool:
        return value


class AllOf:
    """All processes of an accelerator."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.is_main = accelerator, bool(accelerator.is_main_process)
        pid = torch.tensor(os.getpid() if self.is_main else 0, device=accelerator.device)
        self.main_pid = int(accelerator.reduce(pid, "sum"))

    def agree(self, error: Exception | None) -> None:
        if self.all_say(error is None):
            return
        own = [] if error is None else [f"process {self.accelerator.process_index}: {error}"]
        said = gather_object(own)
        if error is not None:
            raise error
        raise OSError(errno.EIO, "; ".join(said))

    def all_say(self, value: bool) -> bool:
        flag = torch.tensor(int(not value), device=self.accelerator.device)
        return not int(self.accelerator.reduce(flag, "sum"))
