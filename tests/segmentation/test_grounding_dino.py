"""Grounding DINO: phrases in its text, scores of boxes, one box a thing; the model with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    PreTrainedTokenizerFast,
)

from tools.ttm_tiny.train_segmenter import tiny_config
from ttm.segmentation import Segmenter
from ttm.segmentation.grounding import with_companions
from ttm.segmentation.grounding_dino import (
    Boxes,
    GroundingDino,
    corners_in_pixels,
    how_many,
    joined,
    phrase_scores,
    public_detector,
    without_duplicates,
)
from ttm.segmentation.segmenter import PhraseNotFoundError

WORDS = {"red": 1100, "blue": 1101, "ball": 1102, "square": 1103, "dog": 1104, "dogs": 1105, "two": 1106, "##s": 1107}


def tokenizer() -> PreTrainedTokenizerFast:
    """A small BERT tokenizer; the special tokens have the ids that Grounding DINO knows them by."""
    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
    named = {**WORDS, **special}
    vocabulary = {f"[unused{n}]": n for n in set(range(1120)) - set(named.values())} | named
    pieces = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **names)


def tiny_model() -> GroundingDinoForObjectDetection:
    swin = {
        "model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2,
        "image_size": 64, "patch_size": 4, "out_indices": [2, 3, 4],
    }  # fmt: skip
    bert = {
        "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 1120, "max_position_embeddings": 64,
    }  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=swin, text_config=bert, num_queries=12, encoder_layers=1, encoder_ffn_dim=16, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, decoder_ffn_dim=16, d_model=32, max_text_len=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GroundingDinoForObjectDetection(config).eval()
    with torch.no_grad():  # the heads start at zero: every query would be the same box
        for parameter in model.bbox_embed.parameters():
            parameter.normal_(std=0.7)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Grounding DINO in the layout of the public ones."""
    path = tmp_path_factory.mktemp("detector")
    tiny_model().save_pretrained(path)
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(processor, tokenizer()).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def segmenter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    path = tmp_path_factory.mktemp("sam2") / "sam2.pt"
    torch.manual_seed(0)
    parts, _ = public_detector(folder)
    torch.save({"model": Segmenter(tiny_config(64), detector=parts).sam2.state_dict()}, path)
    return Segmenter.from_public((tiny_config(64), path), detector=folder, least_box_score=0.01)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8)


# The logic, with known boxes.


def test_phrases_stand_where_their_spans_say() -> None:
    text, spans = joined(["Red  ball", "dog. big?", "..."])
    assert text == "red ball. dog big. object."
    assert [text[begin:end] for begin, end in spans] == ["red ball", "dog big", "object"]


def test_the_score_of_a_phrase_is_the_mean_over_its_tokens() -> None:
    text, spans = joined(["red ball", "balls"])
    encoded = tokenizer()(text, return_offsets_mapping=True)
    assert encoded.tokens() == ["[CLS]", "red", "ball", ".", "ball", "##s", ".", "[SEP]"]
    chances = torch.tensor([[0.9, 0.2, 0.6, 0.9, 0.5, 0.1, 0.9, 0.9], [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    logits = torch.full((2, 64), -torch.inf)
    logits[:, :8] = chances.logit()
    scores = phrase_scores(logits, encoded["offset_mapping"], spans)
    torch.testing.assert_close(scores, torch.tensor([[0.4, 0.3], [1.0, 0.0]]))


def test_corners_are_pixels_within_the_image() -> None:
    corners = corners_in_pixels(torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.0, 1.0, 0.5, 0.5]]), height=40, width=80)
    assert corners.tolist() == [[20, 10, 60, 30], [0, 30, 20, 40]]


