"""The segmenter: image and phrases to first-frame ids, first-frame ids to tracked ids.

Two ways to ground a phrase, one interface: regions (SAM2 proposes masks, open_clip scores them) and boxes (Grounding
DINO proposes boxes, SAM2 finds the mask in each; the way of Through-The-Mask).

Letters: B masks, T frames, H W pixels, M candidate masks, L phrases and objects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ttm.objects import MAX_OBJECTS, validate_ids
from ttm.segmentation import grounding
from ttm.segmentation.candidates import GENERATOR_DEFAULTS, Candidates, find_candidates
from ttm.segmentation.grounding import Grounded
from ttm.segmentation.grounding_dino import Boxes, GroundingDino, how_many, public_detector
from ttm.segmentation.places import Box, Place, check_places, ids_at, masks_at
from ttm.segmentation.sam2_loading import build_sam2, hub_files, load_checkpoint, public_config
from ttm.segmentation.tracking import track_ids

EVERYDAY_THINGS = (
    "person", "face", "hand", "dog", "cat", "horse", "bird", "animal", "car", "truck", "bicycle", "motorcycle",
    "boat", "airplane", "train", "ball", "toy", "cup", "bottle", "plate", "food", "fruit", "chair", "table", "book",
    "phone", "clothes", "shoe", "flower", "tree", "plant", "building", "window", "door", "road sign", "text", "shadow",
)  # fmt: skip
"""What public weights hold against a phrase: a region must look more like the phrase than like these."""
BACKGROUNDS = ("background", "sky", "ground", "grass", "water", "wall", "texture")
"""What public weights call a region that is no object."""
_CROPS_AT_ONCE = 64


class PhraseNotFoundError(ValueError):
    """No region of the image matches a phrase.

    Attributes:
        phrases: those that were not found.
    """

    def __init__(self, message: str, phrases: Sequence[str]) -> None:
        super().__init__(message)
        self.phrases = tuple(phrases)


class Segmenter(ModelMixin, ConfigMixin):
    """Finds objects by their phrases and follows them through a video: SAM2, with open_clip or Grounding DINO.

    With ``clip_config``, SAM2 proposes masks and open_clip says which of them is which phrase; with ``detector``,
    Grounding DINO proposes boxes for the phrases and SAM2 finds the mask in each. Either way each phrase gets one mask
    by the best assignment of all, so that two phrases never share a thing. With a detector a plural gets several:
    "two dogs" up to two, "dogs" all whose best phrase it is.

    A component of a diffusers pipeline: saves and loads in one folder, moves with ``.to``. Weights in 16 bit
    are widened to 32 for the time of a call: SAM2's tracker keeps bfloat16 memories, which no other 16 bit
    mixes with.

    Args:
        sam2_config: the ``model`` node of a SAM2 config, as plain values.
        clip_config: an open_clip model config.
        clip_preprocess: "mean" and "std" of CLIP's input, three values each, of pixels in 0..1.
        mask_generator: settings of SAM2's automatic mask generator; keys of ``GENERATOR_DEFAULTS``.
        contrast_phrases: things that might also be in a picture; a region must look more like its phrase.
        background_phrases: the same for regions that are no object.
        phrase_template: how CLIP is asked, "{}" standing for the phrase.
        least_probability: of a phrase for its region; below it, the phrase counts as not found.
        quality_weight: of SAM2's predicted IoU against the log-probability when masks are chosen.
        detector: in the place of ``clip_config`` and ``clip_preprocess``: the "model", "image_processor" and
            "tokenizer" of a Grounding DINO, as plain values.
        least_box_score: of a box for its phrase, in 0..1; below it, the phrase counts as not found.

    Raises:
        ValueError: both or neither of open_clip and Grounding DINO, a config that names foreign classes, or unknown
            settings.
    """

    @register_to_config
    def __init__(
        self,
        sam2_config: dict[str, Any],
        clip_config: dict[str, Any] | None = None,
        clip_preprocess: dict[str, list[float]] | None = None,
        mask_generator: dict[str, Any] | None = None,
        contrast_phrases: Sequence[str] = EVERYDAY_THINGS,
        background_phrases: Sequence[str] = BACKGROUNDS,
        phrase_template: str = "{}",
        least_probability: float = 0.05,
        quality_weight: float = 2.0,
        detector: dict[str, Any] | None = None,
        least_box_score: float = 0.3,
    ) -> None:
        super().__init__()
        if unknown := set(mask_generator or {}) - set(GENERATOR_DEFAULTS):
            raise ValueError(
                f"mask_generator has the keys {sorted(unknown)}; expected some of {sorted(GENERATOR_DEFAULTS)}."
            )
        if (clip_config is None) == (detector is None):
            raise ValueError("A segmenter grounds phrases in one way; expected either clip_config or detector.")
        if clip_config is not None and set(clip_preprocess or {}) != {"mean", "std"}:
            found = sorted(clip_preprocess or {})
            raise ValueError(f"clip_preprocess has the keys {found}; expected 'mean' and 'std'.")
        self.sam2 = build_sam2(_plain(sam2_config))
        self.clip = None if clip_config is None else grounding.build_clip(_plain(clip_config))
        self.grounding_dino = None if detector is None else GroundingDino(_plain(detector))

    @classmethod
    def from_public(
        cls,
        sam2: str | tuple[str | Path | Mapping[str, Any], str | Path] = "facebook/sam2.1-hiera-tiny",
        clip_model: str = "ViT-B-32",
        clip_pretrained: str = "laion2b_s34b_b79k",
        detector: str | Path | None = None,
        **settings: Any,
    ) -> Segmenter:
        """A segmenter with public weights.

        Args:
            sam2: a Hub id of SAM2, or (config, checkpoint): the config a YAML file, a name in the sam2 package
                ("configs/sam2.1/sam2.1_hiera_t.yaml") or plain values; the checkpoint a local .pt in the public
                layout or a .safetensors file.
            clip_model: a name that open_clip knows.
            clip_pretrained: one of that model's tags, or a local checkpoint.
            detector: in the place of open_clip a Grounding DINO: a Hub id ("IDEA-Research/grounding-dino-tiny") or a
                folder in that layout.
            settings: other arguments of the class.

        Raises:
            ValueError: an unknown name, a file that cannot be read, weights that do not fit.
        """
        config, checkpoint = hub_files(sam2) if isinstance(sam2, str) else sam2
        values = dict(config) if isinstance(config, Mapping) else public_config(config)
        if detector is not None:
            parts, weights = public_detector(detector)
            segmenter = cls(values, detector=parts, **settings)
            load_checkpoint(segmenter.sam2, checkpoint)
            cast(GroundingDino, segmenter.grounding_dino).model.load_state_dict(weights.state_dict())
            return segmenter
        clip_config, preprocess, clip = grounding.public_clip(clip_model, clip_pretrained)
        segmenter = cls(values, clip_config, preprocess, **{"phrase_template": "a photo of a {}", **settings})
        load_checkpoint(segmenter.sam2, checkpoint)
        cast(nn.Module, segmenter.clip).load_state_dict(clip.state_dict())
        return segmenter

    def segment(self, image: NDArray[np.uint8] | Image.Image, phrases: Sequence[str]) -> NDArray[np.uint8]:
        """Find each phrase in an image.

        Args:
            image: uint8 [H, W, 3] or a PIL image.
            phrases: L names of objects, "red ball"; 1 to ``MAX_OBJECTS``.

        Returns:
            ids uint8 [H, W]: phrase ``l`` (from 0) has id ``l + 1``, the background 0.

        Raises:
            PhraseNotFoundError: (a ValueError) a phrase matches no region; says which, and what was seen.
            ValueError: no image, or no phrases.
        """
        pixels, names = _checked_image(image), _checked_phrases(phrases)
        ids: NDArray[np.uint8] = self(image=pixels, phrases=names)
        return ids

    def segment_at(self, image: NDArray[np.uint8] | Image.Image, places: Sequence[Place]) -> NDArray[np.uint8]:
        """Find the object in each box, or under each point.

        Args:
            image: uint8 [H, W, 3] or a PIL image.
            places: L :class:`~ttm.segmentation.places.Box` or ``Point``, in pixels; 1 to ``MAX_OBJECTS``.

        Returns:
            ids uint8 [H, W]: place ``l`` (from 0) has id ``l + 1``, the background 0.

        Raises:
            ValueError: no image, no place, a place outside of the image, or one at which nothing is seen.
        """
        pixels = _checked_image(image)
        if not 1 <= len(places) <= MAX_OBJECTS:
            raise ValueError(f"There are {len(places)} places; expected 1 to {MAX_OBJECTS} (the limit on objects).")
        check_places(places, *pixels.shape[:2])
        ids: NDArray[np.uint8] = self(image=pixels, places=tuple(places))
        return ids

    def track(self, frames: NDArray[np.uint8], first_ids: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Follow the objects of the first frame through a video.

        Args:
            frames: uint8 [T, H, W, 3].
            first_ids: integers [H, W] in 0..MAX_OBJECTS, 0 = background; at least one object.

        Returns:
            ids uint8 [T, H, W] with the ids of ``first_ids``; frame 0 is ``first_ids``. An object that SAM2
            holds to be hidden has no pixel in that frame; where two objects claim a pixel, the surer one has
            it.

        Raises:
            ValueError: another shape or dtype, or no object to follow.
        """
        array = np.asarray(frames)
        if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise ValueError(f"frames are {array.dtype} {list(array.shape)}; expected uint8 [T, H, W, 3], not empty.")
        ids = validate_ids(first_ids, ndim=2, name="first_ids")
        if ids.shape != array.shape[1:3]:
            raise ValueError(
                f"first_ids has shape {list(ids.shape)}; expected that of a frame, {list(array.shape[1:3])}."
            )
        if not ids.any():
            raise ValueError("first_ids is 0 everywhere; expected at least one object to follow.")
        tracked: NDArray[np.uint8] = self(frames=array, first_ids=ids)
        return tracked

    @torch.no_grad()
    def forward(
        self,
        image: NDArray[np.uint8] | None = None,
        phrases: Sequence[str] = (),
        frames: NDArray[np.uint8] | None = None,
        first_ids: NDArray[np.uint8] | None = None,
        places: Sequence[Place] = (),
    ) -> NDArray[np.uint8]:
        """What :meth:`segment` (image, phrases), :meth:`segment_at` (image, places) and :meth:`track` (frames,
        first_ids) do, on checked arguments.

        All pass through here, so that hooks which bring the weights to the device (model CPU offload) see
        each call.
        """
        if image is not None and places:
            with self._computing():
                return ids_at(self.sam2, image, places)
        if image is not None:
            return self._segment(image, list(phrases))
        assert frames is not None and first_ids is not None
        with self._computing():
            return track_ids(self.sam2, frames, first_ids)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        for module in self.sam2.modules():
            if isinstance(cache := getattr(module, "cache", None), dict):
                cache.clear()  # SAM2's position encodings keep what they made on the device before a move
        stored = self.dtype
        try:
            for part in self.children():
                part.float()
            yield
        finally:
            for part in self.children():
                part.to(stored)

    def _segment(self, image: NDArray[np.uint8], phrases: list[str]) -> NDArray[np.uint8]:
        found = self._by_regions(image, phrases) if self.grounding_dino is None else self._by_boxes(image, phrases)
        if not len(found.masks) and self.grounding_dino is None:
            raise PhraseNotFoundError(
                f"No object at all was seen in the image, so not {_quoted(phrases)} either. {_ADVICE}",
                phrases,
            )
        chosen = grounding.assign(found.log_odds, found.masks, found.quality, self.config["quality_weight"])
        missing = [n for n, mask in enumerate(chosen) if mask < 0 or found.log_odds[mask, n] < found.least]
        if missing:
            reasons = [f"{phrases[n]!r} ({_why_missing(phrases, n, int(chosen[n]), found)})" for n in missing]
            raise PhraseNotFoundError(
                f"No region of the image matches {', '.join(reasons)}. What was seen: {found.seen()}. {_ADVICE}",
                [phrases[n] for n in missing],
            )
        members = grounding.with_companions(chosen, found.log_odds, found.masks, found.counts, found.least)
        ids = np.zeros(image.shape[:2], np.uint8)
        surest_last = sorted(range(len(phrases)), key=lambda n: found.log_odds[chosen[n], n])
        for n in surest_last:
            ids[found.masks[members[n]].any(axis=0)] = n + 1
        if hidden := [phrases[n] for n in range(len(phrases)) if not (ids == n + 1).any()]:
            raise PhraseNotFoundError(f"{_quoted(hidden)} lies wholly under the other objects. {_ADVICE}", hidden)
        return ids

    def _by_regions(self, image: NDArray[np.uint8], phrases: list[str]) -> Grounded:
        with self._computing():
            found = find_candidates(self.sam2, image, _plain(self.config["mask_generator"] or {}))
        names = [*phrases, *self.config["contrast_phrases"], *self.config["background_phrases"]]
        least = float(np.log(self.config["least_probability"]))
        one_each: list[int | None] = [1] * len(phrases)
        if not len(found.masks):
            none = np.zeros((0, len(phrases)), np.float32)
            return Grounded(found.masks, found.quality, none, least, one_each, lambda: "nothing")
        regions, texts = self._embeddings(image, found, names)
        clip: Any = self.clip
        scale = float(clip.logit_scale.exp())
        log_odds = grounding.phrase_log_odds(regions, texts[: len(phrases)], texts[len(phrases) :], scale).cpu().numpy()
        seen = partial(self._seen, regions, texts, names, scale, found)
        return Grounded(found.masks, found.quality, log_odds, least, one_each, seen)

    def _by_boxes(self, image: NDArray[np.uint8], phrases: list[str]) -> Grounded:
        detector, least = cast(GroundingDino, self.grounding_dino), float(self.config["least_box_score"])
        with self._computing():
            boxes = detector.detect(image, phrases, least)
            masks, quality = masks_at(self.sam2, image, [Box(*corners) for corners in boxes.corners.tolist()])
        kept = [n for n, mask in enumerate(masks) if mask.any()]
        return Grounded(
            np.stack([masks[n] for n in kept]) if kept else np.zeros((0, *image.shape[:2]), bool),
            np.array([quality[n] for n in kept], np.float32),
            np.log(np.maximum(boxes.scores[kept], 1e-6)),
            float(np.log(least)),
            [how_many(phrase) for phrase in phrases],
            partial(self._seen_in_boxes, image, boxes, phrases),
        )

    def _seen_in_boxes(self, image: NDArray[np.uint8], boxes: Boxes, phrases: list[str]) -> str:
        """The surest box of each phrase that has one, then of the things that may also be in a picture."""
        things = list(self.config["contrast_phrases"])
        told = boxes.told(phrases)
        if things:
            with self._computing():
                others = cast(GroundingDino, self.grounding_dino).detect(
                    image, things, float(self.config["least_box_score"])
                )
            told = {**told, **others.told(things), **told}
        return "; ".join(list(told.values())[:5]) or "nothing that has a name here"

    def _embeddings(
        self, image: NDArray[np.uint8], found: Candidates, texts: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = self.config["clip_config"]["vision_cfg"].get("image_size", 224)
        side = int(size if isinstance(size, int) else size[0])
        crops = np.stack([grounding.region_crop(image, mask, side) for mask in found.masks])
        mean, std = self.config["clip_preprocess"]["mean"], self.config["clip_preprocess"]["std"]
        batches = [crops[n : n + _CROPS_AT_ONCE] for n in range(0, len(crops), _CROPS_AT_ONCE)]
        asked = [self.config["phrase_template"].format(text) for text in texts]
        length = self.config["clip_config"]["text_cfg"].get("context_length", 77)
        clip = cast(nn.Module, self.clip)
        with self._computing():
            regions = torch.cat([grounding.embed_crops(clip, batch, mean, std) for batch in batches])
            return regions, grounding.embed_phrases(clip, asked, length)

    def _seen(
        self, regions: torch.Tensor, texts: torch.Tensor, names: list[str], scale: float, found: Candidates
    ) -> str:
        """The five surest regions, each by the name that fits it best."""
        chances = (scale * regions @ texts.T).softmax(dim=1).cpu().numpy()
        told: dict[str, str] = {}
        for mask in np.argsort(-chances.max(axis=1)):
            name = names[int(chances[mask].argmax())]
            if name not in self.config["background_phrases"] and name not in told:
                y, x = (int(axis.mean()) for axis in np.nonzero(found.masks[mask]))
                told[name] = f"{name!r} {chances[mask].max():.2f} around x {x}, y {y}"
        return "; ".join(list(told.values())[:5]) or f"{len(regions)} regions that look like no object"


_ADVICE = "Name the object as it looks, or hand in its mask."


def _why_missing(phrases: Sequence[str], number: int, region: int, found: Grounded) -> str:
    """Why no region was taken for a phrase; ``region`` is the one that would have come next, -1 for none."""
    if phrases.count(phrases[number]) > 1:
        return "asked for more often than it is there"
    if region < 0:
        return "no region is left for it" if len(found.masks) else "nothing like it"
    probability = np.exp(found.log_odds[region, number])
    return f"probability {probability:.2g}; at least {np.exp(found.least):g} is needed"


def _quoted(phrases: Sequence[str]) -> str:
    return ", ".join(repr(phrase) for phrase in phrases)


def _plain(value: Any) -> Any:
    """A stored config (frozen dictionaries) as plain values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _checked_image(image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
    array = np.array(image.convert("RGB")) if isinstance(image, Image.Image) else np.asarray(image)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8 or min(array.shape[:2]) < 8:
        found = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"The image is {found}; expected uint8 [H, W, 3] of at least 8 x 8 pixels, or a PIL image.")
    return array


def _checked_phrases(phrases: Sequence[str]) -> list[str]:
    if isinstance(phrases, str) or not all(isinstance(each, str) and each.strip() for each in phrases):
        raise ValueError(f"phrases are {phrases!r}; expected a list of texts that are not empty.")
    if not 1 <= len(phrases) <= MAX_OBJECTS:
        raise ValueError(f"There are {len(phrases)} phrases; expected 1 to {MAX_OBJECTS} (the limit on objects).")
    return [each.strip() for each in phrases]
