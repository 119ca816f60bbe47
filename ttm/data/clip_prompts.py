"""What the clips of a folder show, in words: from a file ``prompts.yaml`` beside them, or from their names.

File names: "a-dog-runs-03.mp4" says "a dog runs". Hyphens and underscores are spaces, and a number at the end only
tells clips apart.

``prompts.yaml`` maps a clip's file name to its prompt, or to more:

    a-dog-runs-03.mp4: a brown dog runs through the snow
    take7.mp4:
      prompt: two birds fly over the sea
      phrases: [left bird, right bird]   # what to look for and track; default: what the prompt says that moves
      masks: birds/take7.npz             # given masks, inside the folder; default: what lies beside the clip

A clip that the file does not name keeps the prompt of its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ttm.prompt_planner import RulePlanner

PROMPTS = "prompts.yaml"
_KEYS = ("prompt", "phrases", "masks")


@dataclass(frozen=True)
class ClipPrompt:
    """What is known of a clip beside its pixels.

    Attributes:
        prompt: what it shows.
        phrases: the objects to track, object ``l`` has id ``l + 1``; empty where neither the file nor the prompt's
            grammar says so (then masks have to be given).
        masks: a file or folder of masks, or None.
    """

    prompt: str
    phrases: tuple[str, ...]
    masks: Path | None = None


def read_clip_prompts(folder: Path, names: Sequence[str]) -> dict[str, ClipPrompt]:
    """The prompts of the clips called ``names``, by name.

    Raises:
        ValueError: ``prompts.yaml`` is no YAML of that form, names a clip that is not there or masks outside of the
            folder; or a clip has no prompt.
    """
    path = folder / PROMPTS
    entries = read_prompt_file(path) if path.exists() else {}
    if unknown := [name for name in entries if name not in names]:
        raise ValueError(f"{path} names {unknown[0]!r}, which is no clip of the folder; expected some of {names}.")
    return {name: _entry(folder, name, entries.get(name)) for name in names}


def prompt_of_name(name: str) -> str:
    """The prompt that a file name says, "" where it says nothing ("03.mp4")."""
    words = re.sub(r"[-_\s]+", " ", Path(name).stem).strip()
    return re.sub(r"(^|\s)\d+$", "", words).strip()


def inside(folder: Path, name: str, what: str) -> Path:
    """A path that a file of the folder names, which may not leave the folder.

    Raises:
        ValueError: it is absolute, leads out of the folder (a link counts as what it points to), or is not there.
    """
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{what} is {name!r}, outside of {folder}; expected a path inside it.")
    if not path.exists():
        raise ValueError(f"{what} is {name!r}, which is not in {folder}; expected a file or folder there.")
    return path


class _OnceEach(yaml.SafeLoader):
    """Of two equal keys YAML's own loader takes the last, and a prompt is lost unsaid."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)


def read_prompt_file(path: Path) -> Mapping[str, Any]:
    """The entries of a ``prompts.yaml`` by file name, each a prompt or a mapping, as they stand there.

    Raises:
        ValueError: no YAML of that form, or a key is given twice.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_OnceEach)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no YAML ({reason}); expected 'clip.mp4: a prompt'.") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{path} holds a {type(values).__name__}; expected lines of the form 'clip.mp4: a prompt'.")
    return values


def checked_entry(folder: Path, name: str, value: Any) -> Mapping[str, Any]:
    """What an entry of the ``prompts.yaml`` of a folder says: some of prompt, phrases (texts) and masks (a text).

    Raises:
        ValueError: another key, phrases that are no list of texts, or masks that are no text.
    """
    where = f"{folder / PROMPTS}, {name}"
    values = value if isinstance(value, Mapping) else {} if value is None else {"prompt": value}
    if unknown := [key for key in values if key not in _KEYS]:
        raise ValueError(f"{where} has the key {unknown[0]!r}; expected some of {', '.join(_KEYS)}.")
    phrases, masks = values.get("phrases"), values.get("masks")
    listed = isinstance(phrases, Sequence) and not isinstance(phrases, str) and all(_is_text(item) for item in phrases)
    if phrases is not None and not listed:
        raise ValueError(f"{where}: phrases is {phrases!r}; expected a list of texts, [left bird, right bird].")
    if masks is not None and not _is_text(masks):
        raise ValueError(f"{where}: masks is {masks!r}; expected the path of a file or folder inside {folder}.")
    return values


def _entry(folder: Path, name: str, value: Any) -> ClipPrompt:
    values = checked_entry(folder, name, value)
    prompt = values.get("prompt", prompt_of_name(name))
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(
            f"{folder / name} has no prompt: its name says nothing; expected a name such as a-dog-runs-1.mp4, or a"
            f" line in {PROMPTS}: '{name}: a dog runs'."
        )
    phrases, masks = values.get("phrases"), values.get("masks")
    if phrases is None:
        phrases = _phrases_of(prompt)
    found = None if masks is None else inside(folder, masks, f"{folder / PROMPTS}, {name}: masks")
    return ClipPrompt(prompt.strip(), tuple(item.strip() for item in phrases), found)


def _phrases_of(prompt: str) -> list[str]:
    try:
        return RulePlanner().plan(prompt).phrases
    except ValueError:
        return []


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
