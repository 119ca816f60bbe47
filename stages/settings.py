"""The settings of a training run: what may be set, of which type, and readable errors for what may not.

The YAML files under ``configs/`` hold the values, the dataclasses here the names, types and meanings. A key that no
dataclass knows is an error that names the nearest known one, whether it comes from the command line or a file.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ttm.motion.representation import REPRESENTATIONS, motion_representation

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"
GROUPS = ("stage", "host", "objective", "motion", "data", "memory")
OBJECTIVES = ("flow_matching", "v_prediction", "epsilon")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
WEIGHTINGS = ("none", "v")


@dataclass
class StageSettings:
    """Which stage is trained, and how its conditions are dropped and corrupted.

    The three drop rates are shares of samples and exclude each other: the text alone, the visual condition alone
    (latents and coverage zero), or both; guidance with two scales needs all of them.
    """

    name: str = "image_to_motion"
    drop_text: float = 0.1
    drop_visual: float = 0.05
    drop_both: float = 0.05
    object_weight: float = 0.0  # loss weight 1 + object_weight where an object covers a whole latent cell
    corrupted: float = 0.0  # share of samples whose trajectory is a corrupted variant (stage 2)


@dataclass
class HostSettings:
    """Whose components are trained on, and the class and size of what is trained (the transformer, or the U-Net)."""

    name: str = "ttm_tiny"
    model: str = "wan"  # wan | unet_motion
    pipeline: str = "ttm/pretrained/ttm-tiny"  # folder (or Hub id) with vae, tokenizer, text_encoder
    init_from: str | None = None  # folder of weights to go on from; null: random weights
    motion_adapter: str | None = None  # folder or Hub id: init_from is Stable Diffusion's, and this makes it move
    trainable: str = "all"  # all | adapter: new branches | attention: they, all attention | lora: they, low rank
    lora_rank: int = 32
    max_sequence_length: int = 48
    num_masked_blocks: int = 4  # used by motion_to_video; image_to_motion has no masked block
    masked_self: bool = True
    masked_cross: bool = True
    region: str = "mask"  # mask | box | none
    first_frame_attention: bool = False  # few_shot: keys and values from frame 1 (Eq. 5)
    mask_cross_attention: bool = False  # few_shot: the masks act in the scores of the cross-attention (Eq. 6-7)
    controlnet: str | None = None  # few_shot, folder or Hub id: draws first frames; null: the pipeline's own, if any
    transformer: dict[str, Any] = field(default_factory=dict)  # arguments of the host's class, for random weights


@dataclass
class MotionSettings:
    """The intermediate representation between the stages."""

    name: str = "masks"  # masks | optical_flow | none (ttm/motion/representation.py)
    left_out: float = 0.0  # stage 2: share of samples that see the image and the sentence alone, no motion
    forget: bool = False  # stage 2 begins without what host.init_from knows of a motion's pictures


@dataclass
class CorruptionSettings:
    """How far a trajectory is spoiled (stages/corruption.py)."""

    dilate: int = 4  # most pixels that an object grows by
    erode: int = 4  # most pixels that it shrinks by
    jitter: int = 3  # most pixels that an object is shifted by in one frame
    drop_frame: float = 0.3  # chance that an object is missing for one frame


@dataclass
class ClipSettings:
    """A folder of a few videos (ttm/data/clip_folder.py), all brought to one size and rate."""

    folder: str = ""
    height: int = 256  # pixels
    width: int = 256
    fps: float = 8.0
    vary_colours: bool = False  # learn each clip in all six orders of red, green and blue
    segmenter: str = "ttm-tiny"  # tracks clips without masks: ttm-tiny | public | a folder of ttm.Segmenter


@dataclass
class DataSettings:
    """Clips and their latent cache. What decides the latents is part of the cache's key."""

    name: str = "synthetic"  # synthetic | prepared (tools/prepare_*) | clips (few_shot)
    folder: str = ""  # of name=prepared: shards and manifest; sizes and lengths are those of its clips
    held_out: int = 0  # clips of the folder that are never trained on, and that videos are drawn of
    texts: str = "table"  # table: all embedded before training | encoder: when read, by the text encoder kept
    cache_dir: str = "runs/cache"
    num_scenes: int | None = None  # scenes to use; null: every whole shard there is
    encode_scenes: int = 0  # make sure of so many scenes before training (a whole number of shards)
    shard_size: int = 128
    encode_batch: int = 4
    size: int = 128
    num_frames: int = 17
    num_objects: list[int] = field(default_factory=lambda: [1, 3])
    seed: int = 0
    appearance: float = 0.4
    pieces: float = 0.0  # chance that an object is a piece of a photograph
    corrupted_variants: int = 0
    corruption: CorruptionSettings = field(default_factory=CorruptionSettings)
    clips: ClipSettings = field(default_factory=ClipSettings)  # of name=clips