def test_boxes_that_coincide_are_one_with_the_best_of_their_scores() -> None:
    corners = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 11], [20, 0, 30, 10], [40, 0, 40, 10], [0, 20, 9, 29]]).float()
    scores = torch.tensor([[0.5, 0.1], [0.1, 0.8], [0.4, 0.3], [0.9, 0.9], [0.2, 0.1]])
    found = without_duplicates(corners, scores, least=0.3)
    assert found.corners.tolist() == [[0, 0, 10, 11], [20, 0, 30, 10]]
    np.testing.assert_allclose(found.scores, [[0.5, 0.8], [0.4, 0.3]])
    none = without_duplicates(corners, scores, least=0.95)
    assert none.corners.shape == (0, 4) and none.scores.shape == (0, 2)


@pytest.mark.parametrize(
    ("phrase", "count"),
    [
        ("dog", 1), ("red ball", 1), ("man in the red shoes", 1), ("glass", 1), ("sheep", 1), ("", 1), ("1 dog", 1),
        ("two dogs", 2), ("twelve balls", 12), ("3 balls", 3),
        ("dogs", None), ("people", None), ("several birds", None), ("women in red", None),
    ],
)  # fmt: skip
def test_how_many_things_a_phrase_means(phrase: str, count: int | None) -> None:
    assert how_many(phrase) == count


def _strips(count: int) -> np.ndarray:
    masks = np.zeros((count, 8, 8 * count), bool)
    for number, mask in enumerate(masks):
        mask[:, 8 * number : 8 * number + 6] = True
    return masks


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [0, 2]), (3, [0, 2, 1]), (None, [0, 2, 1])])
def test_a_plural_gets_its_companions_by_score(count: int | None, expected: list[int]) -> None:
    # 0, 1, 2 are dogs; 3 looks more like the cat; 4 like nothing
    scores = np.log([[0.9, 0.1], [0.5, 0.1], [0.6, 0.2], [0.7, 0.8], [0.1, 0.1]])
    members = with_companions([0, 3], scores, _strips(5), [count, 1], least=np.log(0.4))
    assert members == [expected, [3]]


def test_companions_do_not_lie_on_what_is_chosen() -> None:
    masks = _strips(3)
    masks[1] = masks[0]  # a part of the chosen thing
    scores = np.log(np.array([[0.9], [0.8], [0.7]]))
    assert with_companions([0], scores, masks, [None], least=np.log(0.4)) == [[0, 2]]
    assert with_companions([-1], scores, masks, [None], least=np.log(0.4)) == [[]]


def _seeing(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, scores: dict[str, list[float]]) -> None:
    """Three boxes beside each other, with SAM2's masks the boxes themselves, and scores by phrase."""
    corners = np.array([[4, 4, 20, 20], [28, 4, 44, 20], [52, 4, 68, 20]], np.float32)

    def detect(image: np.ndarray, phrases: list[str], least: float) -> Boxes:
        table = np.array([scores.get(phrase, [0.0] * 3) for phrase in phrases], np.float32).T
        order = [n for n in np.argsort(-table.max(axis=1)) if table[n].max() >= least]
        return Boxes(corners[order], table[order])

    def masks_at(sam2: Any, image: np.ndarray, places: list[Any]) -> tuple[list[np.ndarray], list[float]]:
        masks = [np.zeros(image.shape[:2], bool) for _ in places]
        for mask, (x0, y0, x1, y1) in zip(masks, places, strict=True):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        return masks, [0.9] * len(places)

    monkeypatch.setattr(segmenter.grounding_dino, "detect", detect)
    monkeypatch.setattr("ttm.segmentation.segmenter.masks_at", masks_at)


