"""The parts of a few-shot pipeline, from a Stable Diffusion 1.x folder or Hub id, and whether they fit each other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import AutoTokenizer, CLIPTextModel

from ttm.models.base import fingerprint
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.pipelines.embedded import embedded_folder, embedded_models

STABLE_DIFFUSION_NOISE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Stable Diffusion's noise levels and objective. The few-shot variant keeps the objective, and the levels where its
motion modules know them (:attr:`Base.beta_schedule`)."""

_EXPECTED = "expected the layout of Stable Diffusion 1.x (vae, tokenizer, text_encoder, unet)"


@dataclass(frozen=True)
class Base:
    """Where the parts of a pipeline come from; names of embedded models, folders or Hub ids.

    Attributes:
        pipeline: has vae/, tokenizer/, text_encoder/ and unet/.
        motion_adapter: AnimateDiff's motion modules; None = the pipeline's motion_adapter/ where it has one, else
            modules that begin with nothing.
        controlnet: from masks to images; None = the pipeline's controlnet/ where it has one, else none.
    """

    pipeline: str
    motion_adapter: str | None = None
    controlnet: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @property
    def beta_schedule(self) -> str:
        """Of the noise that the motion modules know: AnimateDiff's is "linear", of any but the pipeline's own adapter;
        that one, and modules that begin with nothing, learn on Stable Diffusion's."""
        own = (embedded_folder(self.pipeline) or Path(self.pipeline)) / "motion_adapter"
        if self.motion_adapter is None or Path(self.motion_adapter).resolve() == own.resolve():
            return str(STABLE_DIFFUSION_NOISE["beta_schedule"])
        return "linear"

    def fingerprint(self) -> str | None:
        """Of the weights that training leaves as they are (:func:`ttm.models.base.fingerprint`): U-Net, motion modules,
        autoencoder and text encoder. None for a Hub id, whose files are not looked for."""
        places = [(_Place.of(self.pipeline), part) for part in ("unet", "vae", "text_encoder")]
        adapter = (_Place.of(self.pipeline), "motion_adapter")
        places.append(adapter if self.motion_adapter is None else (_Place.of(self.motion_adapter), "."))
        if any(place.folder is None for place, _ in places):
            return None
        folders = [place.folder / part for place, part in places if place.folder is not None]
        return fingerprint(path for folder in folders for path in sorted(folder.glob("*.safetensors")))

    def components(self, dtype: torch.dtype = torch.float32, **switches: Any) -> dict[str, Any]:
        """Open all parts, for ``FewShotPipeline``.

        Args:
            dtype: of the models.
            switches: of ``MaskedUNetMotionModel``; first_frame_attention and mask_cross_attention are on by default.

        Raises:
            ValueError: a part is missing, damaged, or of another base than the rest.
        """
        pipeline = _Place.of(self.pipeline)
        image_unet = pipeline.load(UNet2DConditionModel, "unet", torch_dtype=dtype)
        adapter = self._optional(MotionAdapter, self.motion_adapter, "motion_adapter", dtype)
        controlnet = self._optional(ControlNetModel, self.controlnet, "controlnet", dtype)
        check_controlnet(controlnet, image_unet)
        switches = {"first_frame_attention": True, "mask_cross_attention": True, **switches}
        return {
            "vae": pipeline.load(AutoencoderKL, "vae", torch_dtype=dtype),
            "tokenizer": pipeline.load(AutoTokenizer, "tokenizer"),
            "text_encoder": pipeline.load(CLIPTextModel, "text_encoder", dtype=dtype),
            "unet": MaskedUNetMotionModel.from_unet2d(image_unet, adapter, **switches),
            "image_unet": image_unet,
            "controlnet": controlnet,
            "scheduler": DDIMScheduler(**{**STABLE_DIFFUSION_NOISE, "beta_schedule": self.beta_schedule}),
        }

    def _optional(self, kind: Any, name: str | None, subfolder: str, dtype: torch.dtype) -> Any:
        """A part that has a place of its own, lies in the pipeline, or is not there."""
        if name is not None:
            return _Place.of(name).load(kind, None, torch_dtype=dtype)
        place = _Place.of(self.pipeline)
        return place.load(kind, subfolder, torch_dtype=dtype) if place.has(subfolder) else None


@dataclass(frozen=True)
class _Place:
    """A folder, or a Hub id."""

    name: str
    folder: Path | None

    @classmethod
    def of(cls, name: str | os.PathLike[str]) -> _Place:
        name = os.fspath(name)
        folder = embedded_folder(name) or (Path(name) if os.path.isdir(name) else None)
        if folder is None and (name.count("/") != 1 or name.startswith((".", "/")) or name.endswith("/")):
            embedded = ", ".join(embedded_models()) or "none in this installation"
            raise ValueError(
                f"There is no folder {name!r}; expected an embedded model ({embedded}), a folder, or a Hub id of the"
                " form 'owner/name'."
            )
        return cls(name, folder)

    def has(self, subfolder: str) -> bool:
        """Whether a folder holds a part; of a Hub id only what every pipeline has is expected."""
        return self.folder is not None and (self.folder / subfolder).is_dir()

    def load(self, kind: Any, subfolder: str | None, **options: Any) -> Any:
        if self.folder is not None and subfolder is not None and not (self.folder / subfolder).is_dir():
            raise ValueError(f"{self.name} has no folder {subfolder!r}; {_EXPECTED}.")
        where = {} if subfolder is None else {"subfolder": subfolder}
        if kind is not AutoTokenizer:
            options["use_safetensors"] = True
        open_it: Callable[..., Any] = kind.from_pretrained
        try:
            return open_it(str(self.folder or self.name), **where, **options)
        except (OSError, SafetensorError, json.JSONDecodeError, KeyError, RuntimeError) as error:
            part = f"{self.name}/{subfolder}" if subfolder else self.name
            raise ValueError(f"{part} can't be opened as a {kind.__name__}: {error}") from error


def check_controlnet(controlnet: Any, image_unet: Any) -> None:
    """Raise ValueError unless a ControlNet was made for this image U-Net (or there is none)."""
    if controlnet is None:
        return
    if image_unet is None:
        raise ValueError("There is a ControlNet but no image_unet for it to steer; expected both, or neither.")
    for name in ("in_channels", "cross_attention_dim", "block_out_channels", "layers_per_block"):
        found, expected = _plain(controlnet.config.get(name)), _plain(image_unet.config.get(name))
        if found != expected:
            raise ValueError(
                f"The ControlNet is of another base: its {name} is {found}; expected {expected}, as the U-Net's."
            )


def host_sizes(unet: Any) -> dict[str, Any]:
    """What must be equal in two U-Nets for the weights of one to fit the other, as plain JSON values."""
    names = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "motion_max_seq_length")
    return {name: _plain(unet.config[name]) for name in names}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
