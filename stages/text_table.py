"""Every text of a cache, embedded once by the frozen text encoder.

Letters: B batch, L objects, S tokens (``max_sequence_length``), D text width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.host import module_digest
from stages.whole_files import read_tensors, write_tensors
from ttm.objects import PromptPlan
from ttm.pipelines.conditioning import encode_text

_BATCH = 128


class TextTable:
    """Text -> embedding, each trimmed to its own tokens in memory and zero-padded when read.

    All texts are embedded in one order and in batches of one size, so that a text's embedding does not depend on
    when it is first needed: a resumed run sees the same bits.

    Args:
        embeddings: float32 [all tokens, D].
        lengths: tokens of each text.
        texts: the texts, sorted.
        max_length: S.
    """

    def __init__(self, embeddings: Tensor, lengths: Tensor, texts: Sequence[str], max_length: int) -> None:
        self.max_length = max_length
        self._rows = dict(zip(texts, torch.split(embeddings, lengths.tolist()), strict=True))

    @classmethod
    def build(
        cls, texts: Iterable[str], tokenizer: Any, text_encoder: Any, max_length: int, folder: Path | None = None
    ) -> TextTable:
        """Embed ``texts`` and the text that says nothing.

        Args:
            folder: where to keep the embeddings, named by the texts and the encoder's weights; None = nowhere.
        """
        ordered = sorted({"", *texts})
        said = hashlib.sha256("\n".join([*ordered, str(max_length)]).encode()).hexdigest()[:8]
        path = None if folder is None else folder / f"text-{module_digest(text_encoder)}-{said}.safetensors"
        if path is not None and path.exists():
            stored = read_tensors(path, "remove it; it is made anew.")
            return cls(stored["embeddings"], stored["lengths"], ordered, max_length)
        pieces, lengths = [], []
        with torch.no_grad():
            for first in range(0, len(ordered), _BATCH):
                batch = ordered[first : first + _BATCH]
                embedded, mask = encode_text(tokenizer, text_encoder, batch, max_length)
                pieces.append(embedded[mask].float().cpu())  # row by row: padding is on the right
                lengths += mask.sum(dim=1).tolist()
        embeddings, counts = torch.cat(pieces), torch.tensor(lengths)
        if path is not None:
            write_tensors(path, {"embeddings": embeddings, "lengths": counts})
        return cls(embeddings, counts, ordered, max_length)

    def lookup(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings float32 [B, S, D], zero beyond each text, and mask bool [B, S]."""
        rows = [self._rows[text] for text in texts]
        embedded = torch.zeros(len(rows), self.max_length, rows[0].shape[-1])
        mask = torch.zeros(len(rows), self.max_length, dtype=torch.bool)
        for place, row in enumerate(rows):
            embedded[place, : len(row)] = row
            mask[place, : len(row)] = True
        return embedded, mask


def texts_of(plans: Iterable[PromptPlan], stage: str) -> set[str]:
    """What one stage reads of the plans: stage 1 the motion prompts, stage 2 the prompts and local prompts."""
    if stage == "image_to_motion":
        return {plan.motion_prompt for plan in plans}
    return {text for plan in plans for text in (plan.prompt, *plan.local_prompts)}
