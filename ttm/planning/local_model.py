"""A language model on this machine (transformers), which can only write what a JSON schema allows (llguidance).

Letters: S tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor

from ttm.planning.chat_server import Message, NoAnswerError


class SchemaConstraint(LogitsProcessor):
    """Leaves, at each step of one answer, only the tokens by which it can still come to keep to a grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._begun = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Args: input_ids [1, S] and scores [1, V]; returns the scores, -inf where a token is not allowed."""
        if self._begun:
            taken = self._matcher.consume_token(int(input_ids[0, -1]))
            assert taken, self._matcher.get_error()
        self._begun = True
        allowed = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) != 0
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -torch.inf)


class LocalModel:
    """A causal language model of transformers.

    Args:
        model: a folder or a Hub id, with a tokenizer of its own; weights in safetensors.
        timeout: seconds that an answer may take.
        device: None = cuda where there is one, else the CPU.
        dtype: a name such as "bfloat16"; "auto" as the weights are stored.

    Raises:
        ValueError: no such model, a kind of tokenizer that can't be constrained, or no end-of-text token.
    """

    def __init__(self, model: str, timeout: float, device: str | None = None, dtype: str = "auto") -> None:
        self.timeout = timeout
        if not Path(model).is_dir() and (model.count("/") != 1 or model.startswith((".", "/"))):
            raise ValueError(f"There is no language model {model!r}; expected a folder, or a Hub id 'owner/name'.")
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
            loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=kind, use_safetensors=True)
        except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{model} can't be opened as a causal language model: {reason}") from error
        self.model = loaded.to(place).eval()
        self._ends = _end_tokens(self.model, self.tokenizer)
        width = self.model.get_output_embeddings().weight.shape[0]
        self._vocabulary = from_tokenizer(self.tokenizer, n_vocab=width, eos_token=self._ends)

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any], longest: int) -> str:
        """Continue a conversation by the likeliest text (greedily) that keeps to a JSON schema.

        Args:
            messages: what was said.
            schema: of the answer; written without white space.
            longest: tokens that suffice for any answer.

        Raises:
            NoAnswerError: not finished in time.
        """
        options = {"whitespace_flexible": False}
        grammar = LLMatcher.grammar_from_json_schema(dict(schema), defaults=options)  # type: ignore[arg-type]
        constraint = SchemaConstraint(LLMatcher(self._vocabulary, grammar))
        tokens = self._tokens(messages).to(self.model.device)
        written = self.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            num_beams=1,
            max_new_tokens=longest + 1,
            max_time=self.timeout,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
            logits_processor=[constraint],
        )[0, tokens.shape[1] :]
        if int(written[-1]) not in self._ends:
            raise NoAnswerError(f"The language model did not finish within {self.timeout:g} s.")
        return str(self.tokenizer.decode(written[:-1], skip_special_tokens=True))

    def _tokens(self, messages: Sequence[Message]) -> Tensor:
        """[1, S]: in the model's own form of a conversation; a base model, which has none, goes on with the text."""
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
            return self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        text = "\n".join(message["content"] for message in messages)
        return self.tokenizer(text + "\n", return_tensors="pt").input_ids


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """All tokens that end an answer: those of the model's generation settings, else the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None:
        raise ValueError("The language model has no end-of-text token; expected one in its generation settings.")
    return list(ends) if isinstance(ends, list | tuple) else [int(ends)]
