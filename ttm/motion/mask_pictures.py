"""Masks in picture files: black and white, ids as grey values, an indexed picture, or the palette's colours.

Pixels that are wholly transparent are background, whatever colour lies below; half-transparent ones are refused.

Letters: T frames, L objects, H W pixels.
"""

from __future__ import annotations

import re
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ttm.motion.mask_trajectory import PALETTE, MaskTrajectory
from ttm.objects import MAX_OBJECTS

PICTURES = (".png", ".bmp", ".tif", ".tiff")
"""Suffixes of formats that keep every pixel as it was painted."""


def read_mask_file(path: str | Path) -> NDArray[np.generic]:
    """Read one mask file.

    Args:
        path: a picture (see the head of this file) or a ``.npy`` file of integers [H, W] or booleans [H, W] or
            [L, H, W].

    Returns:
        booleans [H, W] or [L, H, W] where the file is black and white or holds booleans, else ids [H, W].

    Raises:
        ValueError: a file that is missing, damaged, or holds no masks; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; expected a mask (PNG or NPY).")
    return _from_numpy(path) if path.suffix.lower() == ".npy" else _from_picture(path)


def read_painted_frames(folder: str | Path, fps: float = 8.0) -> MaskTrajectory:
    """Read a folder of painted frames, one mask picture a frame, in the order of the numbers in their names.

    If every frame is black and white alone, white is object 1; else the frames are ids, or the palette's colours.

    Args:
        folder: its pictures are the frames ("mask_9.png" before "mask_10.png"; the last number in a name counts);
            hidden files and files of other kinds are left out.
        fps: frames a second.

    Raises:
        ValueError: no folder, no picture in it, names without or with equal numbers, another size than the first
            frame's, a file that is no mask, or no object in any frame.
    """
    numbered = _numbered(Path(folder))
    frames = [read_mask_file(path) for path in numbered]
    for path, frame in zip(numbered, frames, strict=True):
        if frame.shape != frames[0].shape:
            (height, width), (first_height, first_width) = frame.shape, frames[0].shape
            raise ValueError(
                f"{path} is {width} x {height}; expected {first_width} x {first_height}, as {numbered[0].name}."
            )
    if any(frame.dtype != bool for frame in frames):
        # White is the seventh colour of the palette; a frame without any object is black and white too.
        white = [path for path, frame in zip(numbered, frames, strict=True) if frame.dtype == bool and frame.any()]
        if white:
            raise ValueError(f"{white[0]} is black and white; expected ids or the palette's colours, as other frames.")
    ids = np.stack(frames).astype(np.uint8)
    if not ids.any():
        raise ValueError(f"{folder} shows no object in any frame; expected ids from 1, colours, or white.")
    return MaskTrajectory(ids, fps)


def ids_picture(ids: NDArray[np.uint8]) -> Image.Image:
    """Ids [H, W] as an indexed picture: a viewer shows the palette, :func:`read_mask_file` reads the ids."""
    picture = Image.fromarray(ids, mode="L").convert("P")
    picture.putdata(ids.ravel().tolist())
    picture.putpalette(PALETTE.ravel().tolist())
    return picture


def _numbered(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; expected one with a mask picture for every frame.")
    pictures = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    if not pictures:
        raise ValueError(f"{folder} holds no mask picture; expected one a frame ({', '.join(PICTURES)}).")
    numbers: dict[int, Path] = {}
    for path in sorted(pictures):
        found = re.findall(r"\d+", path.stem)
        if not found:
            raise ValueError(f"{path} has no number in its name; expected frame_000.png, frame_001.png, ...")
        if int(found[-1]) in numbers:
            raise ValueError(f"{path} and {numbers[int(found[-1])].name} have the same number; expected one a frame.")
        numbers[int(found[-1])] = path
    return [numbers[number] for number in sorted(numbers)]


def _from_numpy(path: Path) -> NDArray[np.generic]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise ValueError(f"{path} is no plain NumPy array, or is damaged ({error}).") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is an archive of arrays (.npz); expected a single one (.npy).")
    whole = (array.dtype.kind in "iu" and array.ndim == 2) or (array.dtype == bool and array.ndim in (2, 3))
    if not whole or array.size == 0:
        shape = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"{path} holds {shape}; expected integers [H, W] or booleans [H, W] or [L, H, W].")
    return array


def _from_picture(path: Path) -> NDArray[np.generic]:
    picture = _open(path)
    if picture.mode not in ("1", "L", "P", "RGB", "RGBA"):
        raise ValueError(f"{path} has mode {picture.mode}; expected an 8-bit grey or indexed PNG.")
    array = np.array(picture.convert("RGB") if picture.mode == "RGBA" else picture)
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        if not np.isin(alpha, (0, 255)).all():
            raise ValueError(
                f"{path} has half-transparent pixels; expected opaque ones, or no colour at all (background)."
            )
        array[alpha == 0] = 0
    if array.ndim == 3:
        return _from_colours(array, path)
    if array.dtype == bool or set(np.unique(array)) <= {0, 255}:
        return array.astype(bool)
    if array.max() > MAX_OBJECTS:
        found = f"values up to {int(array.max())}"
        raise ValueError(f"{path} holds {found}; expected ids 0..{MAX_OBJECTS}, or black and white alone.")
    return array


def _from_colours(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.generic]:
    """Pixels [H, W, 3] in black and white as booleans, in exactly the palette's colours as ids."""
    if np.isin(pixels, (0, 255)).all() and (pixels[..., :1] == pixels).all():
        return pixels[..., 0].astype(bool)
    same = (pixels[:, :, None, :] == PALETTE).all(axis=-1)
    if not same.any(axis=-1).all():
        raise ValueError(f"{path} is a colour picture; expected ids, black and white, or the palette's colours.")
    return same.argmax(axis=-1).astype(np.uint8)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no picture that can be read; expected PNG, JPEG, WebP, ...") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}.") from error
