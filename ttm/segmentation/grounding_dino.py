"""Grounding DINO: boxes in an image, each with a score for every phrase (Through-The-Mask finds its objects so).

Letters: Q queries, M boxes, L phrases, N text tokens, H W pixels. Boxes are x0 y0 x1 y1 in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttm.planning import words as lexicon
from ttm.planning.noun_phrases import NounPhraseReader

SAME_BOX = 0.7
"""IoU above which two boxes are one."""
MOST_BOXES = 48
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_PARTS = {"model", "image_processor", "tokenizer"}

Span = tuple[int, int]


@dataclass(frozen=True)
class Boxes:
    """What a detector sees, the surest box first.

    Attributes:
        corners: float32 [M, 4], x0 y0 x1 y1, within the image.
        scores: float32 [M, L] in 0..1, how well each box fits each phrase.
    """

    corners: NDArray[np.float32]
    scores: NDArray[np.float32]

    def told(self, names: Sequence[str]) -> dict[str, str]:
        """The surest box of each of the L names that fits one best, by name, as an error tells it."""
        told: dict[str, str] = {}
        for (x0, y0, x1, y1), scores in zip(self.corners, self.scores, strict=True):
            name = names[int(scores.argmax())]
            told.setdefault(name, f"{name!r} {scores.max():.2f} around x {(x0 + x1) / 2:.0f}, y {(y0 + y1) / 2:.0f}")
        return told


class GroundingDino(nn.Module):
    """The detector with its preprocessing, from plain values, so that all of it lies in the segmenter's config.

    Args:
        parts: "model", a config of ``GroundingDinoForObjectDetection``; "image_processor", the values of its image
            processor; "tokenizer", the content of its tokenizer.json.

    Raises:
        ValueError: other keys, or values that transformers can't build from.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__()
        from tokenizers import Tokenizer
        from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, GroundingDinoImageProcessor

        if set(parts) != _PARTS:
            raise ValueError(f"detector has the keys {sorted(parts)}; expected {sorted(_PARTS)}.")
        try:
            self.model: Any = GroundingDinoForObjectDetection(GroundingDinoConfig(**parts["model"])).eval()
            self.image_processor: Any = GroundingDinoImageProcessor(**parts["image_processor"])
            self.tokenizer = Tokenizer.from_str(json.dumps(parts["tokenizer"]))
        except Exception as error:  # transformers and tokenizers raise many types, and bare Exception, for bad values
            raise ValueError(f"Grounding DINO cannot be built from its config: {error}") from error
        self.register_state_dict_post_hook(_each_on_its_own)

    def detect(self, image: NDArray[np.uint8], phrases: Sequence[str], least: float) -> Boxes:
        """Boxes that fit at least one phrase.

        Args:
            image: uint8 [H, W, 3].
            phrases: L names of things.
            least: the score in 0..1 from which on a box counts.

        Raises:
            ValueError: more text than the detector takes.
        """
        text, spans = joined(phrases)
        encoded = self.tokenizer.encode(text)
        longest = self.model.config.max_text_len
        if len(encoded.ids) > longest:
            raise ValueError(f"The phrases are {len(encoded.ids)} tokens long; expected at most {longest}.")
        weight = next(self.model.parameters())
        seen = self.image_processor(images=image, return_tensors="pt").to(weight.device)
        tokens = torch.tensor([encoded.ids], device=weight.device)
        output = self.model(
            pixel_values=seen["pixel_values"].to(weight.dtype),
            pixel_mask=seen["pixel_mask"],
            input_ids=tokens,
            token_type_ids=torch.zeros_like(tokens),
            attention_mask=torch.ones_like(tokens),
        )
        scores = phrase_scores(output.logits[0].float(), encoded.offsets, spans)
        height, width = image.shape[:2]
        corners = corners_in_pixels(output.pred_boxes[0].float(), height, width)
        return without_duplicates(corners.cpu(), scores.cpu(), least)


