"""Figures over motion checks, shared by the measures of stage 1 and of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measure import Figure, share_figure
from ttm.data.synthetic import SyntheticScene
from ttm.metrics.displacement import DIRECTIONS, check_motion
from ttm.motion.mask_trajectory import MaskTrajectory

DIRECTED = (*DIRECTIONS, "stays")
"""The motions whose direction counts."""


def check_scene(ids: Any, scene: SyntheticScene) -> list[dict[str, Any]]:
    """One check for each object of the scene, as plain values."""
    return [
        check_motion(ids, scene.ids, number, item.motion).to_dict()
        for number, item in enumerate(scene.objects, start=1)
    ]


def lost_scene(scene: SyntheticScene) -> list[dict[str, Any]]:
    """The checks of a scene where nothing came out: every object lost."""
    return check_scene(MaskTrajectory(scene.ids * 0).ids, scene)


def directed(checks: Sequence[dict[str, Any]]) -> list[bool]:
    """Whether each object whose direction counts went right."""
    return [check["right"] for check in checks if check["motion"] in DIRECTED]


def by_motion(checks: Sequence[dict[str, Any]], motions: Sequence[str]) -> list[Figure]:
    """One line for each motion."""
    return [share_figure(f"  {motion}", [c["right"] for c in checks if c["motion"] == motion]) for motion in motions]
