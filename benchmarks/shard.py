"""A run's work in equal parts, for several processes or machines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 0) of ``count`` equal parts."""

    index: int = 0
    count: int = 1

    @classmethod
    def read(cls, text: Any, environment: Mapping[str, str] | None = None) -> Shard:
        """ "k/n"; None: what accelerate, torchrun or Slurm say, else everything.

        Raises:
            ValueError: another text, or numbers out of range.
        """
        known = os.environ if environment is None else environment
        if text is None:
            for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
                if rank in known and size in known:
                    return cls(int(known[rank]), int(known[size]))
            return cls()
        first, _, second = str(text).partition("/")
        if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
            raise ValueError(f"shard is {text!r}; expected k/n, as 0/3, 1/3, 2/3.")
        return cls(int(first), int(second))

    def of(self, items: Sequence[T]) -> list[T]:
        """This part: every ``count``-th item."""
        return list(items[self.index :: self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def local_device(device: str, environment: Mapping[str, str] | None = None) -> str:
    """The device of this process: of several on one machine each takes a GPU of its own."""
    known = os.environ if environment is None else environment
    return f"cuda:{known['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in known else device
