"""Plans that a language model has made before, on disk: one JSON file each, whole or absent."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttm.atomic_write import written_beside
from ttm.objects import PromptPlan

_log = logging.getLogger(__name__)


def user_cache_folder() -> Path:
    """Where plans are kept unless told otherwise: ``$XDG_CACHE_HOME`` or ``~/.cache``, below it ours."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "through-the-mask" / "plans"


class PlanCache:
    """Plans by what they depend on.

    A file that is damaged counts as absent; a folder that can't be written costs a line in the log, not the plan.

    Args:
        folder: made when the first plan is kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def load(self, key: Mapping[str, Any]) -> PromptPlan | None:
        """The plan that was kept under a key of JSON values; None if there is none."""
        try:
            stored = json.loads(self._path(key).read_text(encoding="utf-8"))
            return PromptPlan.from_dict(stored["plan"]) if stored["key"] == dict(key) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, key: Mapping[str, Any], plan: PromptPlan) -> None:
        """Keep a plan."""
        text = json.dumps({"key": dict(key), "plan": plan.to_dict()}, indent=2, ensure_ascii=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with written_beside(self._path(key)) as beside:
                beside.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            _log.warning("This plan is not kept for next time: %s", error)

    def _path(self, key: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.json"
