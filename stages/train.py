"""Train a stage.

    python -m stages.train stage=image_to_motion host=ttm_tiny data.encode_scenes=4096 optimizer.lr=1e-3
    accelerate launch -m stages.train stage=motion_to_video host=ttm_tiny max_steps=20000 time_limit_minutes=120
    torchrun --nproc_per_node 2 -m stages.train …     # several processes on a CPU (accelerate launch needs MPI there)

Settings are ``key=value``; ``--help`` prints them all with their values, ``stages/settings.py`` explains them.
The same command again goes on from the last checkpoint in ``output_dir`` (kill -9 loses at most
``checkpoint_every`` steps and changes nothing else); a finished run trains no more, and writes its weights again.

What it needs: ``host.pipeline``, a folder with vae/, tokenizer/ and text_encoder/ in diffusers' layout.
What it does:  1. fills the latent cache up to ``data.encode_scenes`` (python -m stages.cache does only that, in as
                  many processes as you like), and trains on every whole shard, or on ``data.num_scenes``;
               2. trains, writing ``output_dir``/log.jsonl, tensorboard/ (tracker=none: not) and checkpoints/;
               3. ends, at max_steps, time_limit_minutes or SIGTERM, with ``output_dir``/transformer/: the averaged
                  weights as a diffusers model folder, which a pipeline loads and ``host.init_from`` goes on from;
                  adapter/, with host.trainable=adapter or lora: what was trained, alone (see docs/own_weights.md); and
                  scheduler/, which samples from it (host=ttm_tiny_unet trains a U-Net with v-prediction and DDIM).
Fine-tuning:   host.init_from=ttm/pretrained/ttm-tiny takes that pipeline's transformer of the stage, with a fresh
               optimiser; give it an output_dir of its own.
Real clips:    data=prepared data.folder=… (docs/training_one_gpu.md); several GPUs and machines, models that are shared
               out: configs/launch, memory=shared (docs/training_cluster.md).
More clips:    fill the cache further and start again with data.num_scenes=N: a resumed run keeps the number of
               scenes that its checkpoint was trained on unless it is told another.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, broadcast_object_list
from diffusers import ModelMixin
from omegaconf import OmegaConf

from stages.cache import latents_at_rest
from stages.decoded_error import DecodedError
from stages.host import (
    build_transformer,
    encoder_digest,
    export_adapter,
    host_class,
    load_text,
    load_vae,
    weights_digest,
)
from stages.host_image import check_host_image, with_host_image
from stages.image_to_motion import ImageToMotion
from stages.memory import finish_model, prepare_model, prepare_vae
from stages.motion_to_video import MotionToVideo, under_other_names
from stages.objectives import build_objective
from stages.optimization import check_optimizer
from stages.same_run import expect_begun_with, expect_same_settings
from stages.settings import Settings
from stages.settings_check import refuse_few_shot
from stages.settings_loading import load_settings
from stages.sharding import check_sharding, gathered, is_shared_out
from stages.sources import open_clips
from stages.task import Task
from stages.text_table import EncodedTexts, Texts, TextTable, texts_of
from stages.tracking import check_tracker
from stages.trainer import Finished, Trainer, divide_batch
from stages.whole_files import prepare_output, replace_folder
from ttm.models.host import VideoHost
from ttm.pipelines.autoencoders import LatentFormat
from ttm.pipelines.conditioning import check_text_length
from ttm.pipelines.host_image import check_image_channels

_PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU,
          DistributedType.MULTI_NPU)  # fmt: skip


def run(settings: Settings) -> Finished:
    """Train as the settings say, and write the averaged transformer.

    Raises:
        ValueError: settings, weights or a cache that don't fit.
        OSError: a folder that can't be written.
    """
    began = time.monotonic()
    refuse_few_shot(settings)
    accelerator = start_accelerator(settings)
    check_run(settings, accelerator.num_processes)
    model = build_model(settings, accelerator)
    check_host_image(settings, model)
    decoded_error = None
    if settings.stage.decoded_weight > 0:
        vae = load_vae(settings.host.pipeline, accelerator.device)
        decoded_error = DecodedError(vae, settings.seed, settings.stage.object_weight)
    task = with_host_image(build_task(settings, accelerator, model), settings, model, accelerator.device)
    prepare_model(model, settings)
    if settings.compile:
        model.compile_repeated_blocks()
    sampler = None
    if settings.sample_every:
        from stages.samples import build_sampler

        sampler = build_sampler(settings, accelerator.device)
    objective = build_objective(settings.objective)
    trainer = Trainer(settings, accelerator, model, task, objective, sampler, decoded_error, began)
    finished = trainer.train()
    with trainer.averaged() as averaged:
        plain = gathered(averaged, empty_model(settings, averaged.config), accelerator.is_main_process)
    if accelerator.is_main_process:
        export_adapter(plain, settings)
        finish_model(plain)
        export(plain, Path(settings.output_dir) / "transformer", settings.export_dtype)
        scheduler = objective.scheduler()
        replace_folder(Path(settings.output_dir) / "scheduler", scheduler.save_pretrained)
        end = "complete" if finished.complete else "stopped; the same command goes on"
        print(f"{settings.output_dir}/transformer: averaged weights after {finished.step} steps ({end})", flush=True)
    accelerator.end_training()
    return finished


def check_run(settings: Settings, num_processes: int) -> None:
    """Refuse before slow work what these processes, this machine's packages or the output folder's run don't allow.

    Raises:
        ValueError: as said.
    """
    divide_batch(settings, num_processes)
    check_optimizer(settings.optimizer.name)
    check_sharding(settings)
    check_tracker(settings.tracker)
    expect_same_settings(settings)


def build_model(settings: Settings, accelerator: Accelerator) -> Any:
    """The host before any preparation. Of one that is to be shared out the main process alone holds values.

    Raises:
        ValueError: as :func:`stages.host.build_transformer`.
    """
    model = None
    if accelerator.is_main_process or not is_shared_out(settings, accelerator):
        model = build_transformer(settings)
    if not is_shared_out(settings, accelerator):
        return model
    config = [None if model is None else json.loads(model.to_json_string())]
    broadcast_object_list(config)
    return model if model is not None else empty_model(settings, config[0], prepared=False)


def empty_model(settings: Settings, config: Any, prepared: bool = True) -> Any:
    """A host of some configuration, prepared for training or not, without values."""
    with torch.device("meta"):
        model = host_class(settings.host.model).from_config(config)
        if prepared:
            prepare_model(model, settings)
    return model


def start_accelerator(settings: Settings) -> Accelerator:
    """The devices and processes of a run, and its output folder.

    Raises:
        ValueError: processes that were started and did not join, or a launch file that shares models out itself.
        OSError: the output folder can't be written.
    """
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    # Encoding may take hours; the default of half an hour would end the processes that wait for the others.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    # Without an accelerator accelerate joins the processes of torchrun only when told that the CPU is meant; else
    # each would train alone, into the same folder.
    cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    accelerator = Accelerator(mixed_precision=settings.precision, cpu=cpu, kwargs_handlers=[patience])
    if int(os.environ.get("WORLD_SIZE", "1")) != accelerator.num_processes:
        raise ValueError(
            f"{os.environ['WORLD_SIZE']} processes were started but {accelerator.num_processes} joined; expected"
            " accelerate launch on GPUs, or torchrun --nproc_per_node N -m stages.train on a CPU."
        )
    if accelerator.distributed_type not in _PLAIN:
        raise ValueError(
            f"The launch file asks for {accelerator.distributed_type.value}; expected MULTI_GPU there, and"
            " sharding=full or node here (memory=shared), which shares the model out by itself."
        )
    if accelerator.is_main_process:
        prepare_output(Path(settings.output_dir))
    return accelerator


def build_task(settings: Settings, accelerator: Accelerator, model: VideoHost) -> Task:
    """Fill and open the cache, embed the texts, and hand both to the stage.

    Args:
        model: the host that is trained.

    Raises:
        ValueError: a component is missing, the host was not made for this autoencoder and text encoder, or the run in
            the output folder was begun with other weights or clips.
    """
    data, pipeline, device = settings.data, settings.host.pipeline, accelerator.device
    vae = load_vae(pipeline, device)
    prepare_vae(vae, settings)
    dtype = getattr(torch, settings.memory.weights)
    tokenizer, text_encoder = load_text(pipeline, device, dtype)  # before slow work, should one of them be missing
    check_text_length(text_encoder, settings.host.max_sequence_length)
    takes = (model.latent_channels, model.text_width)
    expected = (LatentFormat.of(vae).channels, text_encoder.config.hidden_size)
    if takes != expected:
        raise ValueError(
            f"The transformer takes {takes[0]} latent channels and text of width {takes[1]};"
            f" expected {expected[0]} and {expected[1]}, those of {pipeline}."
        )
    check_image_channels(vae, model)
    if accelerator.is_main_process:
        begun_with = {"carried_first_frame": model.config.carried_first_frame}
        expect_begun_with(settings, begun_with | _weights_under(settings, model, vae, text_encoder))
    clips = open_clips(settings, accelerator, vae, model.token_patch, model.config.carried_first_frame)
    first, length = settings.stage.name == "image_to_motion", settings.host.max_sequence_length
    motion = settings.motion
    still = [latents_at_rest(vae, motion.name, *shape) for shape in clips.shapes if motion.left_out]
    rest = {tuple(latents.shape): latents for latents in still}
    del vae
    if data.texts == "encoder":
        texts: Texts = EncodedTexts(tokenizer, text_encoder, length)
    else:
        with accelerator.main_process_first():  # one process embeds the texts, the others read them
            said = texts_of(clips.plans, settings.stage.name)
            if settings.stage.exchanged_names > 0:
                said |= texts_of(map(under_other_names, clips.plans), settings.stage.name)
            texts = TextTable.build(said, tokenizer, text_encoder, length, clips.text_folder)
    if first:
        return ImageToMotion(clips, texts, settings)
    return MotionToVideo(clips, texts, settings, model.token_patch, rest)


def _weights_under(settings: Settings, model: Any, vae: Any, text_encoder: Any) -> dict[str, str | None]:
    """Digests of the weights that a run stands on: of the base too, unless all of it is trained and none of it stays.

    The base is the host without its new branches, which are always trained.
    """
    base = None
    if settings.host.trainable != "all":
        new = set(model.adapter_state_dict())
        given = (parameter for name, parameter in model.named_parameters() if name not in new)
        base = "random weights" if settings.host.init_from is None else weights_digest(given)
    return {
        "base": base,
        "autoencoder": encoder_digest(vae),
        "text_encoder": weights_digest(text_encoder.parameters()),
    }


def export(model: torch.nn.Module, folder: Path, dtype: str) -> None:
    """Write a host as a diffusers model folder, whole or not at all.

    Raises:
        OSError: the folder can't be written.
    """
    assert isinstance(model, ModelMixin)
    before = {name: parameter.data for name, parameter in model.named_parameters()}
    try:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(getattr(torch, dtype))
        replace_folder(folder, lambda beside: model.save_pretrained(beside, safe_serialization=True))
    finally:
        for name, parameter in model.named_parameters():
            parameter.data = before[name]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the head of this file."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")  # rms_norm under autocast
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    try:
        wants_help = [text for text in arguments if text in ("-h", "--help", "help")]
        settings = load_settings([text for text in arguments if text not in wants_help])
        if wants_help:
            print(__doc__)
            print(OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(settings))))
            return
        run(settings)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("TTM_TRACEBACK"):
            raise
        raise SystemExit(f"stages.train: {error}") from error


if __name__ == "__main__":
    main()
