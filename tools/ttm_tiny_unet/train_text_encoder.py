"""Train the tokenizer and the text encoder of ttm-tiny-unet.

    python -m tools.ttm_tiny_unet.train_text_encoder --minutes 4

A ``CLIPTextModel`` of half a million parameters. It learns what the text encoder of ttm-tiny learns, from the same
sentences and from captions of pictures: to tag the words of a clause with its object's number, motion, change of
appearance, colour and shape. Its attention is causal, so a word carries a tag only once it has been said, and the end
token and the padding after it, which see everything and which Stable Diffusion keeps, learn to tell every object.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.ttm_tiny import train_text_encoder as sentences
from tools.ttm_tiny.timed_training import Progress, train
from tools.ttm_tiny.train_text_encoder import TaggedText, labels_of, random_objects, tagged_texts
from ttm.data.synthetic import SceneObject

TEXT_LENGTH = 40
WIDTH = 128
MOST_OBJECTS = 4
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")
TAGS = sentences.Tagger.TAGS
_LINKS_AT_THE_END = re.compile(r"[\s,.]*(?:\band|\bwhile)?[\s,.]*$")


def caption(phrases: list[str]) -> str:
    """What a picture shows: "a red ball, an orange star and a cat"."""
    named = [f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}" for phrase in phrases]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def tagged_caption(objects: list[SceneObject]) -> TaggedText:
    """The caption of some objects, each with its clause."""
    text, clauses, at = caption([item.phrase for item in objects]), [], 0
    for number, item in enumerate(objects):
        start = text.index(f" {item.phrase}", at)
        at = start + 1 + len(item.phrase)
        clauses.append((start, at, number))
    return TaggedText(text, tuple(clauses))


def train_tokenizer(folder: Path, vocabulary: int = 900, plans: int = 4000) -> CLIPTokenizer:
    """CLIP's byte-level BPE, trained on the sentences: lower case, no word unknown, padded with the end token."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(plans):
        objects = random_objects(rng)
        texts += [tagged.text for tagged in (*tagged_texts(rng, objects), tagged_caption(objects))]
    words = " ".join([*sentences.NOUNS, *sentences.ADJECTIVES, *sentences.DIRECTION_VERBS])
    trained = CLIPTokenizer().train_new_from_iterator([*texts, *[words] * 40], vocabulary, show_progress=False)
    merges = [tuple(pair) for pair in json.loads(trained.backend_tokenizer.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary_of = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *SPECIAL_TOKENS]))}
    tokenizer = CLIPTokenizer(vocab=vocabulary_of, merges=merges, model_max_length=TEXT_LENGTH)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    tokenizer.save_pretrained(folder)
    return tokenizer


class Tagger(nn.Module):
    """The encoder and the linear tagging heads that only training needs."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=3,
                num_attention_heads=4, max_position_embeddings=TEXT_LENGTH, projection_dim=WIDTH,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
        self.words = nn.ModuleDict({name: nn.Linear(WIDTH, count) for name, count in TAGS.items()})
        self.ends = nn.ModuleDict({name: nn.Linear(WIDTH, MOST_OBJECTS * count) for name, count in TAGS.items()})

    def forward(self, tokens: Tensor, labels: Tensor, ends: Tensor, summaries: Tensor) -> tuple[Tensor, Tensor]:
        """Tag the words, and at two places after them tell every object.

        Args:
            tokens: [B, S].
            labels: of the words, [B, S, tags], -100 = none.
            ends: two positions from the end token on, [B, 2].
            summaries: of the objects, [B, L, tags], -100 = none.

        Returns:
            The loss, and the share of right tags at words and at ends, [tags, 2].
        """
        hidden = self.encoder(input_ids=tokens).last_hidden_state
        at_ends = hidden.gather(1, ends.unsqueeze(-1).expand(-1, -1, WIDTH))
        loss, right = hidden.new_zeros(()), []
        for k, name in enumerate(TAGS):
            told = self.ends[name](at_ends).unflatten(-1, (MOST_OBJECTS, -1))
            of_objects = summaries[..., k].unsqueeze(1).expand(-1, told.shape[1], -1)
            for logits, label in ((self.words[name](hidden), labels[..., k]), (told, of_objects)):
                known = label != -100
                if not known.any():  # a very small batch
                    right.append(hidden.new_tensor(1.0))
                    continue
                loss = loss + nn.functional.cross_entropy(logits[known], label[known])
                right.append((logits.argmax(-1) == label)[known].float().mean())
        return loss, torch.stack(right).reshape(-1, 2)


def batch(rng: np.random.Generator, tokenizer: CLIPTokenizer, plans: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four texts a plan, as :meth:`Tagger.forward` takes them."""
    drawn = []
    for _ in range(plans):
        objects = random_objects(rng)
        drawn += [(tagged, objects) for tagged in (*tagged_texts(rng, objects), tagged_caption(objects))]
    encoded = tokenizer(
        [tagged.text for tagged, _ in drawn], padding="max_length", truncation=True, max_length=TEXT_LENGTH,
        return_tensors="pt", return_offsets_mapping=True,
    )  # fmt: skip
    tokens, offsets = encoded["input_ids"], encoded["offset_mapping"]
    first_end = (tokens == tokenizer.eos_token_id).int().argmax(1)
    later = first_end + (torch.from_numpy(rng.random(len(drawn))) * (TEXT_LENGTH - first_end)).long()
    labels = torch.full((*tokens.shape, len(TAGS)), -100)
    summaries = torch.full((len(drawn), MOST_OBJECTS, len(TAGS)), -100)
    for b, (tagged, objects) in enumerate(drawn):
        _label_text(labels[b], summaries[b], offsets[b], tagged, objects)
    return tokens, labels, torch.stack([first_end, later], 1), summaries