@dataclass
class ObjectiveSettings:
    """What the model predicts and which noise levels it sees. A host brings its own; ``objective=`` overrides it."""

    name: str = "flow_matching"  # flow_matching | v_prediction (zero terminal SNR) | epsilon
    sampling: str = "logit_normal"  # logit_normal | uniform
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0  # sigma' = shift * sigma / (1 + (shift - 1) * sigma), in flow matching as the scheduler's
    beta_schedule: str = "scaled_linear"  # linear | scaled_linear | squaredcos_cap_v2; not of flow matching
    beta_start: float = 0.00085
    beta_end: float = 0.012
    weighting: str = "none"  # none | v (of epsilon: its error counts as the error of v that it is, 1 / a_t times)


@dataclass
class OptimizerSettings:
    """AdamW and the learning rate over steps."""

    name: str = "adamw"  # adamw | adamw_8bit | paged_adamw_8bit (bitsandbytes, on a CUDA device)
    lr: float = 2e-5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup_steps: int = 2000
    decay: str = "constant"  # constant | cosine | linear, from the end of the warm-up to max_steps
    final_lr: float = 0.0  # share of lr that a decay ends at


@dataclass
class MemorySettings:
    """A preset for a card (configs/memory); what it sets elsewhere, such as checkpointing, stands in its file."""

    name: str = "none"
    weights: str = "float32"  # float32 | bfloat16, of weights that are not trained
    vae_slicing: bool = False  # the autoencoder takes one sample (image) after the other
    vae_tiling: bool = False  # at inference it decodes in tiles
    offload: bool = False  # at inference parts that are not at work wait in the CPU's memory


