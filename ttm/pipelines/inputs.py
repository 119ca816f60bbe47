"""What users hand in, checked and brought to the working size before any model runs.

The rule for aspect ratio and size: the working size is ``height`` x ``width`` (the pipeline's own by
default; multiples of the autoencoder's factor times the transformer's patch). Of the image the largest
centred part with that aspect ratio is cut out and resized to the working size, so that nothing is squeezed
and no border is invented. Masks and trajectories of the image's size are cut in the same place and resized
by the nearest pixel. A trajectory of another size is cut by the same rule on its own; one that has the
working size already stays as it is.

Letters: H W pixels, T frames, L objects.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.resize_ids import resize_ids
from ttm.objects import PromptPlan, ids_from_masks, validate_ids

logger = logging.getLogger(__name__)

Box = tuple[int, int, int, int]
"""top, left, height, width of a part of an image, pixels."""

_DEEP_MODES = ("I", "F")  # PIL's modes of more than 8 bits a channel begin with one of these
_ASPECT_TOLERANCE = 0.02


def read_image(image: Any) -> NDArray[np.uint8]:
    """An image as RGB, whatever it came as.

    Args:
        image: a PIL image (any 8-bit mode; transparency is dropped and a camera's orientation applied),
            the path of an image file, or uint8 [H, W, 3].

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: no such file, a file that is no image or is cut off, more than 8 bits a channel,
            another shape or dtype, NaN, or an empty image.
    """
    if isinstance(image, (str, os.PathLike)):
        return _open_image(image)
    if isinstance(image, Image.Image):
        return _from_pil(image, "image")
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"image is a {type(image).__name__}; expected a PIL image, a path, or a uint8 array [H, W, 3]."
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError(f"image is {image.dtype} and holds NaN or infinity; expected uint8 [H, W, 3] in 0..255.")
    if image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.dtype} {list(image.shape)}; expected uint8 [H, W, 3] in 0..255 (bring"
            " deeper or floating-point images to 8 bits first: only you know their range)."
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {list(image.shape)}; expected [H, W, 3] with no empty axis.")
    return image


def _open_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise ValueError(f"image {name!r} is no file; expected the path of an image, a PIL image, or an array.")
    try:
        with Image.open(name) as opened:
            return _from_pil(opened, f"image {name!r}")
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"image {name!r} is in no image format that can be read; expected PNG, JPEG, …") from error
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(_unreadable(f"image {name!r}", error)) from error


def _from_pil(image: Image.Image, name: str) -> NDArray[np.uint8]:
    # PIL reads 16-bit colour as 8 bits without a word; its decoder's raw mode tells, as long as nothing is decoded.
    raw_modes = [str(tile[3]) for tile in getattr(image, "tile", ())]
    deep = [mode for mode in raw_modes if re.search(r"(L|A|RGB|RGBX|CMYK);16", mode)]
    if deep or image.mode.startswith(_DEEP_MODES):
        raise ValueError(_too_deep(name, (*deep, image.mode)[0]))
    if 0 in image.size:
        raise ValueError(f"{name} has size {image.width} x {image.height}; expected at least one pixel.")
    try:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, EOFError) as error:  # a file that PIL has only opened so far
        raise ValueError(_unreadable(name, error)) from error


def _unreadable(name: str, error: Exception) -> str:
    return f"{name} cannot be read ({error}); expected a whole PNG, JPEG, …"


def _too_deep(name: str, mode: str) -> str:
    return (
        f"{name} has mode {mode!r}, more than 8 bits a channel; expected 8-bit RGB or grey (bring it to"
        " 8 bits first: only you know its range)."
    )


def centre_crop(size: tuple[int, int], to: tuple[int, int]) -> Box:
    """The largest centred part of an image that has another aspect ratio.

    Args:
        size: (H, W) of the image.
        to: (height, width) whose ratio to take.

    Returns:
        The part, in whole pixels, at least one in each direction.
    """
    scale = min(size[0] / to[0], size[1] / to[1])
    height, width = (min(have, max(1, round(want * scale))) for have, want in zip(size, to, strict=True))
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def cut(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The part ``box`` of an image [H, W] or [H, W, 3]."""
    top, left, height, width = box
    return pixels[top : top + height, left : left + width]


def fit_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cut and resize an image uint8 [H, W, 3] to the working size (see the rule at the head of this file)."""
    part = cut(image, centre_crop((image.shape[0], image.shape[1]), (height, width)))
    if part.shape[:2] == (height, width):
        return part
    return np.array(Image.fromarray(part).resize((width, height), Image.Resampling.LANCZOS))


def fit_ids(ids: NDArray[np.uint8], height: int, width: int, phrases: Sequence[str] | None = None) -> NDArray[np.uint8]:
    """Cut and resize first-frame ids uint8 [H, W] to the working size, as the image is.

    Args:
        phrases: what the objects are called, for the error.

    Raises:
        ValueError: an object lies wholly outside of the part that is kept.
    """
    part = cut(ids, centre_crop((ids.shape[0], ids.shape[1]), (height, width)))
    _expect_all_kept(ids, part, "image", phrases)
    return resize_ids(part, height, width)


def _expect_all_kept(
    whole: NDArray[np.uint8], part: NDArray[np.uint8], of: str, phrases: Sequence[str] | None = None
) -> None:
    """Raise ValueError if an object of ids [H, W] has no pixel in the centred part of them."""
    for number in np.setdiff1d(np.unique(whole), np.unique(part)):
        if number:
            name = f" ({phrases[number - 1]!r})" if phrases and number <= len(phrases) else ""
            raise ValueError(
                f"Object {number}{name} lies outside of the centred {part.shape[0]} x {part.shape[1]} part of"
                f" the {whole.shape[0]} x {whole.shape[1]} {of} that is kept; expected every object in it (crop"
                f" the {of} yourself, or pass a height and width of its aspect ratio)."
            )


def read_masks(masks: Any, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """First-frame masks as ids.

    Args:
        masks: integer ids [H, W], or a list of L boolean masks [H, W].
        image_size: (H, W) of the image they belong to.

    Returns:
        uint8 [H, W].

    Raises:
        ValueError: another size than the image, no object, a mask without a pixel, values that are no ids.
    """
    if isinstance(masks, (list, tuple)):
        ids = ids_from_masks(masks)
    else:
        ids = validate_ids(masks, ndim=2, name="masks")
    if ids.shape != tuple(image_size):
        raise ValueError(f"masks have size {list(ids.shape)}; expected that of the image, {list(image_size)}.")
    if not ids.any():
        raise ValueError("masks are background (0) everywhere; expected at least one pixel of every object.")
    return ids


def check_masks_against_plan(ids: NDArray[np.uint8], plan: PromptPlan) -> None:
    """Raise ValueError unless first-frame ids [H, W] hold exactly the plan's objects."""
    found = [int(number) for number in np.unique(ids) if number]
    expected = list(range(1, len(plan.objects) + 1))
    if found != expected:
        raise ValueError(
            f"masks hold the ids {found}; expected {expected}: one for each object of the plan, in its"
            f" order ({', '.join(plan.phrases)})."
        )


def check_trajectory_against_plan(trajectory: MaskTrajectory, plan: PromptPlan) -> None:
    """Raise ValueError unless a trajectory's ids are the plan's; an object never seen is only logged."""
    found = trajectory.object_ids
    count = len(plan.objects)
    if not found or found[-1] > count:
        raise ValueError(
            f"trajectory holds the ids {found}; expected ids of 1..{count}: the objects of the plan, in"
            f" its order ({', '.join(plan.phrases)})."
        )
    missing = [f"{number} ({plan.phrases[number - 1]})" for number in range(1, count + 1) if number not in found]
    if missing:
        logger.warning("The trajectory never shows object %s; its prompt has no place to act.", ", ".join(missing))


def fit_trajectory(trajectory: MaskTrajectory, image_size: tuple[int, int], height: int, width: int) -> MaskTrajectory:
    """Cut and resize a trajectory to the working size, by the rule at the head of this file.

    Raises:
        ValueError: it is no trajectory, its aspect ratio is neither the image's nor the working size's, or an object
            of its first frame lies wholly outside of the part that is kept.
    """
    if not isinstance(trajectory, MaskTrajectory):
        raise ValueError(f"trajectory is a {type(trajectory).__name__}; expected a ttm.MaskTrajectory.")
    size = (trajectory.height, trajectory.width)
    if size == (height, width):
        return trajectory
    if not (_same_aspect(size, image_size) or _same_aspect(size, (height, width))):
        raise ValueError(
            f"trajectory has size {list(size)}; expected the aspect ratio of the image"
            f" ({list(image_size)}) or of the"
            f" video to make ({[height, width]})."
        )
    box = centre_crop(size, (height, width))
    _expect_all_kept(trajectory.ids[0], cut(trajectory.ids[0], box), "trajectory")
    return trajectory.part(*box).resize(height, width)


def _same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    # Rounding a side to whole pixels moves the ratio by up to a pixel in that side; small sizes need the
    # room.
    slack = _ASPECT_TOLERANCE + 1 / min(*size, *other)
    return abs(math.log(size[0] * other[1] / (size[1] * other[0]))) <= slack


def check_num_frames(num_frames: Any, group: int, hint: str = "") -> int:
    """A number of frames that the autoencoder packs.

    Args:
        group: how many frames it packs into one latent frame after the first.
        hint: what to do about it, added to the error.

    Raises:
        ValueError: not a whole number from 1, or not 1 + a multiple of ``group``: names the nearest that
            are.
    """
    value = check_count(num_frames, "num_frames")
    if (value - 1) % group:
        below = (value - 1) // group * group + 1
        raise ValueError(
            f"num_frames is {value}, which the autoencoder can't pack: it takes 1 + a multiple of"
            f" {group} frames; nearest are {below} and {below + group}.{hint}"
        )
    return value


def check_size(height: Any, width: Any, multiple: tuple[int, int]) -> tuple[int, int]:
    """A working size that autoencoder and patch embedding divide evenly.

    Raises:
        ValueError: not positive multiples: names the nearest that are.
    """
    sizes = []
    for name, value, step in zip(("height", "width"), (height, width), multiple, strict=True):
        size = check_count(value, name)
        if size % step:
            below = max(step, size // step * step)
            near = f"{below} and {below + step}" if size > step else f"{step}"
            raise ValueError(f"{name} is {size}; expected a multiple of {step} pixels (nearest: {near}).")
        sizes.append(size)
    return sizes[0], sizes[1]


def check_count(value: Any, name: str) -> int:
    """A whole number from 1, or ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number from 1.")
    return int(value)


def check_scale(value: Any, name: str) -> float:
    """A guidance scale: finite and not negative, or ValueError."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value!r}; expected a finite number from 0 (1 = no guidance).")
    return float(value)


def to_model(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Frames uint8 [T, H, W, 3] as the autoencoder takes them: float32 [1, 3, T, H, W] in -1..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    return rearrange(tensor, "t h w c -> 1 c t h w").float() / 127.5 - 1


def to_uint8(frames: Tensor) -> NDArray[np.uint8]:
    """The inverse of :func:`to_model`: float [1, 3, T, H, W] in -1..1 to uint8 [T, H, W, 3]."""
    scaled = ((frames[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(rearrange(scaled, "c t h w -> t h w c").cpu().numpy())
