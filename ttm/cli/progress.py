"""One bar for a whole run, with the time left; silent where nobody watches."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from tqdm import tqdm


class Progress:
    """Steps of a run on stderr, and the seconds that each stage took.

    Use it as a context manager. ``seconds`` holds every stage that has ended, by name.
    """

    def __init__(self, quiet: bool | None = None) -> None:
        self.quiet = not sys.stderr.isatty() if quiet is None else quiet
        self.seconds: dict[str, float] = {}
        self._bar: tqdm[Any] | None = None

    def expect(self, steps: int) -> None:
        """Say how many steps the whole run has; the time left is told from then on."""
        self._close()
        self._bar = tqdm(
            total=steps,
            disable=self.quiet,
            leave=False,
            unit="step",
            file=sys.stderr,
            bar_format="{desc:<22} {bar:24} {n_fmt}/{total_fmt} steps, {remaining} left",
        )

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Time what happens inside under ``name`` and show ``title`` meanwhile."""
        if self._bar is not None:
            self._bar.set_description_str(title)
        elif not self.quiet:
            print(f"{title} ...", end="\r", file=sys.stderr, flush=True)
        begin = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - begin, 3)

    def step(self, title: str) -> None:
        """One step of the run is done; ``title`` says of what."""
        if self._bar is not None:
            self._bar.set_description_str(title, refresh=False)
            self._bar.update(1)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if not self.quiet:
            print("\033[2K", end="\r", file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def hush_libraries() -> None:
    """Keep the libraries' own bars and notes off the terminal: the run has one bar. Downloads keep theirs."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    if sys.stderr.isatty() and "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
        enable_progress_bars()  # transformers switched them off with its own
