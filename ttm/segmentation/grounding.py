"""Which mask is which phrase: open_clip scores of each mask's region against each phrase, and an optimal
assignment.

Letters: M masks, L phrases, K contrast phrases, H W pixels.

A region is shown to CLIP as a square crop around its mask, a little of its surroundings kept, and everything
outside of the mask faded towards grey: the mask says what is meant, the faded rest still says what it belongs
to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class Grounded:
    """Masks of an image, and how well each of them fits each phrase.

    Attributes:
        masks: bool [M, H, W].
        quality: float32 [M] in 0..1, how sure the segmentation is of each mask.
        log_odds: float32 [M, L], log-probabilities.
        least: the log-probability from which on a phrase counts as found.
        counts: how many masks a phrase may have, None = any number; L of them.
        seen: says what else was seen, for an error.
    """

    masks: NDArray[np.bool_]
    quality: NDArray[np.float32]
    log_odds: NDArray[np.floating[Any]]
    least: float
    counts: list[int | None]
    seen: Callable[[], str]


CROP_MARGIN = 0.15
"""Surroundings kept on each side of a mask, as a fraction of its longer side."""
FADE = 0.75
"""How far a pixel outside of the mask is faded to grey: 0 not at all, 1 wholly."""
GREY = 127.0
_SAME_PHRASE = 0.97  # cosine of text embeddings above which two phrases mean the same
_LEAST_LOG = -12.0  # log-probabilities below this say nothing more


def region_crop(image: NDArray[np.uint8], mask: NDArray[np.bool_], side: int) -> NDArray[np.uint8]:
    """The square crop by which CLIP sees a mask.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [H, W] with at least one pixel.
        side: of the crop, in pixels.

    Returns:
        uint8 [side, side, 3]; grey where it leaves the image.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    wide = max(4, math.ceil(max(bottom - top, right - left) * (1 + 2 * CROP_MARGIN)))
    y, x = (top + bottom - wide) // 2, (left + right - wide) // 2
    inside_y, inside_x = (
        slice(max(y, 0), min(y + wide, mask.shape[0])),
        slice(max(x, 0), min(x + wide, mask.shape[1])),
    )
    pixels = image[inside_y, inside_x].astype(np.float32)
    faded = pixels + np.float32(FADE) * (GREY - pixels)
    shown = np.where(mask[inside_y, inside_x, None], pixels, faded)
    crop = np.full((wide, wide, 3), GREY, np.float32)
    crop[inside_y.start - y : inside_y.stop - y, inside_x.start - x : inside_x.stop - x] = shown
    how = cv2.INTER_AREA if wide > side else cv2.INTER_LINEAR
    return np.clip(cv2.resize(crop, (side, side), interpolation=how), 0, 255).round().astype(np.uint8)


def build_clip(config: Mapping[str, Any]) -> nn.Module:
    """An open_clip model with untrained weights, in evaluation mode.

    Args:
        config: one of open_clip's model configs ("embed_dim", "vision_cfg", "text_cfg", perhaps "quick_gelu",
            "custom_text"), with CLIP's own tokenizer and no tower of another library's Hub.

    Raises:
        ValueError: the config needs a download to be built, or open_clip refuses its values.
    """
    from open_clip.model import CLIP, CustomTextCLIP

    _check_supported(config)
    values = {key: value for key, value in config.items() if key != "custom_text"}
    vision = dict(values.get("vision_cfg", {}))
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False  # the weights come with ours
    try:
        kind = CustomTextCLIP if config.get("custom_text") else CLIP
        return kind(**{**values, "vision_cfg": vision}).eval()
    except (TypeError, KeyError) as error:
        raise ValueError(f"open_clip cannot build a model from this config: {error}") from error


def public_clip(name: str, pretrained: str) -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    """A public open_clip model: its config, its preprocessing ("mean", "std") and the model with its weights.

    Args:
        name: e.g. "ViT-B-32".
        pretrained: a tag of that model ("laion2b_s34b_b79k", downloaded) or a local checkpoint.

    Raises:
        ValueError: open_clip does not know the name or the weights, or the model is of a kind that is not
        supported.
    """
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(f"open_clip has no model {name!r}; expected one of open_clip.list_models(), e.g. 'ViT-B-32'.")
    tag = open_clip.get_pretrained_cfg(name, pretrained) or {}
    if tag.get("quick_gelu"):
        config["quick_gelu"] = True
    _check_supported(config)
    try:
        model = open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=bool(config.get("quick_gelu")))
    except Exception as error:  # open_clip raises RuntimeError, OSError or pickle errors for a bad tag or file
        raise ValueError(f"open_clip cannot load {name!r} with {pretrained!r}: {error}") from error
    seen = open_clip.get_model_preprocess_cfg(model)
    return config, {"mean": list(seen["mean"]), "std": list(seen["std"])}, model.eval()


def _check_supported(config: Mapping[str, Any]) -> None:
    text = config.get("text_cfg", {})
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "multimodal_cfg" in config:
        raise ValueError(
            "This open_clip model has a text tower or tokenizer of its own; expected one with CLIP's, e.g. ViT-B-32."
        )


