"""SAM2 models from plain configs, Hub ids and local checkpoints, without leaving a trace in hydra's global
state.

Importing ``sam2`` initialises hydra globally: a later ``@hydra.main`` then raises, and inside one ``compose``
cannot find sam2's configs. So sam2 is imported late, its configs are read as plain YAML, and the state is
cleared if it was sam2 that set it. Who calls sam2's own ``build_sam2`` in the same process imports sam2 first, or
calls ``hydra.initialize_config_module("sam2", version_base="1.2")``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

_CLASSES = frozenset(
    {
        "sam2.modeling.backbones.hieradet.Hiera",
        "sam2.modeling.backbones.image_encoder.FpnNeck",
        "sam2.modeling.backbones.image_encoder.ImageEncoder",
        "sam2.modeling.memory_attention.MemoryAttention",
        "sam2.modeling.memory_attention.MemoryAttentionLayer",
        "sam2.modeling.memory_encoder.CXBlock",
        "sam2.modeling.memory_encoder.Fuser",
        "sam2.modeling.memory_encoder.MaskDownSampler",
        "sam2.modeling.memory_encoder.MemoryEncoder",
        "sam2.modeling.position_encoding.PositionEmbeddingSine",
        "sam2.modeling.sam.transformer.RoPEAttention",
        "sam2.sam2_video_predictor.SAM2VideoPredictor",
    }
)
"""All that a config may instantiate: configs come from the Hub, and hydra calls whatever they name."""

VIDEO_PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"


@contextmanager
def hydra_left_as_found() -> Iterator[None]:
    """Clear hydra's global state at the end of the block if it was clear at its beginning."""
    from hydra.core.global_hydra import GlobalHydra

    found = GlobalHydra.instance().is_initialized()
    try:
        yield
    finally:
        if not found:
            GlobalHydra.instance().clear()


def build_sam2(config: Mapping[str, Any]) -> nn.Module:
    """A SAM2 model with untrained weights, on the CPU, in evaluation mode.

    Args:
        config: the ``model`` node of one of sam2's YAML files as plain values, every object a ``_target_``.
        The
            root is built as the video predictor, which also serves the image predictor and the mask
            generator.

    Raises:
        ValueError: the config names a class outside of SAM2's own or holds an interpolation, or SAM2 refuses the
            values.
    """
    _check_config(config, "sam2 config")
    with hydra_left_as_found():
        from hydra.errors import InstantiationException
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        try:
            model = instantiate(OmegaConf.create(dict(config)), _convert_="all")
        except InstantiationException as error:
            raise ValueError(f"SAM2 cannot be built from its config: {error}") from error
    return model.eval()


def public_config(name: str | Path) -> dict[str, Any]:
    """Read one of SAM2's YAML files as the plain values that :func:`build_sam2` takes.

    Args:
        name: a file, or a path inside the sam2 package ("configs/sam2.1/sam2.1_hiera_t.yaml").

    Raises:
        ValueError: there is no such file, or it has no ``model`` node.
    """
    from omegaconf import OmegaConf

    path = Path(name)
    if not path.is_file():
        with hydra_left_as_found():
            path = Path(str(resources.files("sam2"))) / name
    if not path.is_file():
        raise ValueError(
            f"SAM2 config {str(name)!r} is no file; expected a YAML file, or e.g."
            " configs/sam2.1/sam2.1_hiera_t.yaml of the sam2 package."
        )
    loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("model"), dict):
        raise ValueError(f"{path} has no 'model' node; expected the layout of sam2's own YAML files.")
    config = {str(key): value for key, value in loaded["model"].items()}
    config["_target_"] = VIDEO_PREDICTOR
    # As sam2 sets it for inference: an unstable single mask falls back to the best of the three.
    config["sam_mask_decoder_extra_args"] = {
        **config.get("sam_mask_decoder_extra_args", {}),
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    return config


def hub_files(model_id: str) -> tuple[str, str]:
    """Config path and downloaded checkpoint of a public SAM2 id such as "facebook/sam2.1-hiera-tiny".

    Raises:
        ValueError: the id is not one of SAM2's.
    """
    with hydra_left_as_found():
        from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
    if model_id not in HF_MODEL_ID_TO_FILENAMES:
        known = ", ".join(sorted(HF_MODEL_ID_TO_FILENAMES))
        raise ValueError(f"{model_id!r} is no public SAM2 model; expected one of {known}, or (config, checkpoint).")
    from huggingface_hub import hf_hub_download

    config, file_name = HF_MODEL_ID_TO_FILENAMES[model_id]
    return config, hf_hub_download(repo_id=model_id, filename=file_name)


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load weights in SAM2's public layout ({"model": state_dict} in a .pt file), or a .safetensors file.

    Raises:
        ValueError: the file cannot be read as weights, or they belong to another config.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"SAM2 checkpoint {path} does not exist; expected a .pt or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise a dozen types for a damaged file
        raise ValueError(
            f"{path} cannot be read as weights ({error}); expected a whole .pt or .safetensors file."
        ) from error
    state = state.get("model", state) if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no weights; expected the layout {{'model': state_dict}}.")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"{path} does not fit its SAM2 config: {reason}") from error


def _check_config(node: Any, where: str) -> None:
    """Refuse whatever could run code of another's choice; raises ValueError."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and target not in _CLASSES:
            raise ValueError(f"{where} names {target!r}; expected only SAM2's own classes: {sorted(_CLASSES)}.")
        for key, value in node.items():
            _check_config(key, f"{where}, a key,")
            _check_config(value, f"{where}.{key}")
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            _check_config(value, f"{where}[{number}]")
    elif isinstance(node, str) and "${" in node:
        # A resolver of OmegaConf can make a node, _target_ and all, out of a text that holds none before.
        raise ValueError(f"{where} is {node!r}; expected plain values, without interpolations (${{...}}).")
