"""What few-shot training leaves: a folder with what was trained and nothing else.

    few_shot.json            which base it belongs to, how its U-Net is set up, and what a pipeline uses by default
    few_shot.safetensors     the trained parameters alone, under the names they have in the U-Net; of a run with LoRA
                             its low-rank matrices and the new layers

On opening, low-rank matrices are added to the weights that they change, so that a pipeline needs no peft afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttm.atomic_write import written_beside
from ttm.models.lora import add_lora, merge_lora
from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE, Base, host_sizes

INDEX = "few_shot.json"
WEIGHTS = "few_shot.safetensors"
FORMAT = "through-the-mask few-shot 1"


@dataclass(frozen=True)
class FewShotRecord:
    """few_shot.json.

    Attributes:
        base: what it was trained on.
        switches: of ``MaskedUNetMotionModel``.
        sizes: of the U-Net, see :func:`ttm.pipelines.few_shot_base.host_sizes`.
        lora_rank: of low-rank matrices, or None: whole layers were trained.
        noise: the betas that it was trained with, arguments of ``DDIMScheduler``.
        settings: of ``FewShotPipeline``, what calls use by default.
        trained_on: clips, prompts and steps, for people.
        base_fingerprint: :meth:`Base.fingerprint` of the base then; None where it is not known.
    """

    base: Base
    switches: dict[str, Any]
    sizes: dict[str, Any]
    lora_rank: int | None = None
    noise: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    trained_on: dict[str, Any] = field(default_factory=dict)
    base_fingerprint: str | None = None

    @classmethod
    def load(cls, path: Path) -> FewShotRecord:
        """Read few_shot.json.

        Raises:
            ValueError: no JSON, or no such record.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} can't be read ({error}); expected what few-shot training writes.") from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"{path} describes no few-shot training; expected 'format': {FORMAT!r}.")
        try:
            return cls(**{**values, "base": Base(**values["base"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); expected what few-shot training writes.") from error


def is_few_shot_folder(folder: Path) -> bool:
    """Whether a folder is one that few-shot training wrote."""
    return (folder / INDEX).is_file()


def write_few_shot(folder: Path, weights: Mapping[str, Tensor], record: FewShotRecord) -> None:
    """Write the two files, each whole or not at all; the record, by which a folder is known, last.

    Raises:
        OSError: the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with written_beside(folder / WEIGHTS) as path:
        try:
            save_file({n: value.detach().cpu().contiguous() for n, value in weights.items()}, path, {"format": "pt"})
        except SafetensorError as error:  # what the system said, in its words
            raise OSError(str(error)) from error
    with written_beside(folder / INDEX) as path:
        values = {"format": FORMAT, **asdict(record)}
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def open_few_shot(
    folder: Path, base: Base | None = None, dtype: torch.dtype = torch.float32, **settings: Any
) -> dict[str, Any]:
    """A trained pipeline as arguments of ``FewShotPipeline``.

    Args:
        folder: written by :func:`write_few_shot`.
        base: in the place of the record's, if that has moved.
        dtype: of the models.
        settings: in the place of the record's.

    Raises:
        ValueError: a damaged file, a base that is not there, or weights that don't fit its U-Net.
    """
    record = FewShotRecord.load(folder / INDEX)
    weights = _read_weights(folder / WEIGHTS)
    base = base or record.base
    found = base.fingerprint()
    if None not in (found, record.base_fingerprint) and found != record.base_fingerprint:
        raise ValueError(
            f"{folder} was trained on other weights than {base.pipeline} has now ({record.base_fingerprint}, and"
            f" {found}); expected the ones it was trained on (base=), or a training on these."
        )
    components = base.components(dtype, **record.switches)
    unet = components["unet"]
    if (sizes := host_sizes(unet)) != record.sizes:
        name = next(key for key in sizes if sizes[key] != record.sizes.get(key))
        raise ValueError(
            f"{folder} was not trained on {base.pipeline}: its U-Net's {name} is"
            f" {record.sizes.get(name)}; expected {sizes[name]}."
        )
    if record.lora_rank is None:
        load_trained(unet, weights, folder)
    else:
        unet.float()  # what was learnt is small beside the weights that it is added to
        add_lora(unet, record.lora_rank)
        load_trained(unet, weights, folder)
        merge_lora(unet)
        unet.to(dtype)
    components["scheduler"] = DDIMScheduler(**{**STABLE_DIFFUSION_NOISE, **record.noise})
    return {**components, **record.settings, **settings}


def load_trained(unet: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Put trained parameters in their places; the U-Net is untouched unless all of them fit.

    Raises:
        ValueError: the U-Net has no such parameter, or one of another shape.
    """
    own = dict(unet.named_parameters())
    for name, value in weights.items():
        if name not in own:
            raise ValueError(f"{source} does not fit the U-Net: it has no {name!r}; expected the base it was made for.")
        if own[name].shape != value.shape:
            raise ValueError(
                f"{source} does not fit the U-Net: {name!r} is {list(value.shape)}; expected {list(own[name].shape)}."
            )
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} can't be read ({error}); expected a whole safetensors file.") from error
