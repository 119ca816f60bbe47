"""Fréchet Video Distance (Unterthiner et al. 2018) by the convention of StyleGAN-V: its TorchScript I3D, 400 logits.

Every video at its full length, as [-1, 1], shorter side to 224 (bilinear), centre crop. Values by other conventions
(a squashed frame, another I3D, another number of frames) do not compare. With fewer videos than features the
covariance is rank-deficient, so N stands beside every value and is warned of below 400.

Letters: B videos, T frames, H W pixels, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ttm.metrics.bootstrap import NORMAL_QUANTILE, Interval, draws
from ttm.metrics.features import Features
from ttm.metrics.frechet import GaussianStatistics, frechet_distance, frechet_distance_of_samples
from ttm.metrics.scoring import Clip, Figure, Need, Problem, Sample, Score
from ttm.metrics.weights import find_weights

SIDE = 224
LEAST_FRAMES = 10
"""I3D halves the frames three times and then pools two: fewer leave nothing to pool."""
ENOUGH_VIDEOS = 400
I3D_FILE = "i3d_torchscript.pt"
PUBLIC_I3D = "flateon/FVD-I3D-torchscript"
I3D_WEIGHTS = ([I3D_FILE], "FVD", f"the Hub's {PUBLIC_I3D}")
PUBLISHED_SHA256 = "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2"
"""Of the file that StyleGAN-V published."""
RESAMPLES = 50


def i3d_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """Frames as I3D takes them.

    The shorter side becomes 224, the other is rounded up; bilinear, without smoothing, then the centre.

    Args:
        frames: uint8 [T, H, W, 3].

    Returns:
        float32 [3, T, 224, 224] in [-1, 1].
    """
    pixels = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w").float() / 127.5 - 1
    height, width = pixels.shape[-2:]
    scale = SIDE / min(height, width)
    size = (SIDE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), SIDE)
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    part = pixels[..., top : top + SIDE, left : left + SIDE]
    return rearrange(part, "t c h w -> c t h w")


class I3DFeatures:
    """The TorchScript I3D that StyleGAN-V published, from a file or a Hub id; 400 logits a video.

    Args:
        source: ``i3d_torchscript.pt``, a folder that holds it, or a Hub id.
        device: where it runs.

    Raises:
        ValueError: no such file, or no TorchScript of that kind.
    """

    def __init__(self, source: str | Path = PUBLIC_I3D, device: str = "cpu") -> None:
        found = find_weights(source, *I3D_WEIGHTS)
        try:
            self._network = torch.jit.load(str(found.files[0]), map_location=device).eval()
        except (RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0][:120]
            raise ValueError(
                f"FVD: {found.files[0]} is no TorchScript file ({reason}); expected {I3D_FILE}."
            ) from error
        self._device = device
        self.weights = found.to_dict()
        self.convention: dict[str, Any] = {
            "features": "StyleGAN-V TorchScript I3D, 400 logits, rescale=False, resize=False",
            "frames": "all",
            "pixels": "[-1, 1], shorter side to 224 bilinear without smoothing, centre crop",
        }

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """Float32 [400] a clip; clips of one length pass through together."""
        found: dict[int, NDArray[np.float32]] = {}
        lengths = sorted({clip.num_frames for clip in clips})
        for length in lengths:
            places = [place for place, clip in enumerate(clips) if clip.num_frames == length]
            batch = torch.stack([i3d_pixels(clips[place].frames) for place in places]).to(self._device)
            logits = self._network(batch, rescale=False, resize=False, return_features=True)
            found.update(zip(places, logits.float().cpu().numpy(), strict=True))
        return [found[place] for place in range(len(clips))]


class FVD:
    """The distance between the videos and the references, as sets: pairs and order do not matter.

    All videos of both sets must have one length and one frame rate. Statistics stream in float64; the features
    themselves (D numbers a video) are kept for the interval alone.

    Args:
        features: of clips, [D] each.
        name: of the column.
        enough: videos below which a warning is given; the number of features, below which covariances lack rank.
        least_frames: below which a video can't be measured.
        resamples: for the interval.
    """

    needs: frozenset[Need] = frozenset({"video", "reference"})

    def __init__(
        self,
        features: Features,
        name: str = "FVD",
        enough: int = ENOUGH_VIDEOS,
        least_frames: int = LEAST_FRAMES,
        resamples: int = RESAMPLES,
    ) -> None:
        self.name, self._enough, self._least_frames = name, enough, least_frames
        self._features, self._resamples = features, resamples
        self._kept: dict[str, list[NDArray[np.float32]]] = {"video": [], "reference": []}
        self._statistics: dict[str, GaussianStatistics] = {}
        self._form: tuple[int, str] | None = None

    def add(self, samples: Sequence[Sample]) -> list[Score]:
        """Take a batch. A sample may lack either side; it has no value of its own, so its score is None."""
        scores: list[Score] = [None] * len(samples)
        for side in ("video", "reference"):
            clips: list[tuple[int, Clip]] = []
            for place, sample in enumerate(samples):
                clip = getattr(sample, side)
                fault = None if clip is None else self._fault(clip)
                if fault is not None:
                    scores[place] = Problem(f"{side}: {fault}")
                elif clip is not None:
                    clips.append((place, clip))
            for (place, _), feature in zip(clips, self._features.extract([clip for _, clip in clips]), strict=True):
                if np.isfinite(feature).all():
                    self._take(side, feature)
                else:
                    scores[place] = Problem(f"{side}: the features are not finite")
        return scores

    def _take(self, side: str, feature: NDArray[np.float32]) -> None:
        statistics = self._statistics.setdefault(side, GaussianStatistics.empty(len(feature)))
        statistics.update(feature[None])
        self._kept[side].append(feature)

    def _fault(self, clip: Clip) -> str | None:
        if clip.num_frames < self._least_frames:
            return f"{clip.num_frames} frames; at least {self._least_frames} needed"
        form = (clip.num_frames, f"{clip.fps:.4g}")
        self._form = self._form or form
        if form != self._form:
            mine, first = (f"{length} frames at {fps} a second" for length, fps in (form, self._form))
            return f"{mine}; the first video has {first}, and FVD compares sets of one kind"
        return None

    def figure(self) -> Figure:
        """The distance of all so far; None below two videos in either set."""
        counts = {side: len(kept) for side, kept in self._kept.items()}
        value = None
        if min(counts.values()) >= 2:
            value = frechet_distance(self._statistics["video"], self._statistics["reference"])
        convention = {
            **self._features.convention,
            "distance": "Fréchet, float64, covariance divided by N - 1",
            "references": counts["reference"],
            "frames of every video": self._form[0] if self._form else None,
            "interval": f"normal, from the bootstrap's standard error ({self._resamples} resamples of both sets), 95%",
        }
        return Figure(
            self.name,
            value,
            counts["video"],
            self._interval(value) if value is not None else None,
            "lower",
            convention,
            self._features.weights,
            self._warnings(counts),
        )

    def _interval(self, value: float) -> Interval:
        """Value +- 1.96 standard errors: repeats within a resample add to a Fréchet distance, so its percentiles lie
        too high, while its spread is right."""
        videos, references = (np.stack(self._kept[side]) for side in ("video", "reference"))
        repeats = zip(draws(len(videos), self._resamples, 0), draws(len(references), self._resamples, 1), strict=True)
        distances = [frechet_distance_of_samples(videos, references, *times) for times in repeats]
        half = NORMAL_QUANTILE * float(np.std(distances, ddof=1))
        return Interval(max(0.0, value - half), value + half)

    def _warnings(self, counts: dict[str, int]) -> tuple[str, ...]:
        said = [
            f"{count} {side}s: below {self._enough} the covariance is rank-deficient and the value too high;"
            " compare only with values of the same N"
            for side, count in counts.items()
            if count < self._enough
        ]
        sha256 = self._features.weights.get("sha256")
        if self.name == "FVD" and sha256 != PUBLISHED_SHA256:
            said.append("the I3D file is not the published one (its hash differs)")
        return tuple(said)
