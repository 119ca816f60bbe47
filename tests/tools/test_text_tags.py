"""What the tiny text encoder is taught: the tags must sit on the words of their clause."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.ttm_tiny.train_text_encoder import Tagger, batch, random_objects, tagged_texts, train_tokenizer


def test_every_clause_holds_its_object_and_no_other() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        objects = random_objects(rng)
        for tagged in tagged_texts(rng, objects):
            for start, end, number in tagged.clauses:
                assert f"the {objects[number].phrase} " in tagged.text[start:end].lower() + " "


def test_tokenizer_knows_every_letter_and_batches_carry_tags(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path, vocabulary=700)
    tokens = tokenizer("The Zyqwx-Ünïcode truck drives left!")["input_ids"]
    assert tokenizer.unk_token_id not in tokens and tokens[-1] == tokenizer.eos_token_id
    assert "zyqwx-ünïcode truck drives left!" in tokenizer.decode(tokens)
    ids, mask, labels = batch(np.random.default_rng(0), tokenizer, plans=3)
    assert ids.shape == mask.shape == labels.shape[:2] and labels.shape[2] == len(Tagger.TAGS)
    assert (labels[mask == 0] == -100).all() and (labels[..., 1] != -100).any()
