"""AD, the average displacement: how far pixels move from a frame to the next, by RAFT (Teed and Deng 2020).

torchvision's RAFT-large, the last of its 12 updates; the length of the flow vector, mean over pixels, pairs of
adjacent frames, and videos. In pixels of the video as it is, so videos of different sizes or frame rates do not
compare, and neither higher nor lower is better.

Letters: B pairs, T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from ttm.metrics.features import Features
from ttm.metrics.scoring import Clip, Direction, MeanOverVideos, Need, Problem, Sample
from ttm.metrics.weights import find_weights

PUBLIC_RAFT = "torchvision's Raft_Large_Weights.C_T_SKHT_V2"
RAFT_FILE = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
RAFT_WEIGHTS = ([RAFT_FILE], "AD", PUBLIC_RAFT)
STRIDE = 8
LEAST_SIDE = 128
UPDATES = 12
PIXELS_AT_ONCE = 8 * 256 * 256
"""Of all pairs in one batch; RAFT compares every place with every other, so memory grows with the square."""


class FlowEstimator(Protocol):
    """Optical flow between pictures, and what :class:`ttm.metrics.features.Features` says of itself."""

    @property
    def convention(self) -> Mapping[str, Any]:
        """Every choice that the flow depends on."""
        ...

    @property
    def weights(self) -> Mapping[str, Any]:
        """Source and hash."""
        ...

    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """Pictures uint8 [B, 3, H, W] -> flow float32 [B, 2, H, W]: (x, y) in pixels, from first to second."""
        ...


class RaftFlow:
    """RAFT, on pictures of any size.

    A picture whose shorter side is below 128 is enlarged until it is not; then its last row and column are repeated
    until both sides divide by 8. The flow comes back cut to the picture and in the picture's own pixels.

    Args:
        network: pictures [-1, 1] [B, 3, H, W] twice -> a list of flows, the last the best.
        weights: what the network was loaded from.
        device: where it runs.
    """

    def __init__(self, network: nn.Module, weights: Mapping[str, Any], device: str = "cpu") -> None:
        self._network, self._device = network.eval().to(device), device
        self.weights = weights
        self.convention: dict[str, Any] = {
            "flow": f"torchvision RAFT-large, the last of {UPDATES} updates",
            "pixels": f"[-1, 1]; enlarged to a shorter side of {LEAST_SIDE} where below, edges repeated to sides that"
            f" divide by {STRIDE}; flow in pixels of the video as it is",
        }

    @classmethod
    def load(cls, source: str | Path | None = None, device: str = "cpu") -> RaftFlow:
        """With public weights.

        Args:
            source: a file of RAFT-large (.pth or .safetensors) or a folder that holds torchvision's; None = the file in
                torch's own cache, downloaded by torchvision where it is not there.
            device: where it runs.

        Raises:
            ValueError: no such file, or other weights.
        """
        from torchvision.models.optical_flow import raft_large

        found = find_weights(source or cached_raft(), *RAFT_WEIGHTS)
        network = raft_large(weights=None, progress=False)
        try:
            network.load_state_dict(_state(found.files[0]), strict=True)
        except Exception as error:  # torch raises RuntimeError, pickle errors and more for other files
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"AD: {found.files[0]} holds other weights ({reason}); expected {PUBLIC_RAFT}.") from error
        return cls(network, found.to_dict(), device)

    @torch.inference_mode()
    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """See :class:`FlowEstimator`."""
        height, width = first.shape[-2:]
        flow = self._network(self._prepare(first), self._prepare(second), num_flow_updates=UPDATES)[-1]
        tall, wide = enlarged_size(height, width)
        flow = flow[..., :tall, :wide].float()
        if (tall, wide) != (height, width):
            flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
        return flow * rearrange(flow.new_tensor([width / wide, height / tall]), "c -> 1 c 1 1")

    def _prepare(self, pictures: Tensor) -> Tensor:
        pixels = pictures.to(self._device).float() / 127.5 - 1
        tall, wide = enlarged_size(*pixels.shape[-2:])
        if (tall, wide) != tuple(pixels.shape[-2:]):
            pixels = F.interpolate(pixels, size=(tall, wide), mode="bilinear", align_corners=False)
        return F.pad(pixels, (0, -wide % STRIDE, 0, -tall % STRIDE), mode="replicate")


def enlarged_size(height: int, width: int) -> tuple[int, int]:
    """The size at which the shorter side is at least 128, the aspect ratio kept to the pixel."""
    scale = max(1.0, LEAST_SIDE / min(height, width))
    return round(height * scale), round(width * scale)


class FlowMagnitude:
    """The mean length of the flow of every two adjacent frames, as features [T - 1] of a clip.

    Args:
        estimator: of the flow.
    """

    def __init__(self, estimator: FlowEstimator) -> None:
        self._estimator = estimator
        self.convention = {**estimator.convention, "reduction": "length of the vector, mean over pixels"}
        self.weights = estimator.weights

    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """See :class:`ttm.metrics.features.Features`."""
        return [np.concatenate(list(self._lengths(clip))) for clip in clips]

    def _lengths(self, clip: Clip) -> Iterator[NDArray[np.float32]]:
        frames = rearrange(torch.from_numpy(np.ascontiguousarray(clip.frames)), "t h w c -> t c h w")
        at_once = max(1, PIXELS_AT_ONCE // (clip.size[0] * clip.size[1]))
        for begin in range(0, clip.num_frames - 1, at_once):
            end = min(begin + at_once, clip.num_frames - 1)
            flow = self._estimator.flow(frames[begin:end], frames[begin + 1 : end + 1])
            yield flow.double().norm(dim=1).mean(dim=(1, 2)).cpu().numpy().astype(np.float32)


class AverageDisplacement(MeanOverVideos):
    """AD: the mean over pairs of adjacent frames of :class:`FlowMagnitude`.

    Args:
        features: [T - 1] a clip.
    """

    name = "AD"
    needs: frozenset[Need] = frozenset({"video"})
    better: Direction = "neither"

    def __init__(self, features: Features) -> None:
        super().__init__()
        self._features = features
        self._forms: set[tuple[tuple[int, int], str]] = set()

    def fault(self, sample: Sample) -> str | None:
        """One frame."""
        assert sample.video is not None
        return "1 frame; at least 2 needed" if sample.video.num_frames < 2 else None

    def measure(self, samples: Sequence[Sample]) -> list[float | Problem]:
        """See :class:`MeanOverVideos`."""
        clips = [sample.video for sample in samples if sample.video is not None]
        self._forms |= {(clip.size, f"{clip.fps:.4g}") for clip in clips}
        return [float(lengths.astype(np.float64).mean()) for lengths in self._features.extract(clips)]

    def describe(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """See :class:`MeanOverVideos`."""
        return {**self._features.convention, "over pairs": "adjacent frames, mean"}, self._features.weights

    def warnings(self) -> tuple[str, ...]:
        """Sizes or frame rates that do not compare."""
        if len(self._forms) < 2:
            return ()
        return (f"the videos have {len(self._forms)} different sizes or frame rates; pixels a frame do not compare",)


def cached_raft() -> Path:
    """torchvision's file in torch's cache, downloaded by torchvision where it is not there yet."""
    from torchvision.models.optical_flow import Raft_Large_Weights

    path = Path(torch.hub.get_dir()) / "checkpoints" / RAFT_FILE
    if not path.is_file():
        try:
            Raft_Large_Weights.C_T_SKHT_V2.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError):  # no network: find_weights says which file is missing
            return Path(RAFT_FILE)
    return path


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    return dict(torch.load(path, map_location="cpu", weights_only=True))
