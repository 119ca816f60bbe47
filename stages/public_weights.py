"""Weight files of a public checkpoint: which ones they are, and whether they are what their configuration says.

Everything here reads headers alone: a checkpoint of 60 GB is judged within a second, before anything is copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, MotionAdapter, UNet2DConditionModel, WanTransformer3DModel

from ttm.models.weight_files import read_header

STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""How the two libraries call a component's weights."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (AutoencoderKL, AutoencoderKLWan, MotionAdapter, UNet2DConditionModel, WanTransformer3DModel)
}
"""Classes whose tensors are compared with their configuration; the others' libraries do so on loading."""
_SURPLUS = ("norm_added_q", "position_ids")
"""Tensors that public checkpoints hold and diffusers passes over."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ValueError: the file is missing, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read ({error}); expected a JSON file of diffusers' layout.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; expected a JSON object.")
    return values


def weight_files(folder: Path, library: str = "diffusers") -> list[Path]:
    """The safetensors files of a component, and the index of its shards where there is one.

    Variants (``.fp16.``) and other copies beside them are left out.

    Raises:
        ValueError: there are none, a pickle in their place, a shard is missing, or the index names other files.
    """
    stem = STEMS[library]
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        places = read_json(index).get("weight_map")
        names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
        if strange := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
            raise ValueError(f"{index} names {strange[0]!r}; expected safetensors files beside it.")
        missing = [name for name in names if not (folder / name).is_file()]
        if not names or missing:
            lost = missing[0] if missing else "its shards"
            raise ValueError(f"{folder} lacks {lost}; expected what {index.name} names.")
        return [index, *(folder / name for name in names)]
    found = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES) if folder.is_dir() else []
    if found:
        raise ValueError(
            f"{folder} holds {found[0]}, a pickle, which runs code when it is read; expected {single.name} (open it"
            " with a library that you trust and save it as safetensors)."
        )
    raise ValueError(f"{folder} holds no weights; expected {single.name}, or {index.name} and its shards.")


def shapes_of(folder: Path, library: str = "diffusers") -> dict[str, list[int]]:
    """Names and shapes of all tensors of a component.

    Raises:
        ValueError: see :func:`weight_files` and :func:`ttm.models.weight_files.read_header`.
    """
    shapes: dict[str, list[int]] = {}
    for path in weight_files(folder, library):
        if path.suffix == ".safetensors":
            shapes |= read_header(path)
    return shapes


def on_meta(config: Mapping[str, Any]) -> Any:
    """A model of a configuration, without weights: on the meta device.

    Raises:
        ValueError: a class that is not in ``CLASSES``, or settings that it does not take.
    """
    name = str(config.get("_class_name"))
    if name not in CLASSES:
        raise ValueError(f"The class is {name}; expected one of {', '.join(sorted(CLASSES))}.")
    try:
        with torch.device("meta"):
            return CLASSES[name].from_config(dict(config))
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError) as error:
        raise ValueError(f"No {name} can be made of this configuration: {error}") from error


def check_weights(folder: Path, library: str = "diffusers") -> None:
    """Compare a component's tensors with those that its configuration asks for.

    Raises:
        ValueError: the files are missing, pickled or damaged, or hold another model than config.json describes.
    """
    found = shapes_of(folder, library)
    config = read_json(folder / "config.json")
    if library != "diffusers" or config.get("_class_name") not in CLASSES:
        return
    model, name = on_meta(config), config["_class_name"]
    model._fix_state_dict_keys_on_load(found)  # Stable Diffusion's autoencoder has names of its attention from long ago
    expected = {name: list(value.shape) for name, value in model.state_dict().items()}
    lost = sorted({name for name, _ in model.named_parameters()} - found.keys())
    strange = sorted(key for key in found.keys() - expected.keys() if not any(part in key for part in _SURPLUS))
    if lost or strange:
        first = f"lack {lost[0]!r}" if lost else f"also hold {strange[0]!r}"
        raise ValueError(f"The weights in {folder} {first}; expected those of the {name} of its config.json.")
    for key, shape in expected.items():
        if found.get(key, shape) != shape:  # a buffer may be missing: it is made anew
            raise ValueError(
                f"The weights in {folder} are of another size: {key!r} is {found[key]}; expected {shape}, as its"
                " config.json says."
            )
