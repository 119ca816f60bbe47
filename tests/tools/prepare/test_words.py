"""Captions and plans: given, described by a model, or told by the masks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tools.prepare.flow import prepare
from tools.prepare.settings import ClipSettings, ModelSettings
from tools.prepare.words import ImageCaptioner, caption_of_name, name_masks, plan_of_trajectory
from tools.prepare.work import read_rejects
from ttm.data.prepared_clips import read_clips
from ttm.objects import ObjectPrompt, PromptPlan


def ids_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """One object a frame each, (top, left, height, width)."""
    ids = np.zeros((len(boxes), 60, 80), np.uint8)
    for frame, (top, left, height, width) in zip(ids, boxes, strict=True):
        frame[top : top + height, left : left + width] = 1
    return ids


@pytest.mark.parametrize(
    ("last", "action"),
    [
        ((20, 60, 10, 10), "moves right"), ((20, 2, 10, 10), "moves left"), ((2, 30, 10, 10), "moves up"),
        ((45, 28, 10, 10), "moves down"), ((20, 31, 10, 10), "stays"), ((15, 25, 20, 20), "grows"),
        ((23, 33, 4, 4), "shrinks"),
    ],
)  # fmt: skip
def test_masks_tell_how_an_object_moves(last: tuple[int, int, int, int], action: str) -> None:
    plan = plan_of_trajectory(ids_of((20, 30, 10, 10), (0, 0, 0, 0), last))
    assert plan.motion_prompt == plan.prompt == f"the object 1 {action}"


def test_masks_of_several_objects() -> None:
    ids = ids_of((20, 30, 10, 10), (20, 60, 10, 10))
    ids[:, 50:55, 5:10] = 3
    plan = plan_of_trajectory(ids, "A market.")
    assert plan.phrases == ["object 1", "object 2", "object 3"] and plan.prompt == "A market."
    assert plan.local_prompts == ["the object 1 moves right", "the object 2 stays", "the object 3 stays"]
    with pytest.raises(ValueError, match="no object"):
        plan_of_trajectory(np.zeros((2, 4, 4), np.uint8))


def plan_for(*phrases: str) -> PromptPlan:
    objects = tuple(ObjectPrompt(phrase, f"the {phrase} moves") for phrase in phrases)
    return PromptPlan("They move.", ", ".join(item.local_prompt for item in objects), objects)


def test_phrases_name_the_masks_that_they_were_found_on() -> None:
    ids = np.zeros((2, 20, 30), np.uint8)
    ids[:, 2:8, 2:8], ids[:, 2:8, 20:26], ids[1, 12:18, 12:18] = 1, 2, 3
    grounded = np.zeros((20, 30), np.uint8)
    grounded[2:8, 19:26], grounded[15:20, 0:4], grounded[2:8, 2:7] = 1, 2, 3
    plan, named = name_masks(plan_for("cat", "tree", "dog"), grounded, ids)
    assert plan.phrases == ["cat", "dog"] and plan.motion_prompt == "the cat moves, the dog moves"
    np.testing.assert_array_equal(named == 1, ids == 2)
    np.testing.assert_array_equal(named == 2, ids == 1)
    with pytest.raises(ValueError, match="'tree' is found on a given mask"):
        name_masks(plan_for("tree"), (grounded == 2).astype(np.uint8), ids)
    with pytest.raises(ValueError, match="'cat'"):
        name_masks(plan_for("cat"), grounded, np.zeros_like(ids))


def test_captions_of_names() -> None:
    assert caption_of_name("{name}.", "a/a-dog-runs-03.mp4") == "a dog runs."
    assert caption_of_name("Things move.", "03.mp4") == "Things move."
    with pytest.raises(ValueError, match="says nothing"):
        caption_of_name("{name}", "03.mp4")


def test_which_words_count(tmp_path: Path, small_clips: ClipSettings, add_video: Callable[..., Path]) -> None:
    """Given before made; a plan before a caption; names by a template alone; and what does not fit is left out."""
    folder = tmp_path / "in"
    for number, name in enumerate(("the-ball-rolls", "told", "planned", "phrased", "still", "two", "many")):
        add_video(folder / f"{name}.mp4", 5, number)
    (folder / "told.txt").write_text("The white square moves right.")
    plan_for("white square").save(folder / "planned.plan.json")
    (folder / "two.plan.json").write_text('{"prompt": "x"}')
    (folder / "prompts.yaml").write_text(
        "phrased.mp4: {prompt: The square moves right., phrases: [white square]}\n"
        "many.mp4: {prompt: The square moves right., phrases: [a, b]}\n"
        "still.mp4: A quiet afternoon.\n"
    )
    clips = replace(small_clips, caption="{name}")
    prepare(folder, tmp_path / "out", clips, ModelSettings(), say=lambda line: None)
    found = {clip.source.split(".")[0]: clip for clip in read_clips(tmp_path / "out")}
    assert {name: clip.caption for name, clip in found.items()} == {
        "the-ball-rolls": "the ball rolls", "told": "The white square moves right.", "planned": "They move.",
        "phrased": "The square moves right.",
    }  # fmt: skip
    assert found["phrased"].plan.phrases == ["white square"] and found["planned"].plan == plan_for("white square")
    told = {row["source"]: (row["stage"], row["reason"]) for row in read_rejects(tmp_path / "out")}
    assert {name: stage for name, (stage, _) in told.items()} == {
        "many.mp4": "plan", "still.mp4": "plan", "two.mp4": "plan"
    }  # fmt: skip


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image-to-text model in the public layout, of random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
        BlipTextConfig,
        BlipVisionConfig,
    )

    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "red", "ball", "rolls", "dog", "runs"]
    backend = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = BertTokenizerFast(tokenizer_object=backend, bos_token="[DEC]")
    text = BlipTextConfig(
        vocab_size=len(words), hidden_size=16, encoder_hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, bos_token_id=5, eos_token_id=3, pad_token_id=0,
        sep_token_id=3,
    )  # fmt: skip
    vision = BlipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    with torch.no_grad():
        for name, bias in model.named_parameters():
            if name.endswith("predictions.bias") or name.endswith("predictions.decoder.bias"):
                bias[words.index("ball")] = 100.0
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def test_a_public_captioner_describes_what_has_no_caption(blip: Path) -> None:
    captioner = ImageCaptioner(str(blip), max_new_tokens=6)
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 50, 3), np.uint8)
    text = captioner.caption(frames)
    assert set(text.split()) == {"ball"} and len(text.split()) == 6
    with pytest.raises(OSError):
        ImageCaptioner(str(blip / "missing"))


def test_a_captioner_in_a_pickle_is_refused(blip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(blip, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="no file named model.safetensors"):
        ImageCaptioner(str(folder))