def embed_crops(clip: nn.Module, crops: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Unit embeddings float32 [M, D] of crops uint8 [M, S, S, 3]."""
    weight = next(clip.parameters())
    pixels = torch.from_numpy(crops).to(weight.device).float() / 255
    pixels = (pixels - torch.tensor(mean, device=weight.device)) / torch.tensor(std, device=weight.device)
    encode: Any = clip.encode_image
    return F.normalize(encode(rearrange(pixels, "m h w c -> m c h w").to(weight.dtype)).float(), dim=-1)


def embed_phrases(clip: nn.Module, phrases: Sequence[str], context_length: int) -> Tensor:
    """Unit embeddings float32 [L, D] of texts."""
    device = next(clip.parameters()).device
    tokens = _tokenizer(context_length)(list(phrases)).to(device)
    encode: Any = clip.encode_text
    return F.normalize(encode(tokens).float(), dim=-1)


@lru_cache(maxsize=4)
def _tokenizer(context_length: int) -> Any:
    from open_clip import SimpleTokenizer

    return SimpleTokenizer(context_length=context_length)  # reads its vocabulary: not for every call


def phrase_log_odds(regions: Tensor, phrases: Tensor, contrast: Tensor, scale: float) -> Tensor:
    """How likely each region is each phrase rather than anything else that could be meant.

    A softmax over the phrase, the other phrases and the contrast phrases, leaving out those that say the
    same.

    Args:
        regions: unit embeddings [M, D].
        phrases: unit embeddings [L, D].
        contrast: unit embeddings [K, D] of what else might be in a picture.
        scale: CLIP's logit scale.

    Returns:
        log-probabilities float32 [M, L].
    """
    others = torch.cat([phrases, contrast])
    logits = scale * regions @ others.T
    columns = []
    for number in range(len(phrases)):
        rival = (others @ phrases[number]) < _SAME_PHRASE
        rival[number] = True
        columns.append(logits[:, number] - logits[:, rival].logsumexp(dim=1))
    return torch.stack(columns, dim=1)


def assign(
    log_odds: NDArray[np.floating[Any]],
    masks: NDArray[np.bool_],
    quality: NDArray[np.floating[Any]],
    weight: float,
) -> list[int]:
    """The best one-to-one choice of a mask for each phrase, such that no two chosen masks cover each other.

    Args:
        log_odds: [M, L] of :func:`phrase_log_odds`.
        masks: bool [M, H, W].
        quality: [M] in 0..1, how sure the segmentation is of each mask.
        weight: of the quality against the log-probabilities.

    Returns:
        for each phrase the number of its mask, or -1 where no mask is left (fewer masks than phrases).
    """
    from scipy.optimize import linear_sum_assignment

    worth = np.maximum(log_odds, _LEAST_LOG) + weight * quality[:, None]
    covered = covering(masks)
    # Two phrases may end up with a thing and a part of it. The better of the two keeps it, the other looks
    # again.
    barred = np.zeros(worth.shape, bool)
    while True:
        chosen = np.full(worth.shape[1], -1)
        rows, columns = linear_sum_assignment(np.where(barred, -1e6, worth), maximize=True)
        chosen[columns] = np.where(barred[rows, columns], -1, rows)
        clash = _worst_clash(chosen, covered, worth)
        if clash is None:
            return [int(mask) for mask in chosen]
        winner, loser = clash
        barred[covered[chosen[winner]], loser] = True


def with_companions(
    chosen: Sequence[int],
    log_odds: NDArray[np.floating[Any]],
    masks: NDArray[np.bool_],
    counts: Sequence[int | None],
    least: float,
) -> list[list[int]]:
    """All the masks of each phrase: the chosen one, and for a plural the others that fit it and nothing better.

    Args:
        chosen: for each of L phrases the number of its mask, or -1.
        log_odds: [M, L].
        masks: bool [M, H, W].
        counts: how many things each phrase means at most, None = any number.
        least: the log-probability from which on a mask belongs to a plural.

    Returns:
        for each phrase its masks, the chosen one first, then by log-probability; none for -1.
    """
    covered = covering(masks)
    members = [[mask] if mask >= 0 else [] for mask in chosen]
    taken = {mask for mask in chosen if mask >= 0}
    for number, count in enumerate(counts):
        for mask in np.argsort(-log_odds[:, number], kind="stable"):
            if not members[number] or (count is not None and len(members[number]) >= count):
                break
            own = log_odds[mask].argmax() == number and log_odds[mask, number] >= least
            if own and not any(covered[mask, other] for other in taken):
                members[number].append(int(mask))
                taken.add(int(mask))
    return members


def covering(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool [M, M]: whether two of the masks bool [M, H, W] share more than half of the smaller one."""
    flat = rearrange(masks, "m h w -> m (h w)").astype(np.float32)
    area = flat.sum(axis=1)
    return flat @ flat.T > 0.5 * np.minimum(area[:, None], area[None])


def _worst_clash(
    chosen: NDArray[np.int_], covered: NDArray[np.bool_], worth: NDArray[np.floating[Any]]
) -> tuple[int, int] | None:
    """(winner, loser) among phrases whose masks cover each other; None if there is no such pair."""
    found = [number for number, mask in enumerate(chosen) if mask >= 0]
    for number in sorted(found, key=lambda each: -worth[chosen[each], each]):
        for other in found:
            if other != number and covered[chosen[number], chosen[other]]:
                if worth[chosen[number], number] >= worth[chosen[other], other]:
                    return number, other
    return None
