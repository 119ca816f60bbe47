"""Stand-in features where public weights are absent, only on request: the small CLIP and tracker within ttm-tiny.

The stand-in for features of whole clips is :mod:`ttm.evaluation.video_encoder`.

They know coloured shapes and little else. Every column that is made of them ends in ``-tiny``, so that nobody takes
it for the published measure.

Letters: N texts, T frames, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ttm.metrics.scoring import Clip
from ttm.metrics.weights import find_weights
from ttm.pipelines.embedded import embedded_folder
from ttm.segmentation import Segmenter
from ttm.segmentation.grounding import embed_crops, embed_phrases

SOURCE = "ttm-tiny/segmenter"
_FILES = ("diffusion_pytorch_model.safetensors", "config.json")
_FRAMES_AT_ONCE = 256


def tiny_segmenter() -> tuple[Segmenter, dict[str, Any]]:
    """The embedded segmenter, in float32, and its weights as :class:`ttm.metrics.weights.Weights` tells them.

    Raises:
        ValueError: this installation has no ttm-tiny.
    """
    folder = embedded_folder("ttm-tiny")
    if folder is None:
        raise ValueError("ttm-tiny is not in this installation; expected ttm/pretrained/ttm-tiny.")
    weights = find_weights(folder / "segmenter", _FILES, "stand-in features", "a part of through-the-mask")
    segmenter = Segmenter.from_pretrained(folder / "segmenter", torch_dtype=torch.float32)
    return segmenter.eval().requires_grad_(False), {**weights.to_dict(), "source": SOURCE}


class TinyClipFeatures:
    """The embedded CLIP: every frame squashed to its square, and texts.

    Args:
        segmenter: whose CLIP it is.
        weights: what it was loaded from.
        device: where it runs.
    """

    def __init__(self, segmenter: Segmenter, weights: dict[str, Any], device: str = "cpu") -> None:
        from open_clip import SimpleTokenizer

        config = segmenter.config
        self._tokenizer = SimpleTokenizer()
        assert segmenter.clip is not None, "ttm-tiny's segmenter has a CLIP"
        self._clip = segmenter.clip.to(device)
        self.width = int(config["clip_config"]["embed_dim"])
        self._side = int(config["clip_config"]["vision_cfg"]["image_size"])
        self._mean, self._std = (config["clip_preprocess"][name] for name in ("mean", "std"))
        self.max_tokens = int(config["clip_config"]["text_cfg"]["context_length"])
        self.weights = weights
        self.convention: dict[str, Any] = {
            "features": "STAND-IN: the small CLIP of ttm-tiny, every frame; no published figure compares",
            "pixels": f"squashed to {self._side} x {self._side}, areas averaged",
        }

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """Float32 [T, D] a clip."""
        return [np.concatenate(self._batches(clip)) for clip in clips]

    def _batches(self, clip: Clip) -> list[NDArray[np.float32]]:
        found = []
        for begin in range(0, clip.num_frames, _FRAMES_AT_ONCE):
            frames = clip.frames[begin : begin + _FRAMES_AT_ONCE]
            side = (self._side, self._side)
            small = np.stack([cv2.resize(frame, side, interpolation=cv2.INTER_AREA) for frame in frames])
            found.append(embed_crops(self._clip, small.astype(np.uint8), self._mean, self._std).cpu().numpy())
        return found

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Float32 [N, D]."""
        return np.asarray(embed_phrases(self._clip, texts, self.max_tokens).cpu().numpy(), np.float32)

    def count_tokens(self, text: str) -> int:
        """Of a text, begin and end included."""
        return len(self._tokenizer.encode(text)) + 2
