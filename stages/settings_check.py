"""What types can't say of a training run's settings: values out of range, settings that contradict each other."""

from __future__ import annotations

import math
from operator import attrgetter

from stages.settings import BETA_SCHEDULES, OBJECTIVES, VARIED_COLOURS, WEIGHTINGS, Settings
from ttm.motion.control_picture import CONTROL_PICTURES
from ttm.motion.representation import REPRESENTATIONS, motion_representation


def check_settings(settings: Settings) -> None:
    """Check values that a type can't.

    Raises:
        ValueError: what is wrong and what is expected.
    """
    choices = {
        "stage.name": (settings.stage.name, ("image_to_motion", "motion_to_video", "few_shot")),
        "host.model": (settings.host.model, ("wan", "unet_motion")),
        "host.trainable": (settings.host.trainable, ("all", "adapter", "attention", "lora")),
        "optimizer.name": (settings.optimizer.name, ("adamw", "muon", "adamw_8bit", "paged_adamw_8bit")),
        "memory.weights": (settings.memory.weights, ("float32", "bfloat16")),
        "host.region": (settings.host.region, ("mask", "box", "none")),
        "host.control_picture": (settings.host.control_picture, CONTROL_PICTURES),
        "motion.name": (settings.motion.name, REPRESENTATIONS),
        "data.name": (settings.data.name, ("synthetic", "prepared", "clips")),
        "data.texts": (settings.data.texts, ("table", "encoder")),
        "objective.name": (settings.objective.name, OBJECTIVES),
        "objective.beta_schedule": (settings.objective.beta_schedule, BETA_SCHEDULES),
        "objective.weighting": (settings.objective.weighting, WEIGHTINGS),
        "objective.sampling": (settings.objective.sampling, ("logit_normal", "uniform")),
        "optimizer.decay": (settings.optimizer.decay, ("constant", "cosine", "linear")),
        "data.clips.vary_colours": (settings.data.clips.vary_colours, VARIED_COLOURS),
        "precision": (settings.precision, ("bf16", "no")),
        "sharding": (settings.sharding, ("none", "full", "node")),
        "attention": (settings.attention, ("auto", "sdpa", "matmul")),
        "tracker": (settings.tracker, ("tensorboard", "wandb", "none")),
        "export_dtype": (settings.export_dtype, ("float32", "bfloat16", "float16")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(allowed)}.")
    positive = ("max_steps", "batch_size", "log_every", "checkpoint_every", "keep_checkpoints", "data.shard_size",
                "data.encode_batch", "data.num_scenes", "host.lora_rank")  # fmt: skip
    for least, names in ((1, positive), (0, ("optimizer.clip_norm", "stage.object_weight", "data.held_out"))):
        for name in names:
            value = attrgetter(name)(settings)
            if value is not None and not value >= least:  # nor nan
                raise ValueError(f"{name} is {value}; expected at least {least}.")
    if settings.memory.weights == "bfloat16" and settings.precision != "bf16":
        raise ValueError(f"memory.weights is bfloat16 and precision {settings.precision}; expected precision=bf16.")
    host = settings.host
    if host.motion_adapter is not None and (host.model != "unet_motion" or host.init_from is None):
        raise ValueError("host.motion_adapter is set; expected host.model=unet_motion and a U-Net as host.init_from.")
    if settings.compile and host.model == "unet_motion":
        raise ValueError("compile is set and host.model unet_motion, whose blocks differ; expected wan, or no compile.")
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
    if stage.name == "few_shot":
        _check_few_shot(settings)
    if settings.data.name == "prepared" and not settings.data.folder:
        raise ValueError("data is prepared and data.folder empty; expected a folder that tools.prepare filled.")
    if settings.sample_every and settings.data.name == "prepared" and not settings.data.held_out:
        raise ValueError("sample_every is set and data.held_out 0; expected clips that are held out to draw videos of.")
    rates = (stage.drop_text, stage.drop_visual, stage.drop_both)
    if min(rates) < 0 or sum(rates) > 1:
        raise ValueError(f"stage.drop_text, drop_visual, drop_both are {rates}; expected shares that sum to at most 1.")
    for name in ("drop_sentence", "exchanged_names"):
        share = getattr(stage, name)
        if not 0 <= share <= 1:
            raise ValueError(f"stage.{name} is {share}; expected a share of samples, 0 to 1.")
        if share > 0 and stage.name != "motion_to_video":
            raise ValueError(
                f"stage.{name} is {share} and stage {stage.name}; expected motion_to_video, whose objects have prompts"
                " of their own, or 0."
            )
    if not (math.isfinite(stage.decoded_weight) and stage.decoded_weight >= 0):
        raise ValueError(f"stage.decoded_weight is {stage.decoded_weight}; expected a number of 0 or more.")
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
    betas = settings.optimizer.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"optimizer.betas is {betas}; expected two numbers, 0 to below 1.")
    if len(settings.data.num_objects) != 2 or not 1 <= settings.data.num_objects[0] <= settings.data.num_objects[1]:
        raise ValueError(f"data.num_objects is {settings.data.num_objects}; expected [fewest, most], at least 1.")


def refuse_few_shot(settings: Settings) -> None:
    """Refuse few-shot training where its clips would be left out without a word.

    Raises:
        ValueError: as said.
    """
    if settings.stage.name == "few_shot":
        raise ValueError(
            "stage is few_shot; expected image_to_motion or motion_to_video, or the program that reads a folder of"
            " clips: python -m stages.few_shot CLIPS."
        )


def _check_few_shot(settings: Settings) -> None:
    """What the few-shot variant can't do, or would leave out without a word."""
    if settings.objective.name != "epsilon":
        raise ValueError(
            f"objective is {settings.objective.name} and stage few_shot; expected epsilon, Stable Diffusion's, which"
            " its pipeline opens with."
        )
    if settings.sharding != "none":
        raise ValueError(f"sharding is {settings.sharding} and stage few_shot; expected none: each process has it all.")
    unused = {
        "motion.left_out": settings.motion.left_out,
        "stage.corrupted": settings.stage.corrupted,
        "stage.decoded_weight": settings.stage.decoded_weight,
        "data.held_out": settings.data.held_out,
        "host.carried_first_frame": settings.host.carried_first_frame,
    }
    if used := [name for name, value in unused.items() if value]:
        raise ValueError(
            f"{used[0]} is {unused[used[0]]} and stage few_shot, which has no part for it; expected 0, or false."
        )
    if settings.compile or settings.sample_every:
        raise ValueError("compile or sample_every is set and stage few_shot, which has neither; expected false and 0.")
    for name, value in vars(settings.calls).items():
        if not (math.isfinite(value) and value >= (1 if name == "num_inference_steps" else 0)):
            raise ValueError(f"calls.{name} is {value}; expected a number of steps, or a scale of 0 or more.")
    if settings.calls.sharing_ratio > 1:
        raise ValueError(f"calls.sharing_ratio is {settings.calls.sharing_ratio}; expected a share, 0 to 1.")
    fps = settings.data.clips.fps
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"data.clips.fps is {fps}; expected frames a second above 0.")
