"""The settings of a training run: what may be set, of which type, and what it means.

The YAML files under ``configs/`` hold the values; :mod:`stages.settings_loading` reads them and the command line,
:mod:`stages.settings_check` says what a type can't.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OBJECTIVES = ("flow_matching", "v_prediction", "epsilon")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
WEIGHTINGS = ("none", "v")
VARIED_COLOURS = ("none", "clip", "objects")


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
    drop_sentence: float = 0.0  # stage 2, beside the three: share that hears the objects' own prompts alone
    exchanged_names: float = 0.0  # stage 2: share whose objects' prompts call each object by the next one's name
    object_weight: float = 0.0  # loss weight 1 + object_weight where an object covers a whole latent cell
    decoded_weight: float = 0.0  # of the error of pixels beside that of latents (stages/decoded_error.py)
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
    carried_first_frame: bool | None = None  # stage 2 sees the image carried along the masks; null: as init_from does
    first_frame_attention: bool = False  # few_shot: keys and values from frame 1 (Eq. 5)
    mask_cross_attention: bool = False  # few_shot: the masks act in the scores of the cross-attention (Eq. 6-7)
    controlnet: str | None = None  # few_shot, folder or Hub id: draws first frames; null: the pipeline's own, if any
    control_picture: str = "palette"  # few_shot: what the ControlNet is shown of the masks, palette | silhouette
    transformer: dict[str, Any] = field(default_factory=dict)  # arguments of the host's class, for random weights


@dataclass
class CallSettings:
    """few_shot: what calls of the trained folder use by default, arguments of ``ttm.FewShotPipeline``."""

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    image_guidance_scale: float = 1.0  # of the masks
    controlnet_conditioning_scale: float = 1.0
    controlnet_guidance_scale: float = 1.0
    sharing_ratio: float = 0.2
    carried_first_frame: bool = False  # shared is the first frame carried along the masks


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
    vary_colours: str = "none"  # none | clip | objects: what is seen in all six orders of red, green and blue
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
    """The optimiser and its learning rate over steps."""

    name: str = "adamw"  # adamw | muon (torch 2.9) | adamw_8bit | paged_adamw_8bit (bitsandbytes, on a CUDA device)
    lr: float = 2e-5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0  # largest norm of all gradients together; 0: they are left as they are
    warmup_steps: int = 2000
    decay: str = "constant"  # constant | cosine | linear, from the end of the warm-up to max_steps
    final_lr: float = 0.0  # share of lr that a decay ends at


@dataclass
class MemorySettings:
    """A preset for a card (configs/memory); what it sets elsewhere, such as checkpointing, stands in its file."""

    name: str = "none"
    weights: str = "float32"  # float32 | bfloat16, of weights that are not trained
    vae_slicing: bool = False  # the autoencoder takes one sample (image) after the other
    vae_tiling: bool = False  # it decodes in tiles, of validation clips and at inference
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
    calls: CallSettings = field(default_factory=CallSettings)
    seed: int = 0
    output_dir: str = "runs/${stage.name}"
    max_steps: int = 50_000
    batch_size: int = 16
    micro_batch_size: int | None = None  # clips a forward pass and process; null: as many as there are
    precision: str = "bf16"  # bf16 (autocast) | no
    sharding: str = "none"  # none | full: one copy over all processes | node: one a machine (see stages/sharding.py)
    ema_decay: float = 0.9995
    gradient_checkpointing: bool = False
    compile: bool = False  # the blocks of a Wan host, with torch.compile
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
