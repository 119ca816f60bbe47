"""CLIP's view of a video: are its frames alike (CF), and do they show the prompt (Alignment).

- CF over all pairs of frames: the mean cosine of every two frames. What Through-The-Mask's CF refers to.
- CF over adjacent frames: the mean cosine of each frame and the next. The few-shot paper's Consistency.
- Alignment: the mean over frames of the cosine of frame and prompt. The few-shot paper's Alignment.

Each of them also of the foreground alone (Table II of the few-shot paper). Raw cosines, not times 100.

Letters: N texts, T frames, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ttm.metrics.features import Features
from ttm.metrics.foreground import RULE, foreground_clip, foreground_fault
from ttm.metrics.scoring import Clip, MeanOverVideos, Need, Problem, Sample
from ttm.metrics.weights import find_weights

PUBLIC_CLIP = "openai/clip-vit-large-patch14"
CLIP_FILES = ("model.safetensors", "config.json", "preprocessor_config.json", "vocab.json", "merges.txt")
CLIP_WEIGHTS = (CLIP_FILES, "CLIP", f"the Hub's {PUBLIC_CLIP}")
FRAMES_AT_ONCE = 64

Frames = Literal["all pairs", "adjacent"]


class TextFeatures(Protocol):
    """A network that embeds texts where its pictures are.

    Attributes:
        max_tokens: longer texts are cut.
    """

    max_tokens: int

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Float32 [N, D]."""
        ...

    def count_tokens(self, text: str) -> int:
        """Of a text, its begin and end included, uncut."""
        ...


