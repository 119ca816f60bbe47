"""Pipelines of random weights, small enough that a whole run takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    ConfigMixin,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    ModelMixin,
)
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.objects import ObjectPrompt, PromptPlan
from ttm.pipelines.image_to_video import Pipeline

WORDS = "the a red blue ball square moves left right and turns green stays , .".split()
SIZE = 32
FRAMES = 5


def _tokenizer(single: str, pad: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", "<s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, vocabulary[word]) for word in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, eos_token="</s>", unk_token="<unk>")


def _randomized(model: Any) -> Any:
    for parameter in model.parameters():  # the new branches start at zero, which would hide them from every test
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def _wan(**changes: Any) -> Any:
    config = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 16,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 32,
        "condition_channels": 8,
    }
    return _randomized(MaskedWanTransformer3DModel(**{**config, **changes}))


def _unet(**changes: Any) -> Any:
    model = MaskedUNetMotionModel(
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=16,
        condition_channels=8,
        **changes,
    )
    return _randomized(model)


def _wan_components() -> dict[str, Any]:
    """The video transformer, flow matching, the video autoencoder and UMT5."""
    text = UMT5Config(
        vocab_size=24,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return {
        "vae": AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[0.5, 1.5, 1.0, 0.7],
        ).eval(),
        "tokenizer": _tokenizer("$A </s>", "<pad>"),
        "text_encoder": UMT5EncoderModel(text).eval(),
        "motion_transformer": _wan(),
        "transformer": _wan(num_masked_blocks=1),
        "motion_scheduler": FlowMatchEulerDiscreteScheduler(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _unet_components() -> dict[str, Any]:
    """The motion U-Net, v-prediction with DDIM, the image autoencoder and CLIP."""
    text = CLIPTextConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=3,
        eos_token_id=1,
        pad_token_id=1,
    )
    scheduler = {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "clip_sample": False,
    }
    return {
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4, 4, 4, 4),
            norm_num_groups=2,
            mid_block_add_attention=False,
            scaling_factor=0.7,
        ).eval(),
        "tokenizer": _tokenizer("<s> $A </s>", "</s>"),
        "text_encoder": CLIPTextModel(text).eval(),
        "motion_transformer": _unet(),
        "transformer": _unet(num_masked_blocks=1),
        "motion_scheduler": DDIMScheduler(**scheduler),
        "scheduler": DDIMScheduler(**scheduler),
    }


def offloaded(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[str]]]:
    """Turn model CPU offload on, and tell at each forward which model runs and which are on the device.

    No accelerator here, so the device is the CPU by another name, "cpu:0"; every move is diffusers' own. What a model's
    own hook sends away just before it runs stays, since accelerate sees it on a CPU: these are too many, never too few.
    """
    names = {id(part): name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    there: set[str] = set()
    seen: list[tuple[str, set[str]]] = []
    move = torch.nn.Module.to

    def to(model: torch.nn.Module, *given: Any, **named: Any) -> Any:
        place = next((torch.device(each) for each in given if isinstance(each, str | torch.device)), None)
        if place is not None and id(model) in names:
            (there.discard if place.index is None else there.add)(names[id(model)])
        return move(model, *given, **named)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    for name in names.values():
        getattr(pipe, name).register_forward_hook(lambda *_, name=name: seen.append((name, set(there))))
    pipe.enable_model_cpu_offload(device="cpu")
    assert all(hasattr(getattr(pipe, name), "_hf_hook") for name in names.values()) and not there
    return seen


def offload_by_layer(pipe: Any) -> None:
    """Sequential offload, to the CPU: diffusers' own call says "cpu:0", which accelerate can't take."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            cpu_offload(part, execution_device=torch.device("cpu"), offload_buffers=len(part._parameters) > 0)


COMPONENTS = {"wan": _wan_components, "unet": _unet_components}


class ColourSegmenter(ModelMixin, ConfigMixin):
    """Finds red and blue things, and remembers the sizes of the images that it was shown."""

    config_name = "config.json"

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def segment(self, image: NDArray[np.uint8], phrases: list[str]) -> NDArray[np.uint8]:
        ids: NDArray[np.uint8] = self(image, phrases)
        return ids

    def forward(self, image: NDArray[np.uint8], phrases: list[str]) -> NDArray[np.uint8]:
        self.seen.append(image.shape[:2])
        ids = np.zeros(image.shape[:2], np.uint8)
        for number, phrase in enumerate(phrases, start=1):
            channel = 0 if "red" in phrase else 2
            ids[image[..., channel].astype(int) - image[..., 1] > 128] = number
        return ids


@pytest.fixture
def host() -> str:
    """Which components :func:`make_pipeline` takes; a test that is to see both is parametrised with ``host``."""
    return "wan"


@pytest.fixture
def make_pipeline(host: str) -> Callable[..., Pipeline]:
    """make_pipeline(with_segmenter=False, **settings) -> a pipeline; equal weights every time."""

    def make(with_segmenter: bool = False, **settings: Any) -> Pipeline:
        defaults = {
            "num_frames": FRAMES,
            "height": SIZE,
            "width": SIZE,
            "num_inference_steps": 2,
            "motion_num_inference_steps": 2,
            "max_sequence_length": 12,
        }
        torch.manual_seed(0)
        segmenter = ColourSegmenter() if with_segmenter else None
        pipe = Pipeline(**COMPONENTS[host](), segmenter=segmenter, **{**defaults, **settings})
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def pipe(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline()


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """Grey, with a red and a blue square; uint8 [SIZE, SIZE, 3]."""
    pixels = np.full((SIZE, SIZE, 3), 90, np.uint8)
    pixels[4:14, 4:14] = (230, 20, 20)
    pixels[18:28, 16:30] = (20, 20, 230)
    return pixels


@pytest.fixture
def masks() -> NDArray[np.uint8]:
    """The ids of :func:`image`: 1 = red, 2 = blue."""
    ids = np.zeros((SIZE, SIZE), np.uint8)
    ids[4:14, 4:14] = 1
    ids[18:28, 16:30] = 2
    return ids


@pytest.fixture
def prompt() -> str:
    return "The red ball moves left and turns green, and the blue square stays."


@pytest.fixture
def plan(prompt: str) -> PromptPlan:
    return PromptPlan(
        prompt,
        "the red ball moves left and turns green, the blue square stays",
        (
            ObjectPrompt("red ball", "the red ball moves left and turns green"),
            ObjectPrompt("blue square", "the blue square stays"),
        ),
    )


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    return lambda seed: torch.Generator().manual_seed(seed)