def _columns(ids: np.ndarray) -> list[int]:
    return [int(ids[10, x]) for x in (10, 35, 60)]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"dog": [0.9, 0.8, 0.1], "cat": [0.2, 0.3, 0.7]}, [1, 0, 2]),  # several dogs, one asked for: the best
        ({"dogs": [0.9, 0.8, 0.1], "cat": [0.2, 0.3, 0.7]}, [1, 1, 2]),  # all of them
        ({"two dogs": [0.5, 0.9, 0.6]}, [0, 1, 1]),
        ({"red ball": [0.8, 0.5, 0.1], "blue ball": [0.7, 0.6, 0.1]}, [1, 2, 0]),  # both fit both: best together
        ({"ball": [0.8, 0.5, 0.1], "red ball": [0.9, 0.1, 0.0]}, [2, 1, 0]),  # one box under two labels goes to one
    ],
)
def test_boxes_become_ids(
    segmenter: Segmenter,
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    scores: dict[str, Any],
    expected: list[int],
) -> None:
    _seeing(segmenter, monkeypatch, scores)
    assert _columns(segmenter.segment(image, list(scores))) == expected


def test_a_phrase_that_is_not_found_says_what_was_seen(
    segmenter: Segmenter, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _seeing(segmenter, monkeypatch, {"dog": [0.9, 0.0, 0.0], "chair": [0.0, 0.6, 0.0]})
    with pytest.raises(
        PhraseNotFoundError,
        match=r"'cat' \(no region is left for it\)\. What was seen: 'dog' 0\.90 .*; 'chair' 0\.60 around x 36",
    ) as caught:
        segmenter.segment(image, ["dog", "cat"])
    assert caught.value.phrases == ("cat",)
    seen = r"'zebra' \(nothing like it\)\. What was seen: 'dog' .*'chair' 0\.60"
    with pytest.raises(PhraseNotFoundError, match=seen):
        segmenter.segment(image, ["zebra"])


# The model as a whole, with random weights.


def test_the_model_gives_boxes_with_the_scores_of_transformers(folder: Path, image: np.ndarray) -> None:
    parts, model = public_detector(folder)
    ours = GroundingDino(parts)
    ours.model.load_state_dict(model.state_dict())
    with torch.no_grad():
        found = ours.detect(image, ["red ball", "dog"], least=0.0)
        processor = GroundingDinoProcessor.from_pretrained(folder)
        inputs = processor(images=image, text=[["red ball", "dog"]], return_tensors="pt")
        theirs = processor.post_process_grounded_object_detection(
            model(**inputs), threshold=0.0, target_sizes=[image.shape[:2]]
        )[0]
    assert found.scores.shape == (len(found.corners), 2) and 1 <= len(found.corners) <= 12
    limits = torch.tensor([72, 48, 72, 48]).float()
    boxes = torch.minimum(theirs["boxes"].clamp(min=0), limits)
    for corners in found.corners:
        assert (boxes - torch.from_numpy(corners)).abs().max(dim=1).values.min() < 1e-3
    with pytest.raises(ValueError, match="tokens long; expected at most 64"):
        ours.detect(image, ["red ball"] * 40, least=0.0)


def test_it_is_saved_with_the_segmenters_folder(segmenter: Segmenter, image: np.ndarray, tmp_path: Path) -> None:
    expected = segmenter.segment(image, ["red ball"])
    assert expected.shape == (48, 72) and set(np.unique(expected)) <= {0, 1} and expected.any()
    segmenter.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    loaded = Segmenter.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.segment(image, ["red ball"]), expected)
    assert Segmenter.from_pretrained(tmp_path, torch_dtype=torch.float16).dtype == torch.float16


def test_what_is_no_detector(folder: Path, tmp_path: Path) -> None:
    parts, _ = public_detector(folder)
    with pytest.raises(ValueError, match="can't be opened as Grounding DINO"):
        public_detector(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="it is a 'bert'"):
        public_detector(tmp_path)
    with pytest.raises(ValueError, match="expected either clip_config or detector"):
        Segmenter(tiny_config(64))
    with pytest.raises(ValueError, match=r"detector has the keys \['model'\]"):
        GroundingDino({"model": parts["model"]})
    with pytest.raises(ValueError, match="cannot be built from its config"):
        GroundingDino({**parts, "tokenizer": {"model": 7}})
