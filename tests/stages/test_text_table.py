from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stages.host import load_text
from stages.text_table import TextTable, texts_of
from stages.whole_files import read_tensors, write_tensors
from ttm.objects import ObjectPrompt, PromptPlan
from ttm.pipelines.conditioning import encode_text

TEXTS = ["the red ball moves left", "the cat stays", "the red ball moves left and turns blue"]


@pytest.mark.parametrize("folder", ["pipeline_folder", "unet_folder"])
def test_lookup_is_what_the_pipelines_encode(folder: str, request: pytest.FixtureRequest) -> None:
    """Also of CLIP, whose embeddings of the padding are kept."""
    tokenizer, encoder = load_text(str(request.getfixturevalue(folder)))
    table = TextTable.build(TEXTS, tokenizer, encoder, 12)
    for text in ["", *TEXTS]:
        with torch.no_grad():
            expected, expected_mask = encode_text(tokenizer, encoder, [text], 12)
        found, mask = table.lookup([text])
        assert torch.equal(mask, expected_mask)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert (found[~mask] == 0).all() == (folder == "pipeline_folder")


@pytest.mark.parametrize(("length", "batches"), [(512, [16, 2]), (12, [18])])
def test_long_texts_are_embedded_a_few_at_a_time(pipeline_folder: Path, length: int, batches: list[int]) -> None:
    tokenizer, encoder = load_text(str(pipeline_folder))
    texts = [f"the {word} cat stays" + " and turns" * number for word in ("red", "blue", "") for number in range(6)]
    seen: list[tuple[int, ...]] = []
    encoder.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    table = TextTable.build(texts[1:], tokenizer, encoder, length)
    assert seen == [(count, length) for count in batches]
    with torch.no_grad():
        alone, mask = encode_text(tokenizer, encoder, texts[-1:], length)
    found, found_mask = table.lookup(texts[-1:])
    assert torch.equal(found_mask, mask)
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("folder", ["pipeline_folder", "unet_folder"])
def test_a_stored_table_is_read_back_bit_for_bit(folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tokenizer, encoder = load_text(str(request.getfixturevalue(folder)))
    first = TextTable.build(TEXTS, tokenizer, encoder, 12, tmp_path)
    second = TextTable.build(reversed(TEXTS), None, encoder, 12, tmp_path)  # no tokenizer: it must not be asked
    assert len(list(tmp_path.iterdir())) == 1
    for left, right in zip(first.lookup(TEXTS), second.lookup(TEXTS), strict=True):
        assert torch.equal(left, right)
    TextTable.build(TEXTS[:1], tokenizer, encoder, 12, tmp_path)
    next(encoder.parameters()).data += 1
    TextTable.build(TEXTS, tokenizer, encoder, 12, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_table_of_an_older_cache_is_still_read(pipeline_folder: Path, tmp_path: Path) -> None:
    """It knew no rows apart from the lengths: with zeros beyond a text they are the same."""
    tokenizer, encoder = load_text(str(pipeline_folder))
    table = TextTable.build(TEXTS, tokenizer, encoder, 12, tmp_path)
    (path,) = tmp_path.iterdir()
    stored = read_tensors(path, "")
    assert torch.equal(stored.pop("rows"), stored["lengths"])
    write_tensors(path, stored)
    assert torch.equal(TextTable.build(TEXTS, None, encoder, 12, tmp_path).lookup(TEXTS)[0], table.lookup(TEXTS)[0])


def test_each_stage_reads_its_own_texts() -> None:
    plan = PromptPlan("A red ball flies.", "the red ball moves left", (ObjectPrompt("red ball", "the red ball turns"),))
    assert texts_of([plan], "image_to_motion") == {"the red ball moves left"}
    assert texts_of([plan], "motion_to_video") == {"A red ball flies.", "the red ball turns"}
