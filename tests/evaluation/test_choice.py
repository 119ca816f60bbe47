"""Which metrics can be had, and that absent weights are told before any video is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.metrics.clips import noise_clip
from ttm.evaluation.choice import HAVE_STAND_INS, NEEDS, Sources, build_metrics, choose, locate_networks
from ttm.metrics.scoring import Clip, Sample


def test_all_that_can_be_had_are_taken() -> None:
    assert choose([], []) == ["cf-all-pairs", "cf-adjacent", "ad"]
    assert choose([], ["prompt"]) == ["cf-all-pairs", "cf-adjacent", "alignment", "viclip-t", "ad"]
    assert set(choose([], ["prompt", "reference", "ids"])) == set(NEEDS)
    assert choose([], ["prompt", "reference"], tiny=True) == ["fvd", "cf-all-pairs", "cf-adjacent", "alignment"]


def test_names_are_the_papers_too() -> None:
    assert choose(["Consistency", "cf-adjacent", "CF", "AD"], []) == ["cf-adjacent", "cf-all-pairs", "ad"]
    for asked, given, tiny, said in (
        (["fid"], [], False, "no metric 'fid'; expected some of fvd"),
        (["fvd"], ["prompt"], False, "fvd needs --reference"),
        (["alignment-foreground"], [], False, "needs --prompts, --trajectories"),
        (["ad"], ["reference"], True, "ad has no stand-in"),
    ):
        with pytest.raises(ValueError, match=said):
            choose(asked, given, tiny)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "field", "said"),
    [
        ("fvd", "i3d", r"FVD: .*i3d_torchscript\.pt"),
        ("cf-adjacent", "clip", r"CLIP: .*openai/clip-vit-large-patch14"),
        ("alignment", "clip", r"CLIP: .*openai/clip-vit-large-patch14"),
        ("viclip-t", "viclip", r"ViCLIP: .*OpenGVLab/ViCLIP-L-14-hf"),
        ("viclip-v", "viclip", r"ViCLIP: .*OpenGVLab/ViCLIP-L-14-hf"),
        ("ad", "raft", r"AD: .*Raft_Large_Weights"),
        ("mask-iou", "segmenter", r"mask IoU: .*diffusion_pytorch_model\.safetensors"),
    ],
)
def test_weights_that_are_absent_say_which(tmp_path: Path, name: str, field: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_metrics([name], Sources(**{field: str(tmp_path)}), "cpu", None)
    with pytest.raises(ValueError, match=said):
        locate_networks([name], Sources(**{field: str(tmp_path)}))


def test_weights_are_located_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "i3d.pt").write_bytes(b"no network")
    sources = Sources(i3d=str(tmp_path / "i3d.pt"), clip=str(tmp_path / "nowhere"))
    locate_networks(["fvd"], sources)
    with pytest.raises(ValueError, match="no TorchScript"):
        build_metrics(["fvd"], sources, "cpu", None)
    with pytest.raises(ValueError, match="CLIP: there is no"):
        locate_networks(["fvd", "cf-adjacent"], sources)
    locate_networks(["fvd", "cf-adjacent"], Sources(tiny=True))


def test_weights_that_stand_ins_would_leave_unread_are_refused() -> None:
    with pytest.raises(ValueError, match="expected none for clip, segmenter beside them"):
        Sources(clip="here", segmenter="there", tiny=True)


def test_stand_ins_are_named_as_such(tmp_path: Path) -> None:
    """The embedded CLIP and tracker, end to end on one clip; every column ends in -tiny."""
    metrics = build_metrics(sorted(HAVE_STAND_INS - {"fvd"}), Sources(tiny=True), "cpu", tmp_path)
    assert all(metric.name.endswith("-tiny") for metric in metrics)
    ids = np.zeros((3, 64, 64), np.uint8)
    ids[:, 16:48, 16:48] = 1
    sample = Sample("x", noise_clip(0, frames=3, size=(64, 64)), prompt="red ball", ids=ids)
    for metric in metrics:
        (score,) = metric.add([sample])
        assert isinstance(score, float) and -1 <= score <= 1
        figure = metric.figure()
        assert figure.metric == metric.name and figure.weights["source"] == "ttm-tiny/segmenter"
        assert metric.name.startswith("mask") or "STAND-IN" in figure.convention["features"]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2, "the clip and its foreground, once each for six metrics"


def test_fvd_tiny_tells_still_from_moving_and_is_zero_for_equal_sets() -> None:
    """Twelve drifting pictures against themselves, and against themselves standing still."""
    moving = [drifting(seed, step=3) for seed in range(12)]
    still = [drifting(seed, step=0) for seed in range(12)]
    values = []
    for references in (moving, still):
        (metric,) = build_metrics(["fvd"], Sources(tiny=True), "cpu", None)
        metric.add([Sample(f"{n}", *pair) for n, pair in enumerate(zip(moving, references, strict=True))])
        figure = metric.figure()
        assert figure.metric == "FVD-tiny" and figure.value is not None
        assert "12 videos: below 128" in figure.warnings[0] and len(figure.warnings) == 2
        values.append(figure.value)
    assert values[0] < 1e-6 < 1e-3 < values[1]


def drifting(seed: int, step: int) -> Clip:
    """Blocks of colours that drift by ``step`` pixels a frame, 10 frames."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    picture = np.kron(blocks, np.ones((16, 16, 1), np.uint8))
    return Clip(np.stack([np.roll(picture, step * t, axis=1) for t in range(10)]), 8.0)
