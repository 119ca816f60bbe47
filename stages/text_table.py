"""Every text of a cache, embedded once by the frozen text encoder.

Letters: B batch, L objects, S tokens (``max_sequence_length``), D text width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from stages.host import module_digest
from stages.whole_files import read_tensors, write_tensors
from ttm.objects import PromptPlan
from ttm.pipelines.conditioning import encode_text

_MOST_TEXTS, _MOST_TOKENS = 128, 8192
"""Of a batch. 8192 tokens are 16 texts of 512, for which umT5-xxl takes 1.5 GB beside its weights, 3 in float32."""


class Texts(Protocol):
    """Embedded texts."""

    def lookup(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What :func:`encode_text` gives for B texts: embeddings float32 [B, S, D] and mask bool [B, S]."""


class EncodedTexts:
    """Texts embedded when they are asked for, by the frozen text encoder, which stays on its device.

    For more texts than a disk holds embedded. Each is embedded alone, so that it does not depend on its neighbours.

    Args:
        tokenizer, text_encoder: of the host.
        max_length: S.
    """

    def __init__(self, tokenizer: Any, text_encoder: Any, max_length: int) -> None:
        self.tokenizer, self.text_encoder, self.max_length = tokenizer, text_encoder, max_length
        self._embedded = lru_cache(maxsize=256)(self._embed)

    def lookup(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As :meth:`Texts.lookup`."""
        found = [self._embedded(text) for text in texts]
        return torch.cat([embedded for embedded, _ in found]), torch.cat([mask for _, mask in found])

    @torch.no_grad()
    def _embed(self, text: str) -> tuple[Tensor, Tensor]:
        embedded, mask = encode_text(self.tokenizer, self.text_encoder, [text], self.max_length)
        return embedded.float().cpu(), mask.cpu()


class TextTable:
    """Text -> embedding, each trimmed in memory of the zeros at its end, which come back when it is read.

    What is zero there is the text encoder's affair: all beyond a text's own tokens (Wan), or nothing (Stable
    Diffusion keeps the embeddings of the padding).

    All texts are embedded in one order and in batches of one size for each S, so that a text's embedding does not
    depend on when it is first needed: a resumed run sees the same bits.

    Args:
        embeddings: float32 [all rows, D].
        rows: how many rows each text has.
        lengths: tokens of each text.
        texts: the texts, sorted.
        max_length: S.
    """

    def __init__(
        self, embeddings: Tensor, rows: Tensor, lengths: Tensor, texts: Sequence[str], max_length: int
    ) -> None:
        self.max_length = max_length
        pieces = torch.split(embeddings, rows.tolist())
        self._texts = {text: (piece, int(length)) for text, piece, length in zip(texts, pieces, lengths, strict=True)}

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
            rows = stored.get("rows", stored["lengths"])
            return cls(stored["embeddings"], rows, stored["lengths"], ordered, max_length)
        size = max(1, min(_MOST_TEXTS, _MOST_TOKENS // max_length))
        pieces, counts, lengths = [], [], []
        with torch.no_grad():
            for first in range(0, len(ordered), size):
                batch = ordered[first : first + size]
                embedded, mask = encode_text(tokenizer, text_encoder, batch, max_length)
                kept = mask | embedded.any(dim=-1)
                pieces.append(embedded[kept].float().cpu())  # text by text: padding is on the right
                counts += kept.sum(dim=1).tolist()
                lengths += mask.sum(dim=1).tolist()
        stored = {"embeddings": torch.cat(pieces), "rows": torch.tensor(counts), "lengths": torch.tensor(lengths)}
        if path is not None:
            write_tensors(path, stored)
        return cls(stored["embeddings"], stored["rows"], stored["lengths"], ordered, max_length)

    def lookup(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What :func:`encode_text` gave for B texts: embeddings float32 [B, S, D] and mask bool [B, S]."""
        found = [self._texts[text] for text in texts]
        embedded = torch.zeros(len(found), self.max_length, found[0][0].shape[-1])
        mask = torch.zeros(len(found), self.max_length, dtype=torch.bool)
        for place, (rows, length) in enumerate(found):
            embedded[place, : len(rows)] = rows
            mask[place, :length] = True
        return embedded, mask


def texts_of(plans: Iterable[PromptPlan], stage: str) -> set[str]:
    """What one stage reads of the plans: stage 1 the motion prompts, stage 2 the prompts and local prompts."""
    if stage == "image_to_motion":
        return {plan.motion_prompt for plan in plans}
    return {text for plan in plans for text in (plan.prompt, *plan.local_prompts)}
