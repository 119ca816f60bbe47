"""The components that a stage trains on, and the host that it trains."""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, MotionAdapter
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import Tensor, nn
from transformers import AutoModelForTextEncoding, AutoTokenizer, CLIPImageProcessor, CLIPVisionModel

from stages.settings import Settings
from stages.whole_files import replace_folder
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.pipelines.autoencoders import AUTOENCODERS, LatentFormat


def expect_component(pipeline: str, name: str) -> None:
    """Say at once when a local pipeline folder lacks a component.

    Raises:
        ValueError: the folder is there, the component is not; or it looks like a path and is not there.
    """
    folder = Path(pipeline)
    looks_local = folder.exists() or pipeline.startswith((".", "/")) or pipeline.count("/") > 1
    if looks_local and not (folder / name).is_dir():
        raise ValueError(f"host.pipeline={pipeline} has no folder {name!r}; expected one in diffusers' layout.")


def load_vae(pipeline: str, device: torch.device | str = "cpu") -> Any:
    """The frozen autoencoder of a pipeline folder (or Hub id), of images or of videos, fp32.

    Raises:
        ValueError: the folder has none, or one of a class that :mod:`ttm.pipelines.autoencoders` doesn't know.
    """
    expect_component(pipeline, "vae")
    name = AutoencoderKLWan.load_config(pipeline, subfolder="vae").get("_class_name")
    kinds: dict[str, Any] = {kind.__name__: kind for kind in AUTOENCODERS}
    if name not in kinds:
        raise ValueError(f"The autoencoder of {pipeline} is a {name}; expected one of {', '.join(kinds)}.")
    vae = kinds[name].from_pretrained(pipeline, subfolder="vae", torch_dtype=torch.float32, use_safetensors=True)
    return vae.eval().requires_grad_(False).to(device)


