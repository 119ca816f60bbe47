"""FVD: the published preprocessing at its edges, a TorchScript network loaded for real, and FVD's rules for sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from tests.metrics.clips import Broken, MeanColour, noise_clip
from ttm.metrics.frechet import GaussianStatistics, frechet_distance
from ttm.metrics.fvd import FVD, I3DFeatures, i3d_pixels
from ttm.metrics.scoring import Clip, Problem, Sample


class ScriptedI3D(nn.Module):
    """The published file's way of being called; its logits are 400 fixed sums of the pixels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mix", torch.randn(6, 400, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        """[B, 3, T, 224, 224] -> [B, 400]."""
        if rescale or resize or not return_features:
            raise RuntimeError("called otherwise than the published convention says")
        means = torch.cat([x.mean(dim=[2, 3, 4]), x.std(dim=[2, 3, 4])], dim=1)
        return means @ self.mix


@pytest.fixture(scope="module")
def i3d_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "i3d_torchscript.pt"
    torch.jit.script(ScriptedI3D()).save(str(path))
    return path


def test_a_frame_of_the_right_size_is_only_rescaled() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    expected = frames.astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(i3d_pixels(frames).numpy(), expected.transpose(3, 0, 1, 2), atol=1e-6)


@pytest.mark.parametrize("size", [(224, 400), (400, 224), (225, 224), (100, 333), (333, 101), (1, 3), (512, 512)])
def test_any_size_becomes_224_and_keeps_its_centre(size: tuple[int, int]) -> None:
    """A picture that is symmetric left to right and top to bottom stays so, up to the pixel that rounding takes."""
    height, width = size
    y, x = np.abs(np.linspace(-1, 1, height)), np.abs(np.linspace(-1, 1, width))
    frame = (127 * (y[:, None] + x[None, :])).astype(np.uint8)
    pixels = i3d_pixels(np.repeat(frame[None, ..., None], 3, axis=-1))
    assert pixels.shape == (3, 1, 224, 224)
    assert -1.000001 <= float(pixels.min()) and float(pixels.max()) <= 1.000001
    step = 2 / min(size) + 0.02
    assert float((pixels - pixels.flip(-1)).abs().max()) <= 2 * step
    assert float((pixels - pixels.flip(-2)).abs().max()) <= 2 * step


def test_the_longer_side_is_cut_evenly_and_not_squashed() -> None:
    frames = np.zeros((1, 224, 448, 3), np.uint8)
    frames[:, :, 112:336] = 255
    assert float(i3d_pixels(frames).min()) == pytest.approx(1.0)
    frames[:, :, 112] = 0
    pixels = i3d_pixels(frames)
    assert float(pixels[..., 0].max()) == pytest.approx(-1) and float(pixels[..., 1:].min()) == pytest.approx(1)


def test_the_torchscript_file_is_called_as_published(i3d_file: Path) -> None:
    clips = [noise_clip(0, frames=10), noise_clip(1, frames=12), noise_clip(2, frames=10)]
    together = I3DFeatures(i3d_file).extract(clips)
    assert [feature.shape for feature in together] == [(400,)] * 3
    for clip, feature in zip(clips, together, strict=True):
        expected = ScriptedI3D()(i3d_pixels(clip.frames)[None], False, False, True)[0].numpy()
        np.testing.assert_allclose(feature, expected, atol=1e-4)
    assert I3DFeatures(i3d_file).extract([]) == []


def test_weights_that_are_absent_say_which_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ValueError, match=r"(?s)FVD: .*i3d_torchscript\.pt.*flateon/FVD-I3D-torchscript"):
            I3DFeatures(source)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="i3d_torchscript.pt of 'nobody/nothing' is not on this machine"):
        I3DFeatures("nobody/nothing")
    (tmp_path / "i3d_torchscript.pt").write_bytes(b"no script")
    with pytest.raises(ValueError, match="is no TorchScript"):
        I3DFeatures(tmp_path)


def _feed(metric: FVD, videos: Sequence[Clip], references: Sequence[Clip]) -> None:
    for n, clip in enumerate(videos):
        assert metric.add([Sample(f"v{n}", clip)]) == [None]
    assert metric.add([Sample(f"r{n}", reference=clip) for n, clip in enumerate(references)]) == [None] * len(
        references
    )


def test_it_is_the_frechet_distance_of_the_two_sets() -> None:
    videos, references = [noise_clip(n) for n in range(6)], [noise_clip(n) for n in range(20, 28)]
    metric = FVD(MeanColour())
    _feed(metric, videos, references)
    sets = [np.stack(MeanColour().extract(clips)) for clips in (videos, references)]
    figure = metric.figure()
    assert figure.value == pytest.approx(frechet_distance(*map(GaussianStatistics.of, sets)), rel=1e-9)
    assert figure.num_videos == 6 and figure.convention["references"] == 8
    assert figure.interval is not None and figure.interval.low <= figure.value <= figure.interval.high
    assert any("6 videos: below 400" in warning for warning in figure.warnings)
    assert any("8 references: below 400" in warning for warning in figure.warnings)


def test_equal_sets_are_at_zero_whatever_their_order() -> None:
    clips = [noise_clip(n) for n in range(5)]
    metric = FVD(MeanColour())
    _feed(metric, clips, clips[::-1])
    value = metric.figure().value
    assert value is not None and value < 1e-8


def test_a_network_that_is_not_the_published_file_is_warned_of(i3d_file: Path) -> None:
    metric = FVD(I3DFeatures(i3d_file))
    assert "the I3D file is not the published one (its hash differs)" in metric.figure().warnings


def test_what_does_not_belong_is_a_problem_and_not_in_the_sets() -> None:
    metric = FVD(Broken())
    black = Clip(np.zeros((12, 8, 8, 3), np.uint8), 8.0)
    odd = [noise_clip(1, frames=9), noise_clip(2, frames=13), noise_clip(3, fps=24.0), black]
    scores = metric.add([Sample(f"{n}", clip) for n, clip in enumerate([noise_clip(0), *odd])])
    reasons = [score.reason for score in scores if isinstance(score, Problem)]
    assert scores[0] is None and len(reasons) == 4
    for reason, said in zip(reasons, ("at least 10", "13 frames", "at 24 a second", "not finite"), strict=True):
        assert said in reason
    figure = metric.figure()
    assert figure.value is None and figure.interval is None and figure.num_videos == 1