def _label_text(
    labels: Tensor, summary: Tensor, offsets: Tensor, tagged: TaggedText, objects: list[SceneObject]
) -> None:
    """Write the tags of one text: at the words from which each is known, and in its summary."""
    lowered, rows = tagged.text.lower(), labels_of(objects)
    begins, finishes = offsets[:, 0], offsets[:, 1]
    single = len(tagged.clauses) == 1
    cut_off = int(finishes.max())
    for slot, (start, end, number) in enumerate(tagged.clauses):
        row = torch.tensor(rows[number])
        said = lowered[start:end]
        phrase_end = start + said.index(objects[number].phrase) + len(objects[number].phrase)
        clause_end = start + len(_LINKS_AT_THE_END.sub("", said))
        if clause_end == phrase_end:  # a caption tells no motion
            row[1:3] = -100
        elif objects[number].motion == "stays" and " stays" not in said:
            row[1] = -100  # "turns green" alone leaves the motion to be inferred
        if single:
            row[0] = -100  # one clause alone does not say the how-manieth it is
        inside = (begins >= start) & (finishes <= end) & (finishes > begins)
        for tag, known_from in enumerate((start, clause_end, clause_end, phrase_end, phrase_end)):
            labels[inside & (finishes >= known_from), tag] = row[tag]
        if clause_end <= cut_off:
            summary[slot, 1:] = row[1:]
            summary[0, 0] = row[0]  # the last object that is told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny-unet/text_encoder"))
    parser.add_argument("--output", type=Path, default=Path("ttm/pretrained/ttm-tiny-unet"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    kept = arguments.output / "tokenizer"  # what the text encoder's weights belong to
    tokenizer = CLIPTokenizer.from_pretrained(kept) if kept.is_dir() else train_tokenizer(kept)
    tagger = Tagger(tokenizer)
    print(f"{sum(p.numel() for p in tagger.encoder.parameters()) / 1e6:.2f} M parameters", flush=True)
    rng = np.random.default_rng(arguments.seed)

    def loss_at(step: int, fraction: float) -> Tensor:
        loss: Tensor = tagger(*batch(rng, tokenizer, 14))[0]
        return loss

    @torch.no_grad()
    def on_checkpoint(progress: Progress) -> str:
        right = tagger(*batch(np.random.default_rng(10**6), tokenizer, 120))[1]
        return " ".join(f"{name} {at[0]:.3f} {at[1]:.3f}" for name, at in zip(TAGS, right.tolist(), strict=True))

    train(
        tagger, loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=2e-3, on_checkpoint=on_checkpoint, checkpoint_every_seconds=60,
    )  # fmt: skip
    tagger.encoder.to(torch.float16).save_pretrained(arguments.output / "text_encoder")


if __name__ == "__main__":
    main()