class ClipFeatures:
    """A CLIP of transformers, from a folder or a Hub id; every frame embedded by the folder's own preprocessing.

    It computes in float32, whatever its weights are stored in.

    Args:
        source: a folder or a Hub id.
        device: where it runs.

    Raises:
        ValueError: a file is missing, or no CLIP.
    """

    def __init__(self, source: str | Path = PUBLIC_CLIP, device: str = "cpu") -> None:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        found = find_weights(source, *CLIP_WEIGHTS)
        folder = found.files[0].parent
        try:
            model = CLIPModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
            self._model = model.eval().to(device)
            self._processor = CLIPImageProcessor.from_pretrained(folder)
            self._tokenizer = CLIPTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0][:160]
            raise ValueError(f"CLIP: {source} can't be opened ({reason}); expected a CLIP of transformers.") from error
        self._device = device
        self.max_tokens = int(self._model.config.text_config.max_position_embeddings)
        self.weights = found.to_dict()
        self.convention: dict[str, Any] = {
            "features": "CLIP image embedding of every frame, projected, in float32",
            "pixels": f"the model's own {type(self._processor).__name__}: {_told(self._processor)}",
        }

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """Float32 [T, D] a clip."""
        frames = [frame for clip in clips for frame in clip.frames]
        embedded = [self._embed(frames[n : n + FRAMES_AT_ONCE]) for n in range(0, len(frames), FRAMES_AT_ONCE)]
        bounds = np.cumsum([clip.num_frames for clip in clips])[:-1]
        return list(np.split(np.concatenate(embedded), bounds)) if clips else []

    def _embed(self, frames: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        inputs = self._processor(images=frames, return_tensors="pt", input_data_format="channels_last")
        pixels = inputs["pixel_values"].to(self._device)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return np.asarray(self._model.visual_projection(pooled).cpu().numpy(), np.float32)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Float32 [N, D]; texts of more than ``max_tokens`` tokens are cut."""
        inputs = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self._device)
        pooled = self._model.text_model(**inputs).pooler_output
        return np.asarray(self._model.text_projection(pooled).cpu().numpy(), np.float32)

    def count_tokens(self, text: str) -> int:
        """Of a text, begin and end included."""
        return len(self._tokenizer(text)["input_ids"])


def _told(processor: Any) -> str:
    values = {name: getattr(processor, name, None) for name in ("size", "crop_size", "resample", "image_mean")}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def unit(features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Features [..., D] at length 1, float64; NaN where a feature is zero or not finite."""
    values = features.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return values / np.linalg.norm(values, axis=-1, keepdims=True)


def frame_consistency(features: NDArray[np.floating[Any]], frames: Frames) -> float:
    """The mean cosine of two frames, over all pairs or over adjacent ones.

    Args:
        features: [T, D] of a video's frames.
        frames: which pairs.

    Raises:
        ValueError: fewer than two frames.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features has shape {list(features.shape)}; expected [T, D] of at least 2 frames.")
    units, count = unit(features), len(features)
    if frames == "adjacent":
        return float((units[:-1] * units[1:]).sum(axis=1).mean())
    whole = units.sum(axis=0)  # |sum of units|^2 = T + 2 * the sum over pairs
    return float((whole @ whole - count) / (count * (count - 1)))


def text_alignment(features: NDArray[np.floating[Any]], text: NDArray[np.floating[Any]]) -> float:
    """The mean over frames [T, D] of the cosine with the text [D]."""
    return float((unit(features) @ unit(text)).mean())


class FrameConsistency(MeanOverVideos):
    """CF: :func:`frame_consistency` of every video.

    Args:
        features: of frames.
        frames: "all pairs" or "adjacent".
        foreground: of the foreground alone.
        suffix: of the column's name; says that the features are stand-ins.
    """

    def __init__(self, features: Features, frames: Frames, foreground: bool = False, suffix: str = "") -> None:
        super().__init__()
        where = "-foreground" if foreground else ""
        self.name = f"CF-{frames.replace(' ', '-')}{where}{suffix}"
        self.needs: frozenset[Need] = frozenset({"video", "ids"} if foreground else {"video"})
        self._features, self._frames, self._foreground = features, frames, foreground

    def fault(self, sample: Sample) -> str | None:
        """One frame, or foreground in fewer than two."""
        assert sample.video is not None
        if sample.video.num_frames < 2:
            return "1 frame; at least 2 needed"
        return foreground_fault(sample, 2) if self._foreground else None

    def measure(self, samples: Sequence[Sample]) -> list[float | Problem]:
        """See :class:`MeanOverVideos`."""
        clips = [_seen(sample, self._foreground) for sample in samples]
        return [frame_consistency(found, self._frames) for found in self._features.extract(clips)]

    def describe(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """See :class:`MeanOverVideos`."""
        said = {"pairs": f"{self._frames}, mean cosine"} | ({"foreground": RULE} if self._foreground else {})
        return {**self._features.convention, **said}, self._features.weights


class Alignment(MeanOverVideos):
    """:func:`text_alignment` of every video and its prompt.

    Args:
        features: of frames.
        texts: the same network's text side.
        foreground: of the foreground alone.
        suffix: of the column's name.
    """

    def __init__(self, features: Features, texts: TextFeatures, foreground: bool = False, suffix: str = "") -> None:
        super().__init__()
        self.name = f"Alignment{'-foreground' if foreground else ''}{suffix}"
        self.needs: frozenset[Need] = frozenset({"video", "prompt", *(["ids"] if foreground else [])})  # type: ignore[arg-type]
        self._features, self._texts, self._foreground, self._cut = features, texts, foreground, 0

    def fault(self, sample: Sample) -> str | None:
        """No foreground in any frame, where it is asked for."""
        return foreground_fault(sample, 1) if self._foreground else None

    def measure(self, samples: Sequence[Sample]) -> list[float | Problem]:
        """See :class:`MeanOverVideos`."""
        prompts = [str(sample.prompt) for sample in samples]
        self._cut += sum(self._texts.count_tokens(prompt) > self._texts.max_tokens for prompt in prompts)
        frames = self._features.extract([_seen(sample, self._foreground) for sample in samples])
        texts = self._texts.embed_texts(prompts)
        return [text_alignment(found, text) for found, text in zip(frames, texts, strict=True)]

    def describe(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """See :class:`MeanOverVideos`."""
        said = {"text": f"cosine with the prompt, mean over frames, at most {self._texts.max_tokens} tokens"}
        said |= {"foreground": RULE} if self._foreground else {}
        return {**self._features.convention, **said}, self._features.weights

    def warnings(self) -> tuple[str, ...]:
        """How many prompts were cut."""
        return cut_prompts(self._cut, self._texts.max_tokens)


def cut_prompts(count: int, limit: int) -> tuple[str, ...]:
    """What to say where prompts were longer than a network reads."""
    return (f"{count} prompts are longer than {limit} tokens; the rest of them was not read",) if count else ()


def _seen(sample: Sample, foreground: bool) -> Clip:
    assert sample.video is not None
    if not foreground:
        return sample.video
    assert sample.ids is not None
    return foreground_clip(sample.video, sample.ids)
