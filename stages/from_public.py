"""Make a folder to train on from a public text-to-video base.

    python -m stages.from_public Wan-AI/Wan2.1-T2V-1.3B-Diffusers runs/bases/wan_1_3b --revision main
    python -m stages.from_public path/to/Wan2.2-TI2V-5B-Diffusers runs/bases/wan_ti2v_5b
    python -m stages.from_public stable-diffusion-v1-5/stable-diffusion-v1-5 runs/bases/animatediff_sd15 \\
        --motion-adapter guoyww/animatediff-motion-adapter-v1-5-3

BASE is a Hub id or a folder in diffusers' layout: Wan 2.1 text-to-video and image-to-video, Wan 2.2 TI2V, or Stable
Diffusion 1.x with AnimateDiff's motion modules. OUTPUT, which must not be there yet, or empty, becomes a pipeline:

    python -m stages.train host=wan_1_3b host.pipeline=OUTPUT host.init_from=OUTPUT stage=motion_to_video …
    ttm.Pipeline.from_pretrained(OUTPUT)      # both stages, before training: each computes what the base does

What it holds: the base's autoencoder, text encoder and scheduler; the base's weights once a stage, as second names of
the same bytes where the disk allows it (--copy: as copies), under a configuration that adds the new branches; they are
made when the folder is opened, and add nothing yet. source.json, and "base" in each host's config.json, say where the
weights came from. Only safetensors are read, and their headers are compared with the configurations before anything
is written.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel

from stages.public_base import PLAIN_FILES, PublicBase
from stages.public_weights import weight_files
from stages.whole_files import replace_folder
from ttm.models.base import fingerprint
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE
from ttm.pipelines.image_to_motion import ImageToMotionPipeline
from ttm.pipelines.image_to_video import Pipeline
from ttm.pipelines.motion_to_video import MotionToVideoPipeline
from ttm.pipelines.saved_pipeline import INDEX, complete_folder

STAGES: dict[str, tuple[Any, dict[str, str]]] = {
    "both": (Pipeline, {"motion_transformer": "image_to_motion", "transformer": "motion_to_video"}),
    "image_to_motion": (ImageToMotionPipeline, {"transformer": "image_to_motion"}),
    "motion_to_video": (MotionToVideoPipeline, {"transformer": "motion_to_video"}),
}
"""The pipeline that a folder becomes, and the stage of each host in it."""
SOURCE_NAME = "source.json"
FORMAT = "through-the-mask source 1"
_WAN = {"num_frames": 81, "height": 480, "width": 832, "fps": 16.0, "num_inference_steps": 50, "guidance_scale": 5.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "wan": {**_WAN, "max_sequence_length": 512},
    "wan_ti2v": {**_WAN, "num_frames": 121, "height": 704, "width": 1280, "fps": 24.0, "max_sequence_length": 512},
    "unet": {
        "num_frames": 16, "height": 512, "width": 512, "fps": 8.0, "num_inference_steps": 25, "guidance_scale": 7.5,
        "max_sequence_length": 77,
    },
}  # fmt: skip
"""What the bases were trained on and their makers sample with; calls may say otherwise."""


def make_folder(
    base: PublicBase, output: Path, stage: str = "both", masked_blocks: int | None = None, copy: bool = False
) -> int:
    """Write the folder, whole or not at all; returns K.

    Args:
        base: a checked base.
        output: a folder that is not there yet, or empty.
        stage: "both", "image_to_motion" or "motion_to_video".
        masked_blocks: K of stage 2; None: the paper's share, a quarter of a transformer's blocks (10 of 40) and all of
            the U-Net's encoder (6).
        copy: whether weights are copied rather than given a second name.

    Raises:
        ValueError: a K that the host has not.
        OSError: the folder can't be written.
    """
    cls, hosts = STAGES[stage]
    most = base.host_config().get("num_layers", 40) if base.is_wan else _encoder_blocks(base)
    blocks = (max(1, round(most / 4)) if base.is_wan else most) if masked_blocks is None else masked_blocks
    if not 0 <= blocks <= most:
        raise ValueError(f"--masked-blocks is {blocks}; expected 0 to {most}, the blocks of {base.source.name}.")
    identity = base_identity(base)

    def fill(folder: Path) -> None:
        components: dict[str, Any] = {}
        for name, entry in base.components():
            if name == base.host_folder.name:
                continue
            places = [name] if name != "scheduler" else [host.replace("transformer", "scheduler") for host in hosts]
            for place in places:
                components[place] = list(entry)
                _place_component(base.source.folder / name, folder / place, entry[0], copy)
        for name, its_stage in hosts.items():
            switches = _switches(base, blocks if its_stage == "motion_to_video" else 0)
            first = folder / next(iter(hosts))
            components[name] = _place_host(base, folder / name, first, switches | {"base": identity}, copy)
        if not base.is_wan:
            for place in [name for name in components if name.endswith("scheduler")]:
                shutil.rmtree(folder / place)
                linear = {**STABLE_DIFFUSION_NOISE, "beta_schedule": "linear"}  # AnimateDiff's, not Stable Diffusion's
                DDIMScheduler(**linear).save_pretrained(folder / place)
                components[place] = ["diffusers", "DDIMScheduler"]
        _write(folder / INDEX, _index(cls, components, _settings(base)))
        adapter = None if base.adapter is None else {"source": base.adapter.name, "revision": base.adapter.revision}
        record = {"format": FORMAT, **identity, "class": base.index["_class_name"], "motion_adapter": adapter}
        _write(folder / SOURCE_NAME, record)
        complete_folder(folder, cls)

    replace_folder(output, fill)
    return blocks


def base_identity(base: PublicBase) -> dict[str, Any]:
    """Source, revision and fingerprint of a base; see :mod:`ttm.models.base`."""
    folders = [base.host_folder, *([base.adapter.folder] if base.adapter else [])]
    files = [path for folder in folders for path in weight_files(folder) if path.suffix == ".safetensors"]
    return {"source": base.source.name, "revision": base.source.revision, "fingerprint": fingerprint(files)}


def _encoder_blocks(base: PublicBase) -> int:
    config = base.host_config()
    kinds, layers = config["down_block_types"], config["layers_per_block"]
    each = layers if isinstance(layers, list) else [layers] * len(kinds)
    return sum(count for kind, count in zip(kinds, each, strict=True) if kind.startswith("CrossAttn"))


def _switches(base: PublicBase, masked_blocks: int) -> dict[str, Any]:
    config = base.host_config()
    channels = config["out_channels"] if base.is_wan else config["in_channels"]
    switches = {
        "condition_channels": 2 * channels,
        "num_masked_blocks": masked_blocks,
        "masked_self": True,
        "masked_cross": True,
        "region": "mask",
    }
    return switches | ({"known_first_frame": base.known_first_frame} if base.is_wan else {})


def _place_component(source: Path, target: Path, library: str, copy: bool) -> None:
    """The small files of a component and its weights, if it has any."""
    for pattern in PLAIN_FILES:
        for path in source.glob(pattern):
            if not path.name.endswith(".index.json"):
                _put(path, target / path.name, copy=True)
    if (source / "config.json").is_file():
        for path in weight_files(source, library):
            _put(path, target / path.name, copy or path.suffix == ".json")


def _place_host(base: PublicBase, target: Path, first: Path, settings: dict[str, Any], copy: bool) -> list[str]:
    """A host's weights under the configuration that adds new branches; returns its entry in the index."""
    if base.is_wan:
        _place_component(base.host_folder, target, "diffusers", copy)
        kind: Any = MaskedWanTransformer3DModel
    elif target == first:
        assert base.adapter is not None
        unet = UNet2DConditionModel.from_pretrained(base.host_folder, use_safetensors=True)
        adapter = MotionAdapter.from_pretrained(base.adapter.folder, use_safetensors=True)
        UNetMotionModel.from_unet2d(unet, adapter).save_pretrained(target)
        kind = MaskedUNetMotionModel
    else:
        _place_component(first, target, "diffusers", copy)
        kind = MaskedUNetMotionModel
    path = target / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"_class_name": kind.__name__} | settings
    known = set(inspect.signature(kind.__init__).parameters)
    _write(path, {key: value for key, value in config.items() if key in known or key.startswith("_")})
    return [kind.__module__, kind.__name__]


