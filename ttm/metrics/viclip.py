"""ViCLIP-T: does the video show the text. ViCLIP-V: does it show what the reference video shows. Cosines.

Two ways of preparing a clip are in use with the same weights, and their values do not compare, so every figure names
its own:

- ``internvid``: frames 0, s, 2s, ... with s = T // 8; squashed to 224 x 224 (OpenCV, bilinear); ImageNet's mean and
  standard deviation. The way of the model's authors. Needs 8 frames.
- ``vbench``: the middle frame of each of 8 equal parts (the last one again where T < 8); shorter side to 224 (bicubic,
  without smoothing) and centre crop; CLIP's mean and standard deviation.

Letters: B videos, N texts, T frames, H W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ttm.metrics.clip import TextFeatures, cut_prompts, text_alignment, unit
from ttm.metrics.features import Features
from ttm.metrics.scoring import Clip, MeanOverVideos, Need, Problem, Sample, form_difference
from ttm.metrics.viclip_model import ViCLIP, ViCLIPShape
from ttm.metrics.weights import find_weights

Preparation = Literal["internvid", "vbench"]

PUBLIC_VICLIP = "OpenGVLab/ViCLIP-L-14-hf"
VICLIP_FILE = "model.safetensors"
VICLIP_WEIGHTS = ([VICLIP_FILE], "ViCLIP", f"the Hub's {PUBLIC_VICLIP}")
FRAMES = 8
SIDE = 224
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def internvid_frames(num_frames: int) -> list[int]:
    """Which 8 of ``num_frames`` frames.

    Raises:
        ValueError: fewer than 8.
    """
    if num_frames < FRAMES:
        raise ValueError(f"{num_frames} frames; the internvid convention needs at least {FRAMES}.")
    return list(range(0, num_frames, num_frames // FRAMES))[:FRAMES]


def vbench_frames(num_frames: int) -> list[int]:
    """Which 8 of ``num_frames`` frames: of parts [a, b), frame (a + b - 1) // 2; the last one again where T < 8."""
    bounds = np.linspace(0, num_frames, min(num_frames, FRAMES) + 1).astype(int)
    middles = [int(begin + end - 1) // 2 for begin, end in zip(bounds[:-1], bounds[1:], strict=True)]
    return middles + [middles[-1]] * (FRAMES - len(middles))


def viclip_pixels(frames: NDArray[np.uint8], preparation: Preparation) -> Tensor:
    """Frames uint8 [T, H, W, 3] as ViCLIP takes them: float32 [3, 8, 224, 224].

    Raises:
        ValueError: fewer than 8 frames, where the convention needs them.
    """
    if preparation == "internvid":
        chosen = [cv2.resize(frames[n], (SIDE, SIDE)) for n in internvid_frames(len(frames))]
        pixels = rearrange(torch.from_numpy(np.stack(chosen)), "t h w c -> c t h w")
        mean, std = IMAGENET
    else:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import center_crop, resize

        taken = torch.from_numpy(np.ascontiguousarray(frames[vbench_frames(len(frames))]))
        pictures = rearrange(taken, "t h w c -> t c h w")
        pictures = resize(pictures, [SIDE], interpolation=InterpolationMode.BICUBIC, antialias=False)
        pixels = rearrange(center_crop(pictures, [SIDE]), "t c h w -> c t h w")
        mean, std = OPENAI_CLIP
    centre, spread = (rearrange(torch.tensor(values), "c -> c 1 1 1") for values in (mean, std))
    return (pixels.float() / 255 - centre) / spread


class ViCLIPFeatures:
    """ViCLIP L/14 with its public weights, by one of the two conventions.

    Args:
        source: ``model.safetensors``, a folder that holds it, or a Hub id.
        preparation: "internvid" or "vbench".
        device: where it runs.
        shape: of the network; None = L/14, the public weights'.

    Raises:
        ValueError: an unknown convention, no such file, or weights of other names or shapes.
    """

    def __init__(
        self,
        source: str | Path = PUBLIC_VICLIP,
        preparation: Preparation = "internvid",
        device: str = "cpu",
        shape: ViCLIPShape | None = None,
    ) -> None:
        from open_clip import SimpleTokenizer

        if preparation not in get_args(Preparation):
            raise ValueError(f"preparation is {preparation!r}; expected one of {', '.join(get_args(Preparation))}.")
        found = find_weights(source, *VICLIP_WEIGHTS)
        self._model = load_viclip(found.files[0], shape).to(device)
        self._preparation, self._device = preparation, device
        self.max_tokens = self._model.shape.text_length
        self._tokenizer = SimpleTokenizer(context_length=self.max_tokens)
        self.weights = found.to_dict()
        self.convention: dict[str, Any] = {
            "features": "ViCLIP, 8 frames, no token masked",
            "preparation": preparation,
            "pixels": {
                "internvid": "every (T // 8)th frame, squashed to 224 x 224 bilinear, ImageNet mean and deviation",
                "vbench": "middle frames of 8 parts, shorter side to 224 bicubic without smoothing, centre crop,"
                " CLIP mean and deviation",
            }[preparation],
        }

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """Float32 [D] a clip."""
        if not clips:
            return []
        pixels = torch.stack([viclip_pixels(clip.frames, self._preparation) for clip in clips])
        return list(self._model.embed_clips(pixels.to(self._device)).float().cpu().numpy())

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Float32 [N, D]; longer texts are cut, their end-of-text token kept."""
        tokens = self._tokenizer(list(texts)).to(self._device)
        return np.asarray(self._model.embed_texts(tokens).float().cpu().numpy(), np.float32)

    def count_tokens(self, text: str) -> int:
        """Of a text, begin and end included."""
        return len(self._tokenizer.encode(text)) + 2

    def fault(self, clip: Clip) -> str | None:
        """Why this clip can't be prepared; None if it can."""
        if self._preparation == "internvid" and clip.num_frames < FRAMES:
            return f"{clip.num_frames} frames; the internvid convention needs at least {FRAMES}"
        return None


def load_viclip(path: Path, shape: ViCLIPShape | None = None) -> ViCLIP:
    """ViCLIP with weights from a safetensors file, in float32, in evaluation mode.

    Raises:
        ValueError: no safetensors file, or other names or shapes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = ViCLIP(shape)
    try:
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
        model.load_state_dict(state, strict=True, assign=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"ViCLIP: {path} holds other weights ({reason}); expected those of {PUBLIC_VICLIP}."
        ) from error
    return model.eval().requires_grad_(False)


class ViCLIPText(MeanOverVideos):
    """ViCLIP-T: the cosine of every video and its prompt.

    Args:
        features: of clips, [D] each.
        network: the same network, for texts and for what it can't prepare.
    """

    name = "ViCLIP-T"
    needs: frozenset[Need] = frozenset({"video", "prompt"})

    def __init__(self, features: Features, network: ViCLIPFeatures) -> None:
        super().__init__()
        self._features, self._network, self._cut = features, network, 0
        self._texts: TextFeatures = network

    def fault(self, sample: Sample) -> str | None:
        """Too few frames."""
        assert sample.video is not None
        return self._network.fault(sample.video)

    def measure(self, samples: Sequence[Sample]) -> list[float | Problem]:
        """See :class:`MeanOverVideos`."""
        prompts = [str(sample.prompt) for sample in samples]
        self._cut += sum(self._texts.count_tokens(prompt) > self._texts.max_tokens for prompt in prompts)
        videos = self._features.extract([sample.video for sample in samples if sample.video is not None])
        texts = self._texts.embed_texts(prompts)
        return [text_alignment(video[None], text) for video, text in zip(videos, texts, strict=True)]

    def describe(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """See :class:`MeanOverVideos`."""
        said = {"text": f"cosine with the prompt, at most {self._texts.max_tokens} tokens"}
        return {**self._features.convention, **said}, self._features.weights

    def warnings(self) -> tuple[str, ...]:
        """How many prompts were cut."""
        return cut_prompts(self._cut, self._texts.max_tokens)


class ViCLIPVideo(MeanOverVideos):
    """ViCLIP-V: the cosine of every video and its reference, which must have one length, size and frame rate.

    Args:
        features: of clips, [D] each.
        network: the same network, for what it can't prepare.
    """

    name = "ViCLIP-V"
    needs: frozenset[Need] = frozenset({"video", "reference"})

    def __init__(self, features: Features, network: ViCLIPFeatures) -> None:
        super().__init__()
        self._features, self._network = features, network

    def fault(self, sample: Sample) -> str | None:
        """Too few frames, or a reference of another form."""
        assert sample.video is not None and sample.reference is not None
        return form_difference(sample.video, sample.reference) or self._network.fault(sample.video)

    def measure(self, samples: Sequence[Sample]) -> list[float | Problem]:
        """See :class:`MeanOverVideos`."""
        videos = self._features.extract([sample.video for sample in samples if sample.video is not None])
        references = self._features.extract([sample.reference for sample in samples if sample.reference is not None])
        return [float(unit(one) @ unit(other)) for one, other in zip(videos, references, strict=True)]

    def describe(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """See :class:`MeanOverVideos`."""
        return {**self._features.convention, "pair": "cosine with the reference video"}, self._features.weights
