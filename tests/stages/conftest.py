"""A pipeline folder of random weights, small enough that a training step takes milliseconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderKL, AutoencoderKLWan
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from stages.host import encoder_digest, load_vae
from stages.latent_cache import frames_to_tensor
from stages.settings import Settings
from stages.settings_loading import load_settings
from ttm.data.clip_manifest import ClipFolderManifest, ClipRow
from ttm.data.prepared_clips import PreparedClip, digest_of, write_shard
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan
from ttm.pipelines.autoencoders import encode_video

TRANSFORMER = {
    "patch_size": "[1,2,2]",
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
}


UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": "[8,16]",
    "layers_per_block": 1,
    "down_block_types": "[CrossAttnDownBlockMotion,DownBlockMotion]",
    "up_block_types": "[UpBlockMotion,CrossAttnUpBlockMotion]",
    "cross_attention_dim": 16,
    "num_attention_heads": 2,
    "norm_num_groups": 4,
    "motion_num_attention_heads": 2,
    "motion_max_seq_length": 8,
}
WORDS = "<pad> </s> <unk> <s> the a red blue ball square cat moves left right up down stays turns and".split()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(True)  # else a test's precision would be the next one's too


def _save_tokenizer(folder: Path, single: str, pad: str) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, WORDS.index(word)) for word in ("</s>", "<s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vae/, tokenizer/ and text_encoder/: 4 latent channels, /8 in space, /4 in time, text of width 16."""
    folder = tmp_path_factory.mktemp("host")
    torch.manual_seed(0)
    AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[0.5] * 4,
    ).save_pretrained(folder / "vae")
    _save_tokenizer(folder / "tokenizer", "$A </s>", "<pad>")
    config = UMT5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0)
    UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="session")
def unet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of Stable Diffusion's kind: an image autoencoder, /8 in space, and CLIP's text encoder of width 16."""
    folder = tmp_path_factory.mktemp("unet_host")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        mid_block_add_attention=False,
    ).save_pretrained(folder / "vae")
    _save_tokenizer(folder / "tokenizer", "<s> $A </s>", "</s>")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 3, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPTextConfig(vocab_size=len(WORDS), max_position_embeddings=12, **sizes, **special)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One latent cache for the tests that only read it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def host() -> str:
    """Which host :func:`overrides` trains; a test that is to see both is parametrised with ``host``."""
    return "wan"


@pytest.fixture
def overrides(host: str, request: pytest.FixtureRequest, cache_dir: Path, tmp_path: Path) -> list[str]:
    """A run of seconds, as the arguments of ``python -m stages.train``."""
    choice, sizes, folder = {
        "wan": ("ttm_tiny", TRANSFORMER, "pipeline_folder"),
        "unet": ("ttm_tiny_unet", UNET, "unet_folder"),
    }[host]
    return [
        f"host={choice}",
        f"host.pipeline={request.getfixturevalue(folder)}",
        "host.max_sequence_length=12",
        "host.num_masked_blocks=1",
        *[f"host.transformer.{name}={value}" for name, value in sizes.items()],
        f"data.cache_dir={cache_dir}",
        "data.size=32",
        "data.num_frames=5",
        "data.num_objects=[1,2]",
        "data.shard_size=4",
        "data.encode_scenes=8",
        "data.encode_batch=4",
        f"output_dir={tmp_path / 'run'}",
        "max_steps=6",
        "batch_size=4",
        "precision=no",
        "optimizer.lr=1e-2",
        "optimizer.warmup_steps=2",
        "checkpoint_every=2",
        "log_every=1",
        "tracker=none",
    ]


@pytest.fixture
def settings(overrides: list[str]) -> Callable[..., Settings]:
    """Settings of the small run, with changes on top."""

    def build(*changes: str) -> Settings:
        return load_settings([*overrides, *changes])

    return build


_JOINED = """
import os, sys, traceback
sys.stdout = sys.stderr = open(log, "w", buffering=1)
import torch
from accelerate.state import AcceleratorState
torch.set_num_threads(1)
for port, code in zip(ports, codes):  # a new meeting point each time: the old one may still be closing
    os.environ |= environment | {"MASTER_PORT": port}
    try:
        exec(code)
    except BaseException:
        traceback.print_exc()
        raise
    AcceleratorState._reset_state(True)
