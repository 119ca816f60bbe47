"""A pipeline folder of random weights, small enough that a training step takes milliseconds."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderKL, AutoencoderKLWan
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from stages.settings import Settings, load_settings

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
os.environ |= environment
sys.stdout = sys.stderr = open(log, "w", buffering=1)
import torch
torch.set_num_threads(1)
try:
    exec(code)
except BaseException:
    traceback.print_exc()
    raise
"""


class SeveralProcesses:
    """Runs code in several processes that find each other, as torchrun starts them.

    They are forked from one that has imported the training program once, so that a run takes seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["stages.train"])

    def run(self, code: str, count: int = 2) -> tuple[list[int | None], list[str]]:
        """Exit codes and outputs of the processes; ``code`` finds its number in RANK."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        started, logs = [], []
        for rank in range(count):
            of_all = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
            environment = of_all | {"MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            logs.append(self.folder / f"{port}-{rank}.log")
            names = {"environment": environment, "log": str(logs[-1]), "code": code}
            started.append(self.context.Process(target=exec, args=(_JOINED, names)))
            started[-1].start()
        for process in started:
            process.join(300)
            if process.is_alive():
                process.kill()
        return [process.exitcode for process in started], [log.read_text() for log in logs]


@pytest.fixture(scope="session")
def several_processes(tmp_path_factory: pytest.TempPathFactory) -> SeveralProcesses:
    """Two processes or more; see :class:`SeveralProcesses`."""
    return SeveralProcesses(tmp_path_factory.mktemp("processes"))
