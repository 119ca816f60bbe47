"""The test scenes of the suite: held-out scenes of the synthetic world, chosen by rule and the same
everywhere.

Scene names: "single-000" … (one object) and "multi-000" … (two or three), as many of each. A scene counts
when each of its objects shows at least 40 pixels in frame 0: without a start there is nothing to ask of it.
"Pair-000" … are two-object scenes in which exactly one object changes its appearance (see
:func:`pair_scene`), and "twins-000" … the same with two objects of one colour, shape and name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.counterfactual import with_appearances, without
from benchmarks.measure import Settings
from ttm.data.synthetic import SyntheticScene, SyntheticWorld
from ttm.metrics.appearance import MIN_CONTRAST, change_contrast

MIN_PIXELS = 40
"""Of each object in frame 0."""
COUNTS = {"single": (1, 1), "multi": (2, 3), "pair": (2, 2)}
TWINS = "twins"
_SEARCH = 4000  # far more than any request needs: a guard against an endless search


@dataclass(frozen=True)
class PairScene:
    """A scene of two objects of which one changes its appearance, and what it would look like otherwise.

    Attributes:
        scene: as the world drew it.
        asked: number (0 or 1) of the object that changes.
        still: uint8 [T, H, W, 3], both objects only move.
        changed: for each object, uint8 [T, H, W, 3], this one alone changes, in the way of the scene.
        absent: for each object, uint8 [T, H, W, 3], it is not there.
    """

    scene: SyntheticScene
    asked: int
    still: NDArray[np.uint8]
    changed: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    absent: tuple[NDArray[np.uint8], NDArray[np.uint8]]


def scene_names(settings: Settings) -> list[str]:
    """The names of the suite's scenes: singles first."""
    half = settings.scenes // 2
    singles = [f"single-{number:03d}" for number in range(settings.scenes - half)]
    return singles + [f"multi-{number:03d}" for number in range(half)]


def pair_names(settings: Settings) -> list[str]:
    """The names of the two-object scenes."""
    return [f"pair-{number:03d}" for number in range(settings.local_scenes)]


def load_scene(settings: Settings, name: str) -> SyntheticScene:
    """The scene of a name."""
    kind, number = name.split("-")
    world = _world(settings.size, settings.num_frames, settings.seed, kind)
    return world[_indices(settings.size, settings.num_frames, settings.seed, kind, int(number) + 1)[int(number)]]


def pair_scene(settings: Settings, name: str) -> PairScene:
    """The two-object scene of a name.

    Chosen so that the question can be answered: the change would be visible on either object (a root mean
    square of at least ``MIN_CONTRAST``: no spinning of a flat colour, no turning green of what is green), and
    both show in frame 0.
    """
    scene = load_scene(settings, name)
    pair = as_pair(scene)
    assert pair is not None, "the index was chosen because this holds"
    return pair


def as_pair(scene: SyntheticScene) -> PairScene | None:
    """The scene with its alternatives; None when the change would not be visible on either object."""
    changing = [number for number, item in enumerate(scene.objects) if item.appearance is not None]
    if len(scene.objects) != 2 or len(changing) != 1:
        return None
    asked = changing[0]
    appearance = scene.objects[asked].appearance
    still = with_appearances(scene, (None, None))
    changed = (with_appearances(scene, (appearance, None)), with_appearances(scene, (None, appearance)))
    for number in (0, 1):
        where = scene.ids == number + 1
        if not where.any() or change_contrast(still, changed[number], where) < MIN_CONTRAST:
            return None
    return PairScene(scene, asked, still, changed, (without(scene, 0), without(scene, 1)))


def is_usable(scene: SyntheticScene) -> bool:
    """Whether every object shows in frame 0."""
    return all(np.count_nonzero(scene.ids[0] == number + 1) >= MIN_PIXELS for number in range(len(scene.objects)))


@lru_cache(maxsize=8)
def _world(size: int, num_frames: int, seed: int, kind: str) -> SyntheticWorld:
    alike = kind == TWINS
    kind = "pair" if alike else kind
    appearance: float | Literal["one"] = "one" if kind == "pair" else 0.4
    # The three kinds draw from worlds of their own: no pair is also a scene of the other measures.
    own_seed = seed * len(COUNTS) + list(COUNTS).index(kind)
    return SyntheticWorld(
        "test",
        size=size,
        num_frames=num_frames,
        num_objects=COUNTS[kind],
        appearance=appearance,
        seed=own_seed,
        alike=alike,
    )


@lru_cache(maxsize=32)
def _indices(size: int, num_frames: int, seed: int, kind: str, count: int) -> tuple[int, ...]:
    """Indices of the first ``count`` scenes of a kind that count."""
    if count > 1:
        before = _indices(size, num_frames, seed, kind, count - 1)
        return (*before, next(_usable(size, num_frames, seed, kind, before[-1] + 1)))
    return (next(_usable(size, num_frames, seed, kind, 0)),)


def _usable(size: int, num_frames: int, seed: int, kind: str, start: int) -> Iterator[int]:
    world = _world(size, num_frames, seed, kind)
    for index in range(start, start + _SEARCH):
        scene = world[index]
        if is_usable(scene) and (kind not in ("pair", TWINS) or as_pair(scene) is not None):
            yield index
    raise ValueError(f"No usable {kind} scene among {_SEARCH}; expected a world that draws some.")
