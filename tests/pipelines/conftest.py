"""Pipelines of random weights, small enough that a whole run takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.objects import ObjectPrompt, PromptPlan
from ttm.pipelines.image_to_video import Pipeline

WORDS = "the a red blue ball square moves left right and turns green stays , .".split()
SIZE = 32
FRAMES = 5


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _transformer(**changes: Any) -> MaskedWanTransformer3DModel:
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
    model = MaskedWanTransformer3DModel(**{**config, **changes})
    for parameter in model.parameters():  # the new branches start at zero, which would hide them from every test
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def _components(segmenter: Any) -> dict[str, Any]:
    torch.manual_seed(0)
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
        "tokenizer": _tokenizer(),
        "text_encoder": UMT5EncoderModel(text).eval(),
        "motion_transformer": _transformer(),
        "transformer": _transformer(num_masked_blocks=1),
        "motion_scheduler": FlowMatchEulerDiscreteScheduler(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "segmenter": segmenter,
    }


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
def make_pipeline() -> Callable[..., Pipeline]:
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
        pipe = Pipeline(**_components(ColourSegmenter() if with_segmenter else None), **{**defaults, **settings})
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
