"""Metrics by name: what each needs, which can be had from what was handed in, and how each is built.

Networks are loaded once, however many metrics share one, and before any video is read: weights that are absent are
an error at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ttm.metrics.scoring import Metric

if TYPE_CHECKING:
    from ttm.metrics.features import KeptFeatures
    from ttm.metrics.viclip import Preparation, ViCLIPFeatures

NEEDS: dict[str, tuple[str, ...]] = {
    "fvd": ("reference set",),
    "cf-all-pairs": (),
    "cf-adjacent": (),
    "alignment": ("prompt",),
    "viclip-t": ("prompt",),
    "viclip-v": ("reference",),
    "ad": (),
    "cf-all-pairs-foreground": ("ids",),
    "cf-adjacent-foreground": ("ids",),
    "alignment-foreground": ("prompt", "ids"),
    "mask-iou": ("ids",),
}
"""Every metric, and what it needs beside the videos. FVD needs references as a set, ViCLIP-V one a video."""

OTHER_NAMES = {"consistency": "cf-adjacent", "consistency-foreground": "cf-adjacent-foreground", "cf": "cf-all-pairs"}
"""The papers' names: Consistency is the few-shot paper's CF of adjacent frames; CF is Through-The-Mask's."""

HAVE_STAND_INS = frozenset(name for name in NEEDS if name.startswith(("fvd", "cf-", "alignment", "mask-iou")))

PUBLIC_SAM2 = "facebook/sam2.1-hiera-tiny"


@dataclass(frozen=True)
class Sources:
    """Where the networks come from; None = the public weights' Hub id.

    Attributes:
        i3d: of FVD.
        clip: of CF and Alignment.
        viclip: of ViCLIP-T and ViCLIP-V.
        viclip_preparation: "internvid" or "vbench".
        raft: of AD.
        segmenter: of mask IoU: a folder of a saved Segmenter, or a Hub id of SAM 2.
        tiny: the embedded stand-ins in the place of I3D, CLIP and the segmenter.
    """

    i3d: str | None = None
    clip: str | None = None
    viclip: str | None = None
    viclip_preparation: Preparation = "internvid"
    raft: str | None = None
    segmenter: str | None = None
    tiny: bool = False

    def __post_init__(self) -> None:
        """ValueError: weights that the stand-ins would leave unread."""
        networks = ("i3d", "clip", "viclip", "raft", "segmenter")
        if self.tiny and (named := [name for name in networks if getattr(self, name) is not None]):
            raise ValueError(
                f"The tiny features bring weights of their own; expected none for {', '.join(named)} beside them."
            )


Given = Literal["reference", "prompt", "ids"]

OPTIONS: Mapping[Given, str] = {"reference": "--reference", "prompt": "--prompts", "ids": "--trajectories"}


def choose(
    asked: Sequence[str], given: Iterable[Given], tiny: bool = False, ways: Mapping[Given, str] = OPTIONS
) -> list[str]:
    """The metrics to build.

    Args:
        asked: names; empty = all that can be had from what is given.
        given: what was handed in beside the videos.
        tiny: with stand-ins alone.
        ways: how each thing is handed in, for the error.

    Raises:
        ValueError: an unknown name, one that lacks what it needs, or one without a stand-in.
    """
    have = set(given) | ({"reference set"} if "reference" in given else set())
    if not asked:
        return [name for name, needs in NEEDS.items() if set(needs) <= have and (not tiny or name in HAVE_STAND_INS)]
    chosen = list(dict.fromkeys(OTHER_NAMES.get(name.lower(), name.lower()) for name in asked))
    for name in chosen:
        if name not in NEEDS:
            raise ValueError(f"There is no metric {name!r}; expected some of {', '.join(NEEDS)}.")
        if lacking := [need for need in NEEDS[name] if need not in have]:
            known = {str(need): way for need, way in ways.items()} | {"reference set": ways["reference"]}
            missing = ", ".join(known[need] for need in lacking)
            raise ValueError(f"{name} needs {missing}.")
        if tiny and name not in HAVE_STAND_INS:
            raise ValueError(f"{name} has no stand-in features; expected some of {', '.join(sorted(HAVE_STAND_INS))}.")
    return chosen


