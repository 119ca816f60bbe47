"""Train the tokenizer and the text encoder of ttm-tiny.

    python -m tools.ttm_tiny.train_text_encoder --minutes 4

A public model brings a text encoder that has read the web. This one, a ``UMT5EncoderModel`` of half a million
parameters, has to learn from sentences of the synthetic world what a motion model needs to know: which words belong
to the same clause, the how-manieth clause it is, and what is done in it. So it learns to tag every token with the
clause's number, motion, change of appearance, colour and shape. Nouns are often replaced by any noun (or by letters
that make no word), and verbs of motion by others, so that "the truck drives left" is read like "the ball moves left".
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from tools.ttm_tiny.timed_training import Progress, train
from ttm.data.sprites import COLOURS, CUT_OUTS, SHAPES
from ttm.data.synthetic import MOTIONS, SceneObject, describe
from ttm.objects import PromptPlan

NOUNS = """truck car bus train bike bicycle motorcycle boat ship plane airplane helicopter rocket balloon kite drone
dog puppy cat kitten horse cow sheep goat pig rabbit mouse bear lion tiger elephant giraffe zebra monkey fox wolf deer
bird duck goose swan chicken owl eagle parrot penguin fish shark whale dolphin turtle frog snake butterfly bee spider
man woman boy girl child baby person player dancer runner skater surfer rider driver juggler astronaut robot superhero
ball balls basketball football disc circle box cube square triangle star heart ring cross diamond leaf tree flower
apple orange banana cup mug bottle glass plate bowl spoon chair table lamp book phone clock toy doll teddy bear hat
shirt umbrella bag ladder door window wheel flag candle guitar piano drum sun moon cloud wave hand head""".split()
ADJECTIVES = """red orange yellow green blue purple pink white black gray grey brown cyan golden silver big small large
little tiny old young tall short dark bright wooden striped spotted happy""".split()
DIRECTION_VERBS = """moves goes slides drifts runs walks drives flies rolls swims jumps floats glides crawls rides sails
skates races dashes steps travels hops shifts""".split()
TEXT_LENGTH = 48


@dataclass(frozen=True)
class TaggedText:
    """A text and the objects' clauses in it: (first character, first after it, object number from 0)."""

    text: str
    clauses: tuple[tuple[int, int, int], ...]


def random_objects(rng: np.random.Generator) -> list[SceneObject]:
    """1 to 4 objects with names from the synthetic world or from anywhere."""
    objects: list[SceneObject] = []
    nothing = np.zeros((1, 2), np.float32)
    colours = list(rng.permutation(list(COLOURS)))
    for _ in range(int(rng.integers(1, 5))):
        colour, shape = str(colours.pop()), str(rng.choice([*SHAPES, *CUT_OUTS]))
        phrase = shape if shape in CUT_OUTS else f"{colour} {shape}"
        named = shape not in CUT_OUTS
        if rng.random() < 0.35:
            noun = str(rng.choice(NOUNS))
            if rng.random() < 0.15:
                # no "s": once in some hours the letters made a verb, which is looked for and replaced
                noun = "".join(rng.choice(list("abcdefghijklmnopqrtuvw"), int(rng.integers(3, 9))))
            phrase = noun if rng.random() < 0.5 else f"{rng.choice(ADJECTIVES)} {noun}"
            shape, named = "", False
        appearance = None
        if rng.random() < 0.4:
            kind = str(rng.choice(["turns", "turns", "spins", "flashes"]))
            appearance = f"turns {rng.choice(list(COLOURS))}" if kind == "turns" else kind
        motion = str(rng.choice(MOTIONS))
        objects.append(
            SceneObject(phrase, colour if named else None, shape, motion, appearance, nothing, nothing, nothing, 0.0)
        )
    return objects


def tagged_texts(rng: np.random.Generator, objects: list[SceneObject]) -> list[TaggedText]:
    """The global prompt, the motion prompt and one local prompt of a plan, each with its clauses."""
    plan = describe(rng, objects)
    if rng.random() < 0.35:
        swapped = str(rng.choice(DIRECTION_VERBS))
        pattern = re.compile(r"\b(moves|goes|slides|drifts|runs)\b")
        local = [replace(item, local_prompt=pattern.sub(swapped, item.local_prompt)) for item in plan.objects]
        plan = PromptPlan(pattern.sub(swapped, plan.prompt), pattern.sub(swapped, plan.motion_prompt), tuple(local))
    chosen = int(rng.integers(len(objects)))
    single = plan.local_prompts[chosen]
    return [
        _tag(plan.prompt, [item.phrase for item in objects]),
        _tag(plan.motion_prompt, [item.phrase for item in objects]),
        TaggedText(single, ((0, len(single), chosen),)),
    ]


def _tag(text: str, phrases: list[str]) -> TaggedText:
    lowered, starts, at = text.lower(), [], 0
    for phrase in phrases:
        at = lowered.index(f"the {phrase}", at)
        starts.append(at)
        at += 1
    ends = [*starts[1:], len(text)]
    return TaggedText(text, tuple((start, end, k) for k, (start, end) in enumerate(zip(starts, ends, strict=True))))


