"""A synthetic world of moving objects on photographs, with exact ids, optical flow and prompts.

Letters: T frames, H W pixels, L objects.

Two kinds of action. A mask shows motions: moves left, right, up or down, circles, bounces, grows, shrinks, stays.
A mask cannot show changes of appearance: turns <colour>, spins its texture, flashes. The second kind is what local
prompts are for.

Scene ``i`` of a split is the same on every machine: it is drawn from the seed (world seed, split, i) alone. The test
split uses photographs, and pairs of colour and shape, that training never sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ttm.data.motion_patterns import PATTERNS
from ttm.data.sprites import (
    COLOURS,
    CUT_OUTS,
    PIECES,
    SHAPES,
    TEST_PHOTOGRAPHS,
    TRAINING_PHOTOGRAPHS,
    Sprite,
    coloured_sprite,
    cut_out_sprite,
    piece_sprite,
    random_crop,
)
from ttm.objects import ObjectPrompt, PromptPlan

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOTIONS = (*DIRECTIONS, "circles", "bounces", "grows", "shrinks", "stays")
_MOTION_ODDS = dict(zip(MOTIONS, (0.15, 0.15, 0.14, 0.14, 0.07, 0.07, 0.07, 0.07, 0.14), strict=True))
LARGE = 0.2
"""Share of training scenes whose hindmost object is up to twice as large, as objects of photographs may be. Only the
hindmost: it hides no other."""
_VERBS = ("moves", "moves", "moves", "goes", "slides", "drifts", "runs")


def is_held_out(colour: str, shape: str) -> bool:
    """Whether a pair of colour and shape belongs to the test split alone (about one pair in five)."""
    return (list(COLOURS).index(colour) * 2 + SHAPES.index(shape)) % 5 == 0


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        phrase: what it is called, "red ball" or "cat".
        colour: a key of ``COLOURS``; None for a photographic cut-out.
        shape: one of ``SHAPES`` or ``PIECES``, or a key of ``CUT_OUTS``.
        motion: one of ``MOTIONS`` or ``PATTERNS``.
        appearance: None, "turns <colour>", "spins" or "flashes".
        path: float32 [T, 2], its centre (x, y) in pixels.
        scale: float32 [T], its size relative to frame 0.
        turn: float32 [T], how far its texture has spun, in radians.
        radius: of the circle around it at frame 0, in pixels.
    """

    phrase: str
    colour: str | None
    shape: str
    motion: str
    appearance: str | None
    path: NDArray[np.float32]
    scale: NDArray[np.float32]
    turn: NDArray[np.float32]
    radius: float

    @property
    def displacement(self) -> NDArray[np.float32]:
        """Centre of the last frame minus centre of the first, (x, y) in pixels, float32 [2]."""
        return self.path[-1] - self.path[0]


@dataclass(frozen=True)
class SyntheticScene:
    """One clip.

    Attributes:
        frames: uint8 [T, H, W, 3].
        ids: uint8 [T, H, W]; object ``l`` of the plan has id ``l + 1``; what is in front hides what is behind.
        plan: its prompts, in the format of :class:`ttm.prompt_planner.RulePlanner`.
        objects: L objects, in the order of the plan.
        background: uint8 [H, W, 3], the photograph without objects.
        layers: uint8 [L, T, H, W, 4], each object alone, colour and opacity, as if nothing hid it.
    """

    frames: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    plan: PromptPlan
    objects: tuple[SceneObject, ...]
    background: NDArray[np.uint8]
    layers: NDArray[np.uint8]

    @cached_property
    def _pixels(self) -> NDArray[np.float32]:
        height, width = self.ids.shape[1:]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        return np.stack([x, y], axis=-1)

    def flow(self) -> NDArray[np.float32]:
        """Exact optical flow from each frame to the next, float32 [T-1, H, W, 2], (x, y) in pixels."""
        count, height, width = self.ids.shape
        flow = np.zeros((count - 1, height, width, 2), np.float32)
        for number, item in enumerate(self.objects, start=1):
            for t in range(count - 1):
                offset = self._pixels - item.path[t]
                angle = item.turn[t + 1] - item.turn[t]
                cosine, sine = np.cos(angle), np.sin(angle)
                turned = offset @ np.array([[cosine, sine], [-sine, cosine]], np.float32)
                target = item.path[t + 1] + item.scale[t + 1] / item.scale[t] * turned
                here = self.ids[t] == number
                flow[t][here] = (target - self._pixels)[here]
        return flow


