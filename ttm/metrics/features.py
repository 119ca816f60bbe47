"""Features of clips, kept by content: a clip that was seen once is never run through the same network again.

Letters: T frames, D features.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ttm.atomic_write import written_beside
from ttm.metrics.scoring import Clip

_NAME = "features"
_log = logging.getLogger(__name__)


class Features(Protocol):
    """A network, with its way of preparing clips."""

    @property
    def convention(self) -> Mapping[str, Any]:
        """Every choice that the features depend on, as plain JSON values."""
        ...

    @property
    def weights(self) -> Mapping[str, Any]:
        """Source and hash of what the network was loaded from, as plain JSON values."""
        ...

    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """One array a clip: float32 [D], or [T, D] where the features are of single frames."""
        ...


class KeptFeatures:
    """Features, remembered for the clips at hand and kept on the disk for later runs.

    Several metrics of one network share an instance, so that each clip passes through the network once. A file's
    name is a hash of the frames, the convention and the weights; features that are not finite are not kept. A folder
    that can't be written costs a line in the log, not the features.

    Args:
        features: what to keep.
        folder: where; None = in memory alone.
        at_hand: clips whose features stay in memory.
    """

    def __init__(self, features: Features, folder: Path | None, at_hand: int = 64) -> None:
        self.convention, self.weights = features.convention, features.weights
        self._features, self._folder, self._at_hand = features, folder, at_hand
        self._memory: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._told = False

    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """See :class:`Features`."""
        keys = [self._key(clip) for clip in clips]
        kept = {key: self._look_up(key) for key in keys}
        found = {key: value for key, value in kept.items() if value is not None}
        new = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in found}
        if new:
            for key, value in zip(new, self._features.extract(list(new.values())), strict=True):
                found[key] = value
                self._keep(key, value)
        for key in keys:
            self._memory[key] = found[key]
            self._memory.move_to_end(key)
        while len(self._memory) > self._at_hand:
            self._memory.popitem(last=False)
        return [found[key] for key in keys]

    def _key(self, clip: Clip) -> str:
        said = json.dumps([clip.digest, dict(self.convention), dict(self.weights)], sort_keys=True)
        return hashlib.blake2b(said.encode(), digest_size=20).hexdigest()

    def _path(self, key: str) -> Path | None:
        return None if self._folder is None else self._folder / key[:2] / f"{key}.safetensors"

    def _look_up(self, key: str) -> NDArray[np.float32] | None:
        if key in self._memory:
            return self._memory[key]
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            return np.asarray(load_file(path)[_NAME], np.float32)
        except (SafetensorError, OSError, KeyError, ValueError):  # a damaged file costs one computation, no more
            return None

    def _keep(self, key: str, value: NDArray[np.float32]) -> None:
        path = self._path(key)
        if path is None or not np.isfinite(value).all():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_beside(path) as beside:
                save_file({_NAME: np.ascontiguousarray(value)}, beside)
        except (OSError, SafetensorError) as error:
            if not self._told:
                _log.warning("Features are not kept for next time: %s", error)
            self._told = True