"""


class SeveralProcesses:
    """Runs code in several processes that find each other, as torchrun starts them.

    They are forked from one that has imported the training program once, so that a run takes seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["stages.train"])

    def run(self, *codes: str, count: int = 2) -> tuple[list[int | None], list[str]]:
        """Exit codes and outputs of the processes, each of which executes all ``codes`` one after the other.

        A process whose fellow has failed is given 20 seconds to notice, and then ended.
        """
        with contextlib.ExitStack() as sockets:
            free = [sockets.enter_context(socket.socket()) for _ in codes]
            for each in free:
                each.bind(("127.0.0.1", 0))
            ports = [str(each.getsockname()[1]) for each in free]
        started, logs = [], []
        for rank in range(count):
            of_all = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
            environment = of_all | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            logs.append(self.folder / f"{ports[0]}-{rank}.log")
            names = {"environment": environment, "log": str(logs[-1]), "codes": codes, "ports": ports}
            started.append(self.context.Process(target=exec, args=(_JOINED, names)))
            started[-1].start()
        wait([process.sentinel for process in started], 1800)
        patience = 20 if any(process.exitcode for process in started) else 1800
        for process in started:
            process.join(patience)
            if process.is_alive():
                process.kill()
                process.join()
        return [process.exitcode for process in started], [log.read_text() for log in logs]


@pytest.fixture(scope="session")
def several_processes(tmp_path_factory: pytest.TempPathFactory) -> SeveralProcesses:
    """Two processes or more; see :class:`SeveralProcesses`."""
    return SeveralProcesses(tmp_path_factory.mktemp("processes"))


SHAPES = [(5, 32, 32), (5, 32, 48), (9, 32, 32), (9, 32, 48)]
"""Frames, height, width: two lengths of two sizes."""


@pytest.fixture(scope="session")
def prepared_folder(pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four prepared clips of each of ``SHAPES`` in three shards; the last of each shape has its video, no latents."""
    folder = tmp_path_factory.mktemp("prepared")
    vae, rng = load_vae(str(pipeline_folder)), np.random.default_rng(0)
    clips = []
    for number in range(4 * len(SHAPES)):
        frames, height, width = SHAPES[number % 4]
        ids = np.zeros((frames, height, width), np.uint8)
        for frame in range(frames):
            ids[frame, 8:24, 2 * frame : 2 * frame + 12] = 1
            ids[frame, 24:, 4:20] = 2 * (number % 2)
        video = rng.integers(0, 255, (frames, height, width, 3), np.uint8)
        objects = ["the red ball", "the blue square"][: 1 + number % 2]
        plan = PromptPlan(
            "a red ball moves right", "red ball moves right", [ObjectPrompt(name, "moves right") for name in objects]
        )
        moves = MaskTrajectory(ids)
        with torch.no_grad():
            latents = {
                name: encode_video(vae, frames_to_tensor([shown]))[0].half().numpy()
                for name, shown in (("video", video), ("motion", moves.to_video()))
            }
        write_video(folder / "clip.mp4", video, 8)
        shown = (folder / "clip.mp4").read_bytes()
        stored = (latents, encoder_digest(vae), None) if number < 12 else (None, None, shown)
        source = f"{number}.mp4", 0.0, plan.prompt, plan, moves, digest_of(video)
        clips.append(PreparedClip(f"clip-{number:02d}", *source, *stored))
    rows = []
    for shard in range(3):
        name = f"shard-{shard:05d}.tar"
        write_shard(folder / name, clips[shard::3])
        rows += [ClipRow.of(clip, name) for clip in clips[shard::3]]
    ClipFolderManifest(tuple(rows)).save(folder)
    return folder
