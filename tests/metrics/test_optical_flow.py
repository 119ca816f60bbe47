"""AD: exact on injected flow; RAFT with random weights at any size, its flow in the video's own pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.optical_flow import raft_large

from tests.metrics.clips import noise_clip
from ttm.metrics import optical_flow
from ttm.metrics.optical_flow import AverageDisplacement, FlowMagnitude, RaftFlow, enlarged_size
from ttm.metrics.scoring import Clip, Problem, Sample


class KnownFlow:
    """The flow from frame t is (3t, 4t) on the left half and nothing on the right; t is the frame's red value."""

    convention = {"flow": "known"}
    weights: dict[str, object] = {}

    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """See FlowEstimator."""
        assert first.dtype == torch.uint8 and first.shape == second.shape
        t = first[:, :1].float()
        assert torch.equal(second[:, :1].float(), t + 1), "adjacent frames, in order"
        flow = torch.cat([3 * t, 4 * t], dim=1)
        flow[..., flow.shape[-1] // 2 :] = 0
        return flow


@pytest.mark.parametrize("pixels_at_once", [1, 300, 10**6])  # one pair a batch, two, all
def test_the_reduction_is_exact(pixels_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optical_flow, "PIXELS_AT_ONCE", pixels_at_once)
    frames = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (6, 8, 16, 3)).copy()
    (lengths,) = FlowMagnitude(KnownFlow()).extract([Clip(frames, 8.0)])
    np.testing.assert_allclose(lengths, 5 * np.arange(5) / 2)
    metric = AverageDisplacement(FlowMagnitude(KnownFlow()))
    assert metric.add([Sample("x", Clip(frames, 8.0))]) == [pytest.approx(5.0)]
    assert metric.add([Sample("y", Clip(frames[:2], 8.0))]) == [pytest.approx(0.0)]
    assert metric.figure().value == pytest.approx(2.5) and metric.figure().better == "neither"
    assert metric.add([Sample("z", Clip(frames[:1], 8.0))]) == [Problem("1 frame; at least 2 needed")]
    assert metric.figure().warnings == ()
    metric.add([Sample("slow", Clip(frames, 4.0))])
    assert "2 different sizes or frame rates" in metric.figure().warnings[0]


class OnePixel(nn.Module):
    """A network that sees the flow (1, 2) everywhere, in the pixels that it is given; keeps what it was given."""

    def forward(self, first: Tensor, second: Tensor, num_flow_updates: int) -> list[Tensor]:
        """As torchvision's RAFT."""
        self.seen = first
        flow = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(len(first), 2, *first.shape[-2:])
        return [flow * 0] * (num_flow_updates - 1) + [flow]


@pytest.mark.parametrize(
    ("size", "shown", "enlarged"),
    [
        ((128, 128), (128, 128), (128, 128)),
        ((130, 201), (136, 208), (130, 201)),  # padded, not stretched
        ((64, 96), (128, 192), (128, 192)),  # enlarged twice
        ((50, 333), (128, 856), (128, 852)),  # enlarged, then padded
        ((1, 1), (128, 128), (128, 128)),
    ],
)
def test_any_size_is_seen_by_raft_s_rules_and_told_in_its_own_pixels(
    size: tuple[int, int], shown: tuple[int, int], enlarged: tuple[int, int]
) -> None:
    network = OnePixel()
    picture = torch.full((2, 3, *size), 255, dtype=torch.uint8)
    flow = RaftFlow(network, {}).flow(picture, picture)
    assert enlarged_size(*size) == enlarged
    assert network.seen.shape == (2, 3, *shown)
    np.testing.assert_allclose(network.seen.numpy(), 1.0, atol=1e-6, err_msg="edges repeated, [-1, 1]")
    assert flow.shape == (2, 2, *size)
    np.testing.assert_allclose(flow[:, 0].numpy(), size[1] / enlarged[1], rtol=1e-6)
    np.testing.assert_allclose(flow[:, 1].numpy(), 2 * size[0] / enlarged[0], rtol=1e-6)


@pytest.fixture(scope="module")
def raft_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft.safetensors"
    save_file(raft_large(weights=None).state_dict(), path)
    return path


def test_raft_large_loads_and_sees_what_torchvision_s_does(raft_file: Path, tmp_path: Path) -> None:
    """Random weights: the layout of both pictures, the last update, no change of scale where none is needed."""
    clip = noise_clip(0, frames=2, size=(128, 136))
    pictures = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    flow = RaftFlow.load(raft_file).flow(pictures[:1], pictures[1:])
    torch.manual_seed(0)
    network = raft_large(weights=None).eval()
    with torch.no_grad():
        expected = network(pictures[:1] / 127.5 - 1, pictures[1:] / 127.5 - 1)[11]
    np.testing.assert_allclose(flow.numpy(), expected.numpy(), atol=1e-4)
    assert RaftFlow.load(raft_file).weights["source"] == "raft.safetensors"


def test_weights_that_are_absent_or_others_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"AD: .*raft_large_C_T_SKHT_V2-ff5fadd5\.pth.*Raft_Large_Weights"):
        RaftFlow.load(tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "other.pth").write_bytes(b"no weights")
    for name in ("other.safetensors", "other.pth"):
        with pytest.raises(ValueError, match="AD: .* holds other weights"):
            RaftFlow.load(tmp_path / name)