def _put(source: Path, target: Path, copy: bool) -> None:
    """A file in a folder: a second name of the same bytes where the disk allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()  # the Hub's cache holds links
    if not copy:
        try:
            os.link(real, target)
            return
        except OSError:
            pass  # another disk, or one without hard links
    shutil.copyfile(real, target)


def _settings(base: PublicBase) -> dict[str, Any]:
    kind = "unet" if not base.is_wan else "wan_ti2v" if base.known_first_frame else "wan"
    settings = {**SETTINGS[kind], "image_guidance_scale": 1.0}
    motion = {f"motion_{name}": settings[name] for name in settings if name.endswith(("_scale", "_steps"))}
    return settings | motion


def _index(cls: Any, components: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """model_index.json: components, and the pipeline's settings, its own defaults where there are no others."""
    index: dict[str, Any] = {"_class_name": cls.__name__, "_diffusers_version": diffusers.__version__, **components}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name in ("self", "planner") or name in components:
            continue
        optional = name in cls._optional_components
        index[name] = [None, None] if optional else settings.get(name, parameter.default)
    return index


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def host_config_name(base: PublicBase) -> str:
    """Which of configs/host is for this base."""
    if not base.is_wan:
        return "animatediff_sd15"
    if base.known_first_frame:
        return "wan_ti2v_5b"
    config = base.host_config()
    if config["in_channels"] > config["out_channels"]:
        return "wan_i2v_14b"
    return "wan_14b" if config["num_layers"] > 30 else "wan_1_3b"


def check_output(output: Path) -> None:
    """Raise ValueError unless a folder can be made there without overwriting anything."""
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ValueError(f"{output} is there already, and not empty; expected a new folder, so that nothing is lost.")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the head of this file."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.from_public",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", help="Hub id, or a folder in diffusers' layout")
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument("--revision", help="commit, branch or tag of the Hub id; of a folder, what to record")
    parser.add_argument("--motion-adapter", help="AnimateDiff's, for Stable Diffusion: Hub id or folder")
    parser.add_argument("--stage", choices=list(STAGES), default="both", help="whose folder to make (default: both)")
    parser.add_argument("--masked-blocks", type=int, help="K of stage 2 (default: a quarter of the blocks)")
    parser.add_argument("--copy", action="store_true", help="copy the weights, though a second name would do")
    given = parser.parse_args(arguments)
    try:
        check_output(given.output)
        base = PublicBase.find(given.base, given.revision, given.motion_adapter)
        blocks = make_folder(base, given.output, given.stage, given.masked_blocks, given.copy)
    except (ValueError, OSError) as error:
        if os.environ.get("TTM_TRACEBACK"):
            raise
        raise SystemExit(f"stages.from_public: {error}") from error
    where = f"host={host_config_name(base)} host.pipeline={given.output} host.init_from={given.output}"
    stage = "motion_to_video" if given.stage == "both" else given.stage
    print(f"{given.output}: {base.source.name} {base.source.revision or ''}".rstrip())
    print(f"Next: python -m stages.train stage={stage} {where} host.num_masked_blocks={blocks}")


if __name__ == "__main__":
    main()