def public_detector(name: str | Path) -> tuple[dict[str, Any], nn.Module]:
    """A public Grounding DINO: its parts as plain values, and the model with its weights.

    Args:
        name: a Hub id ("IDEA-Research/grounding-dino-tiny") or a folder in that layout.

    Raises:
        ValueError: no such model, or another kind.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, GroundingDinoForObjectDetection

    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "grounding-dino":
            raise ValueError(f"it is a {config.model_type!r}, not a 'grounding-dino'")
        tokenizer = AutoTokenizer.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
        model = GroundingDinoForObjectDetection.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    except Exception as error:  # safetensors, tokenizers and transformers each raise their own
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{name} can't be opened as Grounding DINO: {reason}") from error
    parts = {
        "model": json.loads(config.to_json_string(use_diff=False)),
        "image_processor": json.loads(processor.to_json_string()),
        "tokenizer": json.loads(tokenizer.backend_tokenizer.to_str()),
    }
    return parts, model


def joined(phrases: Sequence[str]) -> tuple[str, list[Span]]:
    """Phrases as the detector reads them, "red ball. dog.", and where each stands in the text (from, to).

    The period and the question mark end a phrase for the detector: within one they become spaces.
    """
    text, spans = "", []
    for phrase in phrases:
        name = " ".join(phrase.lower().replace(".", " ").replace("?", " ").split()) or "object"
        spans.append((len(text), len(text) + len(name)))
        text += f"{name}. "
    return text.strip(), spans


def phrase_scores(logits: Tensor, offsets: Sequence[Span], spans: Sequence[Span]) -> Tensor:
    """How well each query fits each phrase: the mean over the phrase's tokens of the probability of the token.

    Args:
        logits: [Q, N'] with N' >= N; what lies beyond the text is -inf.
        offsets: of each of the N tokens, where it stands in the text.
        spans: of each of the L phrases, where it stands in the text.

    Returns:
        float32 [Q, L] in 0..1.
    """
    inside = torch.zeros(len(spans), logits.shape[1], device=logits.device)
    for row, (begin, end) in zip(inside, spans, strict=True):
        for number, (start, stop) in enumerate(offsets):
            row[number] = float(begin <= start < stop <= end)
    return logits.sigmoid() @ (inside / inside.sum(dim=1, keepdim=True).clamp(min=1)).T


def corners_in_pixels(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes [Q, 4] as centre and size in 0..1 to corners x0 y0 x1 y1 in pixels, cut at the image's borders."""
    from torchvision.ops import box_convert, clip_boxes_to_image

    scale = torch.tensor([width, height, width, height], device=boxes.device)
    return clip_boxes_to_image(box_convert(boxes, "cxcywh", "xyxy") * scale, (height, width))


def without_duplicates(corners: Tensor, scores: Tensor, least: float) -> Boxes:
    """Boxes that fit some phrase, one a thing: of boxes that nearly coincide the surest, with the best of their scores.

    So a thing that two phrases name is one box that has a score for each, whichever query gave it.

    Args:
        corners: [Q, 4]; scores: [Q, L].
        least: the best score of a box that counts.
    """
    from torchvision.ops import box_iou

    best = scores.max(dim=1).values
    size = (corners[:, 2:] - corners[:, :2]).min(dim=1).values
    order = [int(n) for n in best.argsort(descending=True) if best[n] >= least and size[n] >= 1]
    same = box_iou(corners, corners) > SAME_BOX
    kept: list[int] = []
    merged: list[Tensor] = []
    for number in order:
        twin = next((place for place, other in enumerate(kept) if same[number, other]), None)
        if twin is not None:
            merged[twin] = torch.maximum(merged[twin], scores[number])
        elif len(kept) < MOST_BOXES:
            kept.append(number)
            merged.append(scores[number])
    found = torch.stack(merged) if merged else scores[:0]
    return Boxes(corners[kept].numpy().astype(np.float32), found.numpy().astype(np.float32))


def how_many(phrase: str) -> int | None:
    """How many things a phrase means: 1, a number that it says, or None for a plural that says none ("the dogs")."""
    words = phrase.lower().split()
    if words and words[0] in _NUMBERS:
        return _NUMBERS.index(words[0]) + 2
    if words and words[0].isdigit():
        return max(1, int(words[0]))
    if words and words[0] in lexicon.NUMERALS:  # "several", "many"
        return None
    read = NounPhraseReader(words).noun_phrase(0, mode="none")
    return None if read is not None and read[0].number == "plural" else 1


def _each_on_its_own(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """The detector's box heads share their weights, and safetensors stores no tensor twice: hand out copies."""
    seen: set[int] = set()
    for name, value in state.items():
        if name.startswith(prefix) and isinstance(value, Tensor) and value.device.type != "meta":
            if value.data_ptr() in seen:
                state[name] = value.clone()
            seen.add(value.data_ptr())
