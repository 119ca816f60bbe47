"""A local language model with random weights: the schema alone sees to it that it answers with a plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

pytest.importorskip("llguidance", reason="needs the extra llm")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ttm.planning.chat_server import NoAnswerError
from ttm.planning.language_model_planner import NoPlanError
from ttm.planning.local_model import LocalModel
from ttm.planning.plan_answer import answer_schema, longest_answer, read_answer
from ttm.prompt_planner import LanguageModelPlanner

PAIRS = ["th", "he", '":', '{"', "le", "ft", "ma", " m", "ov", "es"]


def random_model(folder: Path, seed: int = 0, chat_template: str | None = None) -> str:
    """A language model in the public layout: bytes and a few pairs of them as tokens, one layer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(pair.replace(" ", "\u0120") for pair in PAIRS), "<end>"]
    merges = [(pair[0].replace(" ", "\u0120"), pair[1]) for pair in PAIRS]
    bpe = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", chat_template=chat_template)
    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=272, n_embd=16, n_layer=1, n_head=2, n_positions=6144, eos_token_id=end, bos_token_id=end
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():  # it likes quotes and brackets, so that texts and lists come to their ends
        model.transformer.wte.weight.normal_()
        model.transformer.wte.weight[[tokenizer.convert_tokens_to_ids(piece) for piece in '"]']] = 3.0
        model.transformer.ln_f.bias.fill_(1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_weights_give_a_plan(tmp_path: Path, seed: int) -> None:
    planner = LanguageModelPlanner(random_model(tmp_path, seed), cache=False, device="cpu", timeout=600)
    plan = planner.plan("The red ball moves left.")
    assert plan.prompt == "The red ball moves left." and 1 <= len(plan.objects) <= 12
    assert planner.answered_by == "language model"


def test_a_plan_of_other_weights_in_the_same_folder_is_not_taken(tmp_path: Path) -> None:
    for seed, by in ((0, "language model"), (0, "cache"), (1, "language model")):
        if by != "cache":
            random_model(tmp_path / "model", seed)
        planner = LanguageModelPlanner(str(tmp_path / "model"), cache=tmp_path / "plans", device="cpu", timeout=600)
        planner.plan("The red ball moves left.")
        assert planner.answered_by == by


def test_an_answer_keeps_to_the_schema_without_white_space(tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}[{{ message['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    model = LocalModel(random_model(tmp_path, chat_template=template), timeout=600, device="cpu")
    text = model.ask([{"role": "user", "content": "x"}], answer_schema(), longest_answer())
    assert text.startswith('{"objects":[{"phrase":"') and text.endswith("]}")
    assert 1 <= len(read_answer(text).objects) <= 12


def test_the_models_own_form_of_a_conversation_is_used(tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}[{{ message['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    model = LocalModel(random_model(tmp_path, chat_template=template), timeout=600, device="cpu")
    tokens = model._tokens([{"role": "user", "content": "the"}])
    assert model.tokenizer.decode(tokens[0]) == "[the]>"


def test_an_answer_that_takes_too_long_is_no_answer(tmp_path: Path) -> None:
    folder = random_model(tmp_path)
    with pytest.raises(NoAnswerError, match=r"did not finish within 1e-06 s"):
        LocalModel(folder, timeout=1e-6, device="cpu").ask([{"role": "user", "content": "x"}], answer_schema(), 9000)
    with pytest.raises(NoPlanError, match="did not finish"):
        LanguageModelPlanner(folder, cache=False, device="cpu", timeout=1e-6).plan("The ball moves.")


def test_models_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no language model 'nowhere'"):
        LanguageModelPlanner("nowhere", cache=False).plan("The ball moves.")
    with pytest.raises(ValueError, match="no language model '/nowhere'; expected a folder"):
        LanguageModelPlanner("/nowhere", cache=False).plan("The ball moves.")
    with pytest.raises(ValueError, match="can't be opened as a causal language model"):
        LanguageModelPlanner(str(tmp_path), cache=False).plan("The ball moves.")
    folder = Path(random_model(tmp_path))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="can't be opened as a causal language model"):
        LanguageModelPlanner(str(folder), cache=False).plan("The ball moves.")