@dataclass
class Settings:
    """Everything of a run. ``batch_size`` counts clips a step over all processes, so that the same command
    trains the same on any number of them."""

    stage: StageSettings = field(default_factory=StageSettings)
    host: HostSettings = field(default_factory=HostSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    data: DataSettings = field(default_factory=DataSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    seed: int = 0
    output_dir: str = "runs/${stage.name}"
    max_steps: int = 50_000
    batch_size: int = 16
    micro_batch_size: int | None = None  # clips a forward pass and process; null: as many as there are
    precision: str = "bf16"  # bf16 (autocast) | no
    sharding: str = "none"  # none | full: one copy over all processes | node: one a machine (see stages/sharding.py)
    ema_decay: float = 0.9995
    gradient_checkpointing: bool = False
    compile: bool = False
    num_threads: int | None = None
    attention: str = "auto"  # auto | sdpa | matmul (see stages/attention_kernel.py)
    log_every: int = 20
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    sample_every: int = 0
    sample_scenes: int = 4
    sample_steps: int = 20
    tracker: str = "tensorboard"  # tensorboard | wandb | none
    time_limit_minutes: float | None = None
    export_dtype: str = "float32"  # float32 | bfloat16 | float16, of the EMA model that a run ends with


def _known_keys(node: DictConfig, prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in node.items_ex(resolve=False):
        name = f"{prefix}{key!s}"
        keys.add(name)
        if isinstance(value, DictConfig):
            keys |= _known_keys(value, f"{name}.")
    return keys


def unknown_key_message(key: str, known: Sequence[str] | set[str]) -> str:
    """The error for a key that no setting has, with the nearest known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.6)
    if not near:  # the same last part somewhere else: lr -> optimizer.lr
        leaf = key.rsplit(".", 1)[-1]
        leaves = {name.rsplit(".", 1)[-1]: name for name in names}
        near = [leaves[match] for match in difflib.get_close_matches(leaf, leaves, n=3, cutoff=0.6)]
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else f"; known: {', '.join(names)}"
    return f"There is no setting {key!r}{hint}"


def load_settings(overrides: Sequence[str], config_dir: Path = CONFIG_DIR, config_name: str = "train") -> Settings:
    """Compose ``configs/train.yaml`` with overrides such as ``stage=motion_to_video optimizer.lr=1e-4``.

    Raises:
        ValueError: an unknown key or group option (the nearest known one is named), a value of the wrong type,
            or settings that contradict each other.
    """
    schema = OmegaConf.structured(Settings)
    free = ("host.transformer.",)
    known = _known_keys(schema)
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise ValueError(f"{text!r} can't be read; expected key=value. ({error})") from error
        if override.type is None or override.type.name not in ("CHANGE", "FORCE_ADD", "ADD") or "=" not in text:
            raise ValueError(f"{text!r} is no setting; expected key=value.")
        key: str = override.key_or_group
        if key not in known and not key.startswith(free):
            raise ValueError(unknown_key_message(key, known))
        if key in GROUPS:
            _expect_option(key, override.value(), config_dir)
    # An override of a field that its YAML file leaves at the default has to be added, in hydra's words; the schema
    # has already said that it exists.
    forced = [text if text.split("=", 1)[0] in GROUPS else "++" + text.lstrip("+") for text in overrides]
    backup = GlobalHydra.instance().hydra  # another library of this process may have initialised hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(config_dir), version_base="1.3"):
            composed = compose(config_name=config_name, overrides=forced)
        for key in _known_keys(composed):
            if key not in known and not key.startswith(free):
                raise ValueError(f"{config_dir}: {unknown_key_message(key, known)}")
        settings = OmegaConf.to_object(OmegaConf.merge(schema, composed))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"The settings don't fit together: {error}") from error
    finally:
        GlobalHydra.instance().hydra = backup
    assert isinstance(settings, Settings)
    check_settings(settings)
    return settings


def _expect_option(group: str, option: Any, config_dir: Path) -> None:
    options = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
    if option not in options:
        near = difflib.get_close_matches(str(option), options, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{group}={option} does not exist (there are: {', '.join(options)}){hint}")


def check_settings(settings: Settings) -> None:
    """Check values that a type can't.

    Raises:
        ValueError: what is wrong and what is expected.
    """
    choices = {
        "stage.name": (settings.stage.name, ("image_to_motion", "motion_to_video", "few_shot")),
        "host.model": (settings.host.model, ("wan", "unet_motion")),
        "host.trainable": (settings.host.trainable, ("all", "adapter", "attention", "lora")),
        "optimizer.name": (settings.optimizer.name, ("adamw", "adamw_8bit", "paged_adamw_8bit")),
        "memory.weights": (settings.memory.weights, ("float32", "bfloat16")),
        "host.region": (settings.host.region, ("mask", "box", "none")),
        "motion.name": (settings.motion.name, REPRESENTATIONS),
        "data.name": (settings.data.name, ("synthetic", "prepared", "clips")),
        "data.texts": (settings.data.texts, ("table", "encoder")),
        "objective.name": (settings.objective.name, OBJECTIVES),
        "objective.beta_schedule": (settings.objective.beta_schedule, BETA_SCHEDULES),
        "objective.weighting": (settings.objective.weighting, WEIGHTINGS),
        "objective.sampling": (settings.objective.sampling, ("logit_normal", "uniform")),
        "optimizer.decay": (settings.optimizer.decay, ("constant", "cosine", "linear")),
        "precision": (settings.precision, ("bf16", "no")),
        "sharding": (settings.sharding, ("none", "full", "node")),
        "attention": (settings.attention, ("auto", "sdpa", "matmul")),
        "tracker": (settings.tracker, ("tensorboard", "wandb", "none")),
        "export_dtype": (settings.export_dtype, ("float32", "bfloat16", "float16")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(allowed)}.")
    positive = ("max_steps", "batch_size", "log_every", "checkpoint_every", "keep_checkpoints")
    for name in positive:
        if getattr(settings, name) < 1:
            raise ValueError(f"{name} is {getattr(settings, name)}; expected at least 1.")
    if settings.memory.weights == "bfloat16" and settings.precision != "bf16":
        raise ValueError(f"memory.weights is bfloat16 and precision {settings.precision}; expected precision=bf16.")
    host = settings.host
    if host.lora_rank < 1:
        raise ValueError(f"host.lora_rank is {host.lora_rank}; expected at least 1.")
    if host.motion_adapter is not None and (host.model != "unet_motion" or host.init_from is None):
        raise ValueError("host.motion_adapter is set; expected host.model=unet_motion and a U-Net as host.init_from.")
    if not 0 < settings.objective.beta_start < settings.objective.beta_end < 1:
        ends = settings.objective.beta_start, settings.objective.beta_end
        raise ValueError(f"objective.beta_start, beta_end are {ends}; expected 0 < beta_start < beta_end < 1.")
    if settings.objective.weighting == "v" and settings.objective.name != "epsilon":
        raise ValueError(f"objective.weighting is v, objective {settings.objective.name}; expected epsilon, or none.")
    stage = settings.stage
    if (stage.name == "few_shot") != (settings.data.name == "clips"):
        raise ValueError(
            f"stage is {stage.name} and data {settings.data.name}; expected data=clips with stage=few_shot, and with no"
            " other stage (python -m stages.few_shot sets both)."
        )
    if settings.data.name == "prepared" and not settings.data.folder:
        raise ValueError("data is prepared and data.folder empty; expected a folder that tools.prepare filled.")
    if settings.data.held_out < 0:
        raise ValueError(f"data.held_out is {settings.data.held_out}; expected 0 or more clips.")
    rates = (stage.drop_text, stage.drop_visual, stage.drop_both)
    if min(rates) < 0 or sum(rates) > 1:
        raise ValueError(f"stage.drop_text, drop_visual, drop_both are {rates}; expected shares that sum to at most 1.")
    if not motion_representation(settings.motion.name).shows_masks:
        if settings.data.name != "synthetic" or stage.corrupted > 0:
            raise ValueError(
                f"motion is {settings.motion.name}, data {settings.data.name} and stage.corrupted {stage.corrupted};"
                " expected data=synthetic, whose flow is known, and no corrupted masks."
            )
    if not 0 <= settings.motion.left_out <= 1:
        raise ValueError(f"motion.left_out is {settings.motion.left_out}; expected a share of samples, 0 to 1.")
    if settings.motion.name == "none" and (stage.name != "motion_to_video" or settings.motion.left_out != 1):
        raise ValueError("motion is none; expected stage=motion_to_video and motion.left_out=1 (the TI2V twin).")
    if not 0 <= stage.corrupted <= 1:
        raise ValueError(f"stage.corrupted is {stage.corrupted}; expected a share of samples, 0 to 1.")
    if stage.corrupted > 0 and settings.data.corrupted_variants < 1:
        raise ValueError("stage.corrupted is above 0 but data.corrupted_variants is 0; expected at least 1 variant.")
    if not 0 <= settings.ema_decay < 1:
        raise ValueError(f"ema_decay is {settings.ema_decay}; expected 0 to below 1.")
    if not (math.isfinite(settings.optimizer.lr) and settings.optimizer.lr > 0):
        raise ValueError(f"optimizer.lr is {settings.optimizer.lr}; expected a positive number.")
    if len(settings.data.num_objects) != 2 or not 1 <= settings.data.num_objects[0] <= settings.data.num_objects[1]:
        raise ValueError(f"data.num_objects is {settings.data.num_objects}; expected [fewest, most], at least 1.")
