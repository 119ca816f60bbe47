"""RulePlanner: what a reader would say that each sentence asks for."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ttm.data.synthetic import SyntheticWorld
from ttm.objects import MAX_OBJECTS
from ttm.planning.verb_forms import conjugate, readings, third_person
from ttm.prompt_planner import EXAMPLE, PromptPlanner, RulePlanner

# sentence -> "phrase: what it does" of every object; "the <phrase> <what it does>" is its local prompt.
SENTENCES = {
    # the sentences of the synthetic world
    "The red ball moves left and turns green, and the blue square stays.": [
        "red ball: moves left and turns green", "blue square: stays",
    ],
    "The yellow star circles while the cat grows.": ["yellow star: circles", "cat: grows"],
    "The orange cross stays, the cup circles and turns yellow and the pink ring moves down.": [
        "orange cross: stays", "cup: circles and turns yellow", "pink ring: moves down",
    ],
    "The ball slides to the right, the rocket drifts up while the astronaut spins and flashes.": [
        "ball: slides right", "rocket: drifts up", "astronaut: spins and flashes",
    ],
    # several subjects of one verb
    "the cat and the dog run left": ["cat: runs left", "dog: runs left"],
    "The cat and dog run.": ["cat: runs", "dog: runs"],
    "the cat and the dog runs left": ["cat: runs left", "dog: runs left"],
    "A cat and two dogs run left.": ["cat: runs left", "two dogs: run left"],
    "the square moves up, and the star, the ring and the heart stay": [
        "square: moves up", "star: stays", "ring: stays", "heart: stays",
    ],
    "The dog and the cat both run.": ["dog: runs", "cat: runs"],
    "Both the cat and the dog jump.": ["cat: jumps", "dog: jumps"],
    "The yellow heart, the red cross and the cup move to the right.": [
        "yellow heart: moves right", "red cross: moves right", "cup: moves right",
    ],
    # several verbs of one subject
    "The ball bounces, then spins, then stops.": ["ball: bounces and then spins and then stops"],
    "The car turned left and then drove away.": ["car: turns left and then drives away"],
    "The ball moves left while turning green.": ["ball: moves left and turns green"],
    "The robot starts walking, then begins to dance.": ["robot: walks and then dances"],
    "A dog running through the grass chases a ball.": ["dog: runs through the grass and chases a ball"],
    "The dog, running fast, jumps.": ["dog: runs fast and jumps"],
    # pronouns
    "The cat jumps and then it runs right.": ["cat: jumps and then runs right"],
    "The dog runs left. The cat stays. It jumps.": ["dog: runs left", "cat: stays and jumps"],
    "The cat and the dog jump, then they run right.": [
        "cat: jumps and then runs right", "dog: jumps and then runs right",
    ],
    "The man and the woman walk. She waves and he smiles.": ["man: walks and smiles", "woman: walks and waves"],
    "There is a red ball. It moves left.": ["red ball: moves left"],
    "The ball moves left. It then moves right. Then it stops.": [
        "ball: moves left and then moves right and then stops",
    ],
    "She waves.": ["woman: waves"],
    # one object named twice, and further ones of the same name
    "A red ball moves left. The ball turns green.": ["red ball: moves left and turns green"],
    "The cat jumps. The cat jumps.": ["cat: jumps"],
    "One dog runs left and the other stays.": ["dog: runs left", "other dog: stays"],
    "The red ball moves left and the blue one stays.": ["red ball: moves left", "blue ball: stays"],
    "A dog barks and another dog sleeps.": ["dog: barks", "other dog: sleeps"],
    # names of objects
    "The man in the red shirt waves.": ["man in the red shirt: waves"],
    "the girl with the hat smiles": ["girl with the hat: smiles"],
    "The man who wears a hat waves and the woman claps.": ["man who wears a hat: waves", "woman: claps"],
    "the ball that is red moves left": ["red ball: moves left"],
    "The red ball, which is shiny, moves left.": ["red ball: moves left"],
    "The black and white cat runs to the right and jumps.": ["black and white cat: runs right and jumps"],
    "Two dogs run left and a cat sleeps.": ["two dogs: run left", "cat: sleeps"],
    "My dog jumps over the fence; the cat watches it.": ["dog: jumps over the fence", "cat: watches it"],
    "The cat's tail wags.": ["cat's tail: wags"],
    "A group of people walk to the left.": ["group of people: walks left"],
    "The car wheels spin.": ["car wheels: spin"],
    "The red circles move left.": ["red circles: move left"],
    "the parked car drives away": ["parked car: drives away"],
    # forms and moods of the verb
    "a red ball moving to the left": ["red ball: moves left"],
    "a dog runs through the grass": ["dog: runs through the grass"],
    "the car drives away": ["car: drives away"],
    "The car drives left": ["car: drives left"],
    "The truck should drive to the right side of the frame.": ["truck: drives right"],
    "The dog doesn't move, but the cat is jumping up and down.": ["dog: stays", "cat: jumps up and down"],
    "No ball moves.": ["ball: stays"],
    "Nobody runs, the cat jumps.": ["cat: jumps"],
    "Neither the cat nor the red ball moves, but a dog jumps.": ["cat: stays", "red ball: stays", "dog: jumps"],
    "The ball no longer moves and the cat runs left.": ["ball: stays", "cat: runs left"],
    "The ball is kicked by the boy.": ["ball: is kicked by the boy"],
    "The ball is red and moves left.": ["ball: moves left"],
    "The dog zorps left and the cat sits.": ["dog: zorps left", "cat: sits"],
    "Waves crash and clouds drift slowly to the right.": ["waves: crash", "clouds: drift slowly right"],
    "Snow falls.": ["snow: falls"],
    "The horse gallops from left to right.": ["horse: gallops right"],
    "the rocket launches upwards": ["rocket: launches up"],
    # requests
    "make the red ball move left": ["red ball: moves left"],
    "move the truck to the right": ["truck: moves right"],
    "Make the red ball move left and the blue square grow.": ["red ball: moves left", "blue square: grows"],
    "Make the red ball move left and turn green.": ["red ball: moves left and turns green"],
    "Move the red ball left and turn the blue square green.": ["red ball: moves left", "blue square: turns green"],
    "Turn the ball green and make it bigger.": ["ball: turns green and grows"],
    "Keep the cat still and move it left.": ["cat: stays still and moves left"],
    "Push the red box to the left.": ["red box: moves left"],
    "I want the cat to jump.": ["cat: jumps"],
    "Let the cat and the dog stay while the bird flies up.": ["cat: stays", "dog: stays", "bird: flies up"],
    # a verb that is not said again, or not at all
    "The red ball moves left and the blue square right.": ["red ball: moves left", "blue square: moves right"],
    "The ball turns green and the square blue.": ["ball: turns green", "square: turns blue"],
    "red ball left, blue square right": ["red ball: moves left", "blue square: moves right"],
    "The dog runs left and the cat does too.": ["dog: runs left", "cat: runs left"],
    # openings, the camera, letters and marks
    "On the left side of the image, a dog runs through the grass.": ["dog: runs through the grass"],
    "In the foreground a cat is sleeping, and a train passes.": ["cat: sleeps", "train: passes"],
    "A video of a dog running to the left.": ["dog: runs left"],
    "The camera zooms in while the dog barks.": ["dog: barks"],
    "THE CAR DRIVES LEFT!!": ["car: drives left"],
    "  the   cat\njumps ...": ["cat: jumps"],
    "The dog (a small one) doesn\u2019t move \u2014 the cat jumps.": ["dog: stays", "cat: jumps"],
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences(sentence: str) -> None:
    plan = RulePlanner().plan(sentence)
    expected = [tuple(item.split(": ", 1)) for item in SENTENCES[sentence]]
    assert [(item.phrase, item.local_prompt) for item in plan.objects] == [
        (phrase, f"the {phrase} {action}") for phrase, action in expected
    ]
    assert plan.motion_prompt == ", ".join(plan.local_prompts)
    assert plan.prompt == sentence


@pytest.mark.parametrize(
    ("sentence", "local_prompts", "motion_prompt"),
    [
        ("The cup on the table spins.", ["the cup on the table spins"], "the cup spins"),
        ("A man and a woman dance in the park.",
         ["the man dances in the park", "the woman dances in the park"], "the man dances, the woman dances"),
        ("The dog on the left runs and the dog on the right jumps.",
         ["the dog on the left runs", "the dog on the right jumps"], "the dog runs, the dog jumps"),
        ("The moon rises slowly above the mountains", ["the moon rises slowly above the mountains"],
         "the moon rises slowly"),
        ("A bird flies over the house next to the tree and lands on the roof.",
         ["the bird flies over the house next to the tree and lands on the roof"],
         "the bird flies over the house and lands on the roof"),
        ("The fish swims in circles in the tank", ["the fish swims in circles in the tank"],
         "the fish swims in circles"),
        ("The ball rolls to the left of the tree.", ["the ball rolls to the left of the tree"], "the ball rolls left"),
        ("The light turns on and flashes.", ["the light turns on and flashes"], "the light turns on and flashes"),
    ],
)  # fmt: skip
def test_the_motion_prompt_has_no_places(sentence: str, local_prompts: list[str], motion_prompt: str) -> None:
    plan = RulePlanner().plan(sentence)
    assert plan.local_prompts == local_prompts
    assert plan.motion_prompt == motion_prompt


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_synthetic_world_speaks_the_same_language(split: str) -> None:
    world = SyntheticWorld(split, size=32, num_frames=2, num_objects=(1, 4))  # type: ignore[arg-type]
    planner = RulePlanner()
    for index in range(40):
        plan = world[index].plan
        assert planner.plan(plan.prompt) == plan


@pytest.mark.parametrize(
    "sentence",
    ["green", "a red ball", "the red ball and the blue square", "123 !!!", "Zoom in.", "Turn left.", "The car is red."],
)
def test_a_sentence_without_an_acting_object_is_refused(sentence: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(repr(sentence))}.*{re.escape(EXAMPLE)}"):
        RulePlanner().plan(sentence)


def test_a_pronoun_for_nothing_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="'it' stands for nothing"):
        RulePlanner().plan("Move it left.")


@pytest.mark.parametrize("prompt", ["", "  \n", None, 3, ["a ball moves"]])
def test_what_is_no_sentence_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="expected a sentence such as"):
        RulePlanner().plan(prompt)


def test_the_limit_on_objects_and_words() -> None:
    nouns = [f"thing{letter}" for letter in "abcdefghijklm"]
    twelve = ", ".join(f"the {noun} jumps" for noun in nouns[:MAX_OBJECTS])
    assert RulePlanner().plan(twelve).phrases == nouns[:MAX_OBJECTS]
    with pytest.raises(ValueError, match="names 13 objects .*thingm.*at most 12"):
        RulePlanner().plan(f"{twelve} and the thingm jumps")
    with pytest.raises(ValueError, match="401 words"):
        RulePlanner().plan("very " * 401)


def test_any_text_gives_a_plan_or_a_value_error() -> None:
    words = """the a red ball cat dogs and , while then it they moves move left right to of in on with is are not
    that turning green make please there one other both his from does running ; . who has grow , two her still
    circles""".split()
    rng = np.random.default_rng(0)
    planned = 0
    for _ in range(1500):
        text = " ".join(rng.choice(words, rng.integers(1, 14)))
        try:
            plan = RulePlanner().plan(text)
        except ValueError:
            continue
        planned += 1
        for item in plan.objects:
            assert item.local_prompt.startswith(f"the {item.phrase} ")
            assert len(item.local_prompt.split()) > 1 + len(item.phrase.split())
    assert planned > 200


def test_the_protocol_is_open() -> None:
    class Fixed:
        def plan(self, prompt: str) -> object:
            return RulePlanner().plan(EXAMPLE)

    assert isinstance(RulePlanner(), PromptPlanner)
    assert isinstance(Fixed(), PromptPlanner)
    assert not isinstance(object(), PromptPlanner)


@pytest.mark.parametrize(
    ("base", "third", "other"),
    [("go", "goes", "went"), ("fly", "flies", "flying"), ("stay", "stays", "stayed"), ("run", "runs", "running"),
     ("crash", "crashes", "crashed"), ("slide", "slides", "slid"), ("stop", "stops", "stopped"),
     ("lie", "lies", "lying"),
     ("bounce", "bounces", "bouncing"), ("flee", "flees", "fleeing"), ("relax", "relaxes", "")],
)  # fmt: skip
def test_forms_of_verbs(base: str, third: str, other: str) -> None:
    assert third_person(base) == conjugate(base, plural=False) == third
    assert conjugate(base, plural=True) == base
    if other:
        assert base in readings(other).values()
        assert readings(third)["third"] == base