def train_tokenizer(folder: Path, vocabulary: int = 1200) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, so that no word is unknown; lower case; ends every text with </s>."""
    rng = np.random.default_rng(0)
    texts = [tagged.text for _ in range(4000) for tagged in tagged_texts(rng, random_objects(rng))]
    words = [f"the {word}" for word in [*NOUNS, *ADJECTIVES, *DIRECTION_VERBS]] * 40
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *words], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TEXT_LENGTH
    )
    fast.save_pretrained(folder)
    return fast


class Tagger(nn.Module):
    """The encoder and the linear tagging heads that only training needs."""

    TAGS = {"clause": 4, "motion": len(MOTIONS), "change": 3 + len(COLOURS), "colour": len(COLOURS) + 1,
            "shape": len(SHAPES) + len(CUT_OUTS) + 1}  # fmt: skip

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.encoder = UMT5EncoderModel(
            UMT5Config(
                vocab_size=vocabulary,
                d_model=128,
                d_kv=32,
                d_ff=256,
                num_layers=3,
                num_heads=4,
                dropout_rate=0.0,
                relative_attention_num_buckets=32,
                relative_attention_max_distance=64,
                pad_token_id=0,
                eos_token_id=1,
                is_encoder_decoder=False,
                use_cache=False,
                tie_word_embeddings=False,
            )  # fmt: skip
        )
        self.heads = nn.ModuleDict({name: nn.Linear(128, count) for name, count in self.TAGS.items()})

    def forward(self, tokens: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """tokens, mask [B, S]; labels [B, S, tags], -100 = none -> loss, share of right tags [tags]."""
        hidden = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        losses, right = [], []
        for k, name in enumerate(self.TAGS):
            logits, label = self.heads[name](hidden), labels[..., k]
            losses.append(nn.functional.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-100))
            right.append((logits.argmax(-1) == label)[label != -100].float().mean())
        # the host adds these to features of unit size: keep theirs near it
        scale = (hidden[mask.bool()].square().mean() - 1).square()
        return torch.stack(losses).sum() + 0.1 * scale, torch.stack(right)


def labels_of(objects: list[SceneObject]) -> list[list[int]]:
    """The tags of each object's clause, in the order of ``Tagger.TAGS``."""
    changes = ["", "spins", "flashes", *(f"turns {name}" for name in COLOURS)]
    colours, shapes = [None, *COLOURS], ["", *SHAPES, *CUT_OUTS]
    rows = []
    for number, item in enumerate(objects):
        rows.append([number, MOTIONS.index(item.motion), changes.index(item.appearance or ""),
                     colours.index(item.colour), shapes.index(item.shape)])  # fmt: skip
    return rows


def batch(rng: np.random.Generator, tokenizer: PreTrainedTokenizerFast, plans: int) -> tuple[Tensor, Tensor, Tensor]:
    """Three texts a plan: tokens, mask [B, S] and labels [B, S, tags]."""
    texts, rows = [], []
    for _ in range(plans):
        objects = random_objects(rng)
        for tagged in tagged_texts(rng, objects):
            texts.append(tagged)
            rows.append(labels_of(objects))
    encoded = tokenizer(
        [tagged.text for tagged in texts], padding=True, truncation=True, max_length=TEXT_LENGTH,
        return_tensors="pt", return_offsets_mapping=True,
    )  # fmt: skip
    labels = torch.full((*encoded["input_ids"].shape, len(Tagger.TAGS)), -100)
    offsets = encoded["offset_mapping"]
    for b, tagged in enumerate(texts):
        for start, end, number in tagged.clauses:
            inside = (offsets[b, :, 0] >= start) & (offsets[b, :, 1] <= end) & (offsets[b, :, 1] > offsets[b, :, 0])
            labels[b, inside] = torch.tensor(rows[b][number])
        if len(tagged.clauses) == 1:
            labels[b, :, 0] = -100  # a local prompt does not say the how-manieth it is
        for start, end, number in tagged.clauses:
            if rows[b][number][1] == MOTIONS.index("stays") and " stays" not in tagged.text[start:end]:
                # "turns green" alone leaves the motion to be inferred
                labels[b, (offsets[b, :, 0] >= start) & (offsets[b, :, 1] <= end), 1] = -100
    return encoded["input_ids"], encoded["attention_mask"], labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny/text_encoder"))
    parser.add_argument("--output", type=Path, default=Path("ttm/pretrained/ttm-tiny"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    tokenizer = train_tokenizer(arguments.output / "tokenizer")
    tagger = Tagger(len(tokenizer))
    print(f"{sum(p.numel() for p in tagger.encoder.parameters()) / 1e6:.2f} M parameters", flush=True)
    rng = np.random.default_rng([arguments.seed, torch.seed() % 2**32])

    def loss_at(step: int, fraction: float) -> Tensor:
        loss: Tensor = tagger(*batch(rng, tokenizer, 20))[0]
        return loss

    @torch.no_grad()
    def on_checkpoint(progress: Progress) -> str:
        right = tagger(*batch(np.random.default_rng(10**6), tokenizer, 200))[1]
        return " ".join(f"{name} {value:.3f}" for name, value in zip(Tagger.TAGS, right.tolist(), strict=True))

    train(
        tagger, loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=2e-3, on_checkpoint=on_checkpoint, checkpoint_every_seconds=60,
    )  # fmt: skip
    tagger.encoder.to(torch.float16).save_pretrained(arguments.output / "text_encoder")


if __name__ == "__main__":
    main()