def locate_networks(names: Iterable[str], sources: Sources) -> None:
    """The files of the networks that metrics need, found or fetched; none is opened.

    Raises:
        ValueError: weights that are absent; says which and where people get them.
    """
    from ttm.evaluation.trackers import locate_tracker
    from ttm.metrics.clip import CLIP_WEIGHTS, PUBLIC_CLIP
    from ttm.metrics.fvd import I3D_WEIGHTS, PUBLIC_I3D
    from ttm.metrics.optical_flow import RAFT_WEIGHTS, cached_raft
    from ttm.metrics.viclip import PUBLIC_VICLIP, VICLIP_WEIGHTS
    from ttm.metrics.weights import locate_weights

    for name in () if sources.tiny else names:
        if name == "fvd":
            locate_weights(sources.i3d or PUBLIC_I3D, *I3D_WEIGHTS)
        elif name.startswith("viclip"):
            locate_weights(sources.viclip or PUBLIC_VICLIP, *VICLIP_WEIGHTS)
        elif name == "ad":
            locate_weights(sources.raft or cached_raft(), *RAFT_WEIGHTS)
        elif name == "mask-iou":
            locate_tracker(sources.segmenter or PUBLIC_SAM2)
        else:
            locate_weights(sources.clip or PUBLIC_CLIP, *CLIP_WEIGHTS)


def build_metrics(names: Iterable[str], sources: Sources, device: str, cache: Path | None) -> list[Metric]:
    """Metrics of :func:`choose`, each ready to take samples.

    Args:
        names: of metrics.
        sources: of the networks.
        device: where they run.
        cache: the folder of kept features; None = none are kept.

    Raises:
        ValueError: weights that are absent or not the expected ones; says which and where people get them.
    """
    networks = _Networks(sources, device, cache)
    return [networks.metric(name) for name in names]


class _Networks:
    """Each network, loaded when the first metric asks for it."""

    def __init__(self, sources: Sources, device: str, cache: Path | None) -> None:
        self._sources, self._device, self._cache = sources, device, cache

    def metric(self, name: str) -> Metric:
        makers: dict[str, Callable[[], Metric]] = {
            "fvd": self._fvd,
            "viclip-t": lambda: self._viclip_metric("ViCLIPText"),
            "viclip-v": lambda: self._viclip_metric("ViCLIPVideo"),
            "ad": self._ad,
            "mask-iou": self._mask_iou,
        }
        return makers[name]() if name in makers else self._of_frames(name)

    def _kept(self, features: Any) -> KeptFeatures:
        from ttm.metrics.features import KeptFeatures

        return KeptFeatures(features, self._cache)

    def _fvd(self) -> Metric:
        from ttm.metrics.fvd import FVD, PUBLIC_I3D, I3DFeatures

        if self._sources.tiny:
            from ttm.evaluation.video_encoder import TinyVideoFeatures

            network = TinyVideoFeatures(self._device)
            return FVD(self._kept(network), "FVD-tiny", enough=2 * network.width, least_frames=2)
        return FVD(self._kept(I3DFeatures(self._sources.i3d or PUBLIC_I3D, self._device)))

    def _ad(self) -> Metric:
        from ttm.metrics.optical_flow import AverageDisplacement, FlowMagnitude, RaftFlow

        return AverageDisplacement(self._kept(FlowMagnitude(RaftFlow.load(self._sources.raft, self._device))))

    def _viclip_metric(self, kind: str) -> Metric:
        from ttm.metrics import viclip

        network, kept = self._viclip
        metric: Metric = getattr(viclip, kind)(kept, network)
        return metric

    def _of_frames(self, name: str) -> Metric:
        from ttm.metrics.clip import Alignment, FrameConsistency

        network, kept = self._clip
        suffix = "-tiny" if self._sources.tiny else ""
        foreground = name.endswith("-foreground")
        if name.startswith("alignment"):
            return Alignment(kept, network, foreground, suffix)
        return FrameConsistency(kept, "adjacent" if "adjacent" in name else "all pairs", foreground, suffix)

    def _mask_iou(self) -> Metric:
        from ttm.metrics.followed_masks import FollowedMaskIoU

        if self._sources.tiny:
            segmenter, weights = self._tiny
            return FollowedMaskIoU(segmenter.to(self._device), weights, "-tiny")
        from ttm.evaluation.trackers import load_tracker

        return FollowedMaskIoU(*load_tracker(self._sources.segmenter or PUBLIC_SAM2, self._device))

    @cached_property
    def _viclip(self) -> tuple[ViCLIPFeatures, KeptFeatures]:
        from ttm.metrics.viclip import PUBLIC_VICLIP, ViCLIPFeatures

        source = self._sources.viclip or PUBLIC_VICLIP
        network = ViCLIPFeatures(source, self._sources.viclip_preparation, self._device)
        return network, self._kept(network)

    @cached_property
    def _clip(self) -> tuple[Any, KeptFeatures]:
        if self._sources.tiny:
            from ttm.evaluation.tiny_features import TinyClipFeatures

            network: Any = TinyClipFeatures(*self._tiny, self._device)
        else:
            from ttm.metrics.clip import PUBLIC_CLIP, ClipFeatures

            network = ClipFeatures(self._sources.clip or PUBLIC_CLIP, self._device)
        return network, self._kept(network)

    @cached_property
    def _tiny(self) -> tuple[Any, dict[str, Any]]:
        from ttm.evaluation.tiny_features import tiny_segmenter

        return tiny_segmenter()