def load_text(pipeline: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The tokenizer and the frozen text encoder (UMT5 or CLIP) of a pipeline folder (or Hub id)."""
    for name in ("tokenizer", "text_encoder"):
        expect_component(pipeline, name)
    tokenizer = AutoTokenizer.from_pretrained(pipeline, subfolder="tokenizer")
    place = {"subfolder": "text_encoder", "dtype": dtype, "use_safetensors": True}
    encoder = AutoModelForTextEncoding.from_pretrained(pipeline, **place)
    return tokenizer, encoder.eval().requires_grad_(False).to(device)


def load_image_encoder(pipeline: str, device: torch.device | str = "cpu") -> tuple[Any, Any]:
    """The frozen image encoder and its processor, of a host with an image embedder, fp32."""
    for name in ("image_encoder", "image_processor"):
        expect_component(pipeline, name)
    place = {"subfolder": "image_encoder", "dtype": torch.float32, "use_safetensors": True}
    encoder = CLIPVisionModel.from_pretrained(pipeline, **place)
    processor = CLIPImageProcessor.from_pretrained(pipeline, subfolder="image_processor")
    return encoder.eval().requires_grad_(False).to(device), processor


def image_parts(model: Any, pipeline: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The components that a pipeline needs for this host's own image embedder; nothing for a host without."""
    if model.config.get("image_dim") is None:
        return {}
    return dict(zip(("image_encoder", "image_processor"), load_image_encoder(pipeline, device), strict=True))


def module_digest(module: nn.Module, length: int = 12) -> str:
    """A hash of a module's weights: their names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:length]


def weights_digest(parameters: Iterable[Tensor]) -> str:
    """A hash of a thousand or two of the values of each parameter, in milliseconds whatever their size.

    Values count in bfloat16 and names do not: the same weights are the same in either precision, and with a release
    of a library that calls them otherwise.
    """
    digest = hashlib.sha256()
    for parameter in parameters:
        values = parameter.detach().flatten()
        chosen = values[:: max(1, len(values) // 1024)].to("cpu", torch.bfloat16)
        digest.update(str(tuple(parameter.shape)).encode())
        digest.update(chosen.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:12]


def encoder_digest(vae: Any) -> str:
    """A hash of what decides an autoencoder's latents: its decoder may go on learning, and a cache stays good."""
    parts = nn.ModuleDict({name: getattr(vae, name) for name in ("encoder", "quant_conv") if getattr(vae, name, None)})
    form = LatentFormat.of(vae)
    scale = (list(form.mean), list(form.std))
    return hashlib.sha256(f"{module_digest(parts)}{scale}".encode()).hexdigest()[:12]


_ACCEPTED = {
    "wan": ("MaskedWanTransformer3DModel", "WanTransformer3DModel"),
    "unet_motion": ("MaskedUNetMotionModel", "UNetMotionModel", "UNet2DConditionModel"),
}


def host_class(model: str) -> Any:
    """The class that ``host.model`` names."""
    return {"wan": MaskedWanTransformer3DModel, "unet_motion": MaskedUNetMotionModel}[model]


def build_transformer(settings: Settings) -> Any:
    """The host to train: weights (``host.init_from``), or random ones of the host's size.

    ``init_from`` may be a folder of weights, a pipeline folder (its ``motion_transformer`` or ``transformer`` is
    taken, by stage), or a Hub id. With ``motion_adapter`` it is Stable Diffusion's (its ``unet`` is taken), which
    the adapter makes a video model. New branches that the weights lack start as the model defines.

    Raises:
        ValueError: no such folder, weights of another class, no size to build from or one that the host does not have,
            fewer masked blocks than the weights have, or an adapter that doesn't fit.
    """
    host, cls = settings.host, host_class(settings.host.model)
    torch.manual_seed(settings.seed)  # what the weights do not hold begins at random
    if host.init_from is None:
        if not host.transformer:
            raise ValueError("host.transformer is empty and host.init_from null; expected sizes or weights.")
        sizes = {key: tuple(v) if isinstance(v, list) else v for key, v in host.transformer.items()}
        known = inspect.signature(cls.__init__).parameters
        switches = _switches(settings, int(sizes.get("out_channels", known["out_channels"].default)))
        _check_sizes(sizes, known.keys() - switches.keys() - {"self"}, host.model)
        return cls(**sizes, **switches)
    first = settings.stage.name == "image_to_motion"
    names = ("motion_transformer", "transformer") if first else ("transformer",)
    if host.motion_adapter is not None:
        names = ("unet",)
    subfolder = _subfolder(host.init_from, names, "host.init_from")
    config = cls.load_config(host.init_from, subfolder=subfolder)
    if config.get("_class_name") not in _ACCEPTED[host.model]:
        raise ValueError(
            f"host.init_from={host.init_from} holds a {config.get('_class_name')}; expected one of"
            f" {', '.join(_ACCEPTED[host.model])}, with host.model={host.model}."
        )
    switches = _switches(settings, int(config["out_channels"]), config.get("carried_first_frame"))
    had, asked = config.get("num_masked_blocks", 0), switches["num_masked_blocks"]
    if 0 < asked < had:
        raise ValueError(
            f"host.num_masked_blocks is {asked}, and the weights of host.init_from={host.init_from} have {had} masked"
            f" blocks; expected at least {had}, or 0 for none."
        )
    adapter = {}
    if host.motion_adapter is not None:
        adapter = {"motion_adapter": _motion_adapter(host.motion_adapter)}
    place = {"subfolder": subfolder, "torch_dtype": torch.float32}
    model = cls.from_pretrained(host.init_from, **place, **adapter, **switches)
    if settings.motion.forget:
        forget_motion(model)
    return model


def _check_sizes(sizes: Iterable[str], known: set[str], model: str) -> None:
    if unknown := sorted(set(sizes) - known):
        near = difflib.get_close_matches(unknown[0], known, n=1) or sorted(known)
        raise ValueError(
            f"host.transformer.{unknown[0]} is set, which is no size of host.model={model}; expected {', '.join(near)}."
        )


@torch.no_grad()
def forget_motion(model: nn.Module) -> None:
    """Stage 2 reads no motion any more, as before its first step: its conditions are the image's latents and, behind
    them on the channel axis, those of the motion's pictures; the weights of the latter become zero."""
    for name, weight in model.named_parameters():
        if name.endswith(("condition_patch_embedding.weight", "condition_embedding.weight")):
            weight[:, weight.shape[1] // 2 :] = 0


def export_adapter(model: Any, settings: Settings) -> None:
    """Write ``output_dir``/adapter, what a run trained of a host that it left as it was: new branches, and LoRA.

    Nothing of a run that trained the host itself. Before LoRA is merged, in ``export_dtype``.
    """
    if settings.host.trainable not in ("adapter", "lora"):
        return
    dtype = getattr(torch, settings.export_dtype)
    replace_folder(Path(settings.output_dir) / "adapter", lambda beside: model.save_adapter(beside, dtype=dtype))


def _switches(settings: Settings, channels: int, carried: bool | None = False) -> dict[str, Any]:
    """What a stage asks of its host: conditions beside the latents, and masked blocks in stage 2, which alone can see
    the first frame ``carried`` along the masks; that is what the weights had, and counts where nothing else is set."""
    host, first = settings.host, settings.stage.name == "image_to_motion"
    carried = carried if host.carried_first_frame is None else host.carried_first_frame
    return {
        "condition_channels": 2 * channels,
        "num_masked_blocks": 0 if first else host.num_masked_blocks,
        "masked_self": host.masked_self,
        "masked_cross": host.masked_cross,
        "region": host.region,
        "carried_first_frame": bool(carried) and not first,
    }


def _motion_adapter(place: str) -> MotionAdapter:
    subfolder = _subfolder(place, ("motion_adapter",), "host.motion_adapter")
    place = place if subfolder is None else str(Path(place) / subfolder)
    return MotionAdapter.from_pretrained(place, torch_dtype=torch.float32)


def _subfolder(place: str, names: Sequence[str], setting: str) -> str | None:
    """Where in a folder or Hub id the weights lie: in the first of ``names`` that is there, or in itself (None).

    Raises:
        ValueError: a folder without weights, or no folder.
        OSError: the Hub can't be asked.
    """
    folder = Path(place)
    if folder.exists():
        if (folder / "config.json").is_file():
            return None
        inner = [name for name in names if (folder / name / "config.json").is_file()]
        if not inner:
            raise ValueError(f"{setting}={place} has no config.json; expected weights, or a folder {names[-1]!r}.")
        return inner[0]
    if place.startswith((".", "/")) or place.count("/") > 1:
        raise ValueError(f"{setting}={place} does not exist; expected a folder or a Hub id.")
    if names == ("motion_adapter",):
        return None
    return next((name for name in names[:-1] if _is_on_hub(place, name)), names[-1])


def _is_on_hub(repository: str, subfolder: str) -> bool:
    """Whether a Hub id has a model there; offline, whether its copy in the local cache has.

    Raises:
        OSError: the Hub can't be asked.
    """
    try:
        MaskedWanTransformer3DModel.load_config(repository, subfolder=subfolder)  # whichever class: it reads JSON
    except OSError as error:
        reason = error.__context__
        unreached = isinstance(reason, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE
        if unreached or not isinstance(reason, EntryNotFoundError):
            raise
        return False
    return True