class SyntheticWorld:
    """An endless, indexable world: ``world[i]`` is a :class:`SyntheticScene`.

    Args:
        split: "train", "val" (the photographs and pairs of training, other scenes) or "test" (held-out ones).
        size: side of the frames in pixels.
        num_frames: T.
        num_objects: fewest and most objects a scene, 1 to 4.
        appearance: the chance that an object also changes its appearance; "one" = exactly one object of each scene
            does, by a change that the test of the local prompts can see, and the others only move.
        motions: the motions to draw from; None = all of ``MOTIONS`` with their usual odds. Those of
            :data:`ttm.data.motion_patterns.PATTERNS` are shown only when named here.
        seed: another seed, another world.
        alike: all objects of a scene have one colour and shape, and so one name: who is who only places say.
        pieces: the chance that an object is a piece of a photograph, of any outline and up to most of the frame wide.

    Raises:
        ValueError: an unknown split or motion, or a number out of range.
    """

    def __init__(
        self,
        split: Split = "train",
        size: int = 128,
        num_frames: int = 17,
        num_objects: tuple[int, int] = (1, 3),
        appearance: float | Literal["one"] = 0.4,
        motions: Sequence[str] | None = None,
        seed: int = 0,
        alike: bool = False,
        pieces: float = 0.0,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; expected one of {SPLITS}.")
        if not 1 <= num_objects[0] <= num_objects[1] <= 4:
            raise ValueError(f"num_objects is {num_objects}; expected (fewest, most) within 1 to 4.")
        if unknown := set(motions or ()) - {*MOTIONS, *PATTERNS}:
            raise ValueError(f"motions holds {sorted(unknown)}; expected some of {(*MOTIONS, *PATTERNS)}.")
        if size < 32 or num_frames < 2:
            raise ValueError(f"size is {size} and num_frames {num_frames}; expected at least 32 and 2.")
        if not 0 <= pieces <= 1:
            raise ValueError(f"pieces is {pieces}; expected a chance in 0..1.")
        self.split: Split = split
        self.size, self.num_frames, self.num_objects = size, num_frames, num_objects
        self.appearance, self.seed, self.alike, self.pieces = appearance, seed, alike, pieces
        self.motions = tuple(motions) if motions else MOTIONS

    def __getitem__(self, index: int) -> SyntheticScene:
        if index < 0:
            raise IndexError(f"scene {index} does not exist; scenes are counted from 0.")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        photos = TEST_PHOTOGRAPHS if self.split == "test" else TRAINING_PHOTOGRAPHS
        background = random_crop(rng, str(rng.choice(photos)), self.size).astype(np.float32)
        background = np.clip((background - 128) * rng.uniform(0.8, 1.1) + 128 + rng.uniform(-25, 25), 0, 255)
        count = int(rng.integers(self.num_objects[0], self.num_objects[1] + 1))
        names = self._names(rng, count)
        special = int(rng.integers(count)) if self.appearance == "one" else None
        drawn = []
        for number, (colour, shape) in enumerate(names):
            changes = number == special if special is not None else rng.random() < float(self.appearance)
            drawn.append(self._object(rng, colour, shape, changes, photos, hindmost=number == 0))
        objects = self._placed(rng, [item for item, _ in drawn])
        layers = np.stack([_layer(item, sprite, self.size) for item, (_, sprite) in zip(objects, drawn, strict=True)])
        frames, ids = _composite(background.astype(np.uint8), layers)
        plan = describe(rng, objects)
        return SyntheticScene(frames, ids, plan, objects, background.astype(np.uint8), layers)

    def _names(self, rng: np.random.Generator, count: int) -> list[tuple[str | None, str]]:
        """Distinct (colour, shape) pairs of this split, one in eight a cut-out; colours repeat only now and then.

        Without pieces, no chance is drawn for them: such a world is what it was before there were any.
        """
        if self.alike:
            return [self._pair(rng)] * count
        names: list[tuple[str | None, str]] = []
        while len(names) < count:
            pair: tuple[str | None, str]
            if self.pieces and rng.random() < self.pieces:
                pair = (None, str(rng.choice(PIECES)))
            elif rng.random() < 0.12:
                pair = (None, str(rng.choice(list(CUT_OUTS))))
            else:
                colour, shape = self._pair(rng)
                if any(colour == other for other, _ in names) and rng.random() < 0.8:
                    continue
                pair = (colour, shape)
            if pair not in names:
                names.append(pair)
        return names

    def _pair(self, rng: np.random.Generator) -> tuple[str, str]:
        while True:
            colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
            if is_held_out(colour, shape) == (self.split == "test"):
                return colour, shape

    def _object(
        self,
        rng: np.random.Generator,
        colour: str | None,
        shape: str,
        changes: bool,
        photos: Sequence[str],
        hindmost: bool,
    ) -> tuple[SceneObject, Sprite]:
        odds = np.array([_MOTION_ODDS.get(motion, 0.1) for motion in self.motions])
        motion = str(rng.choice(self.motions, p=odds / odds.sum()))
        appearance = None
        if changes:
            kind = str(rng.choice(["turns", "turns", "spins", "flashes"]))
            targets = [name for name in ("red", "yellow", "green", "blue", "purple") if name != colour]
            appearance = f"turns {rng.choice(targets)}" if kind == "turns" else kind
        if shape in PIECES:
            sprite = piece_sprite(rng, str(rng.choice(photos)))
        elif colour is None:
            sprite = cut_out_sprite(rng, shape)
        else:
            texture = "sectors" if appearance == "spins" else str(rng.choice(["flat", "sectors", "photo", "photo"]))
            sprite = coloured_sprite(rng, colour, shape, texture, str(rng.choice(photos)))
        path, scale = self._motion(rng, motion)
        turn = np.zeros(self.num_frames, np.float32)
        if appearance == "spins":
            turn = np.linspace(0, 2 * np.pi, self.num_frames, dtype=np.float32)
        radius = float(rng.uniform(0.10, 0.19)) * self.size
        if hindmost and self.split == "train" and rng.random() < LARGE:
            radius = float(rng.uniform(0.20, 0.33)) * self.size
        elif hindmost and shape in PIECES:
            radius = float(rng.uniform(0.12, 0.48)) * self.size
        if motion == "grows":
            radius *= 0.8
        elif motion == "shrinks":
            radius *= 1.15
        phrase = shape if colour is None else f"{colour} {shape}"
        return SceneObject(phrase, colour, shape, motion, appearance, path, scale, turn, radius), sprite

    def _motion(self, rng: np.random.Generator, motion: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The path relative to its start, [T, 2] in pixels, and the scale, [T]."""
        time = np.linspace(0, 1, self.num_frames, dtype=np.float32)
        path, scale = np.zeros((self.num_frames, 2), np.float32), np.ones(self.num_frames, np.float32)
        if motion in DIRECTIONS:
            distance = rng.uniform(0.30, 0.38) * self.size
            path = time[:, None] * np.array(DIRECTIONS[motion], np.float32) * distance
        elif motion == "circles":
            reach = rng.uniform(0.11, 0.15) * self.size
            angle = 2 * np.pi * time
            path = np.stack([np.sin(angle), np.cos(angle) - 1], axis=1) * reach * np.array([1, -1])
        elif motion == "bounces":
            path[:, 1] = -np.abs(np.sin(2 * np.pi * time)) * rng.uniform(0.18, 0.24) * self.size
        elif motion in PATTERNS:
            path = PATTERNS[motion](time) * rng.uniform(0.9, 1.1) * self.size
        elif motion == "grows":
            scale = 1 + 0.8 * time
        elif motion == "shrinks":
            scale = 1 - 0.5 * time
        return path.astype(np.float32), scale.astype(np.float32)

    def _placed(self, rng: np.random.Generator, objects: list[SceneObject]) -> tuple[SceneObject, ...]:
        """Give each object a start: whole paths inside the frame, frame 0 with little overlap."""
        placed: list[SceneObject] = []
        for item in objects:
            reach = item.radius * float(item.scale.max()) * 0.9
            low, high = reach - item.path.min(axis=0), self.size - reach - item.path.max(axis=0)
            best, best_gap = low, -np.inf
            for _ in range(40):
                start = rng.uniform(np.minimum(low, high), np.maximum(low, high))
                gaps = [np.hypot(*(start - other.path[0])) - item.radius - other.radius for other in placed]
                gap = min(gaps, default=0.0)
                if gap > best_gap:
                    best, best_gap = start, gap
                if gap >= 0:
                    break
            path = (item.path + best).astype(np.float32)
            placed.append(replace(item, path=path))
        return tuple(placed)


def _layer(item: SceneObject, sprite: Sprite, size: int) -> NDArray[np.uint8]:
    """Draw one object alone, uint8 [T, H, W, 4]."""
    side = sprite.silhouette.shape[0]
    middle = (side - 1) / 2
    time = np.linspace(0, 1, len(item.path), dtype=np.float32)
    target = _colour_to_turn(item)
    light = sprite.colour.mean(axis=2, keepdims=True)
    frames = []
    for t, (x, y) in enumerate(item.path):
        colour = sprite.colour
        if item.turn[t]:
            spin = cv2.getRotationMatrix2D((middle, middle), -float(np.degrees(item.turn[t])), 1.0)
            colour = cv2.warpAffine(colour, spin, (side, side), borderMode=cv2.BORDER_REFLECT)
        if target is not None:
            amount = min(1.0, 1.25 * float(time[t]))
            repainted = target * np.clip(light / max(float(light.mean()), 1.0), 0.4, 1.4)
            colour = (1 - amount) * colour + amount * repainted
        elif item.appearance == "flashes":
            colour = colour + (255 - colour) * 0.9 * (0.5 - 0.5 * np.cos(4 * np.pi * float(time[t])))
        picture = np.dstack([np.clip(colour, 0, 255), sprite.silhouette * 255]).astype(np.float32)
        zoom = 2 * item.radius * float(item.scale[t]) / side
        if zoom < 0.5:  # halve first: linear interpolation alone would skip pixels
            picture = cv2.resize(picture, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
            zoom *= 2
        centre = (picture.shape[0] - 1) / 2
        place = np.array([[zoom, 0, x - zoom * centre], [0, zoom, y - zoom * centre]], np.float32)
        frames.append(cv2.warpAffine(picture, place, (size, size), flags=cv2.INTER_LINEAR))
    return np.stack(frames).round().astype(np.uint8)


def _colour_to_turn(item: SceneObject) -> NDArray[np.float32] | None:
    if item.appearance is None or not item.appearance.startswith("turns "):
        return None
    return np.array(COLOURS[item.appearance.split()[1]], np.float32)


def _composite(background: NDArray[np.uint8], layers: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paint the layers over the background, later objects in front: frames [T, H, W, 3] and ids [T, H, W]."""
    count = layers.shape[1]
    frames = np.repeat(background[None], count, axis=0).astype(np.float32)
    ids = np.zeros(layers.shape[1:4], np.uint8)
    for number, layer in enumerate(layers, start=1):
        opacity = layer[..., 3:].astype(np.float32) / 255
        frames = frames * (1 - opacity) + layer[..., :3] * opacity
        ids[layer[..., 3] > 127] = number
    return frames.round().astype(np.uint8), ids


def describe(rng: np.random.Generator, objects: Sequence[SceneObject]) -> PromptPlan:
    """Say what happens to ``objects`` (phrase, motion and appearance are read), in the format of the rule planner."""
    clauses, spoken = [], []
    for item in objects:
        if item.motion in DIRECTIONS:
            verb, way = str(rng.choice(_VERBS)), item.motion
            actions = [f"{verb} {way}"]
            told = [f"{verb} to the {way}" if way in ("left", "right") and rng.random() < 0.25 else actions[0]]
        else:
            actions = [item.motion]
            told = [item.motion]
        if item.appearance is not None:
            silent = item.motion == "stays" and rng.random() < 0.7  # "the ball turns green" need not say that it stays
            actions, told = ([], []) if silent else (actions, told)
            actions.append(item.appearance)
            told.append(item.appearance)
        clauses.append(f"the {item.phrase} {' and '.join(actions)}")
        spoken.append(f"the {item.phrase} {' and '.join(told)}")
    if len(spoken) == 1:
        sentence = spoken[0]
    else:
        link = str(rng.choice([" and ", ", and ", " while "]))
        sentence = ", ".join(spoken[:-1]) + link + spoken[-1]
    prompt = sentence[0].upper() + sentence[1:] + "."
    prompts = tuple(ObjectPrompt(item.phrase, clause) for item, clause in zip(objects, clauses, strict=True))
    return PromptPlan(prompt, ", ".join(clauses), prompts)
