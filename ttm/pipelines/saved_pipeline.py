"""Opening and saving pipelines: names, folders and Hub ids, with one clear error for what can't be opened."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import tempfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines import pipeline_utils
from safetensors import SafetensorError

from ttm.models.weight_files import read_header
from ttm.pipelines.embedded import embedded_folder, embedded_models

INDEX = "model_index.json"
CUSTOM_PIPELINE = "pipeline"

# Named torch_dtype in older releases of diffusers, which ignore "dtype"; callers may write either with any release.
_DTYPE_ARGUMENT = "dtype" if hasattr(pipeline_utils, "_resolve_dtype") else "torch_dtype"

_LOADING = {
    "cache_dir", "custom_pipeline", "custom_revision", "device_map", "disable_mmap", "dtype", "force_download",
    "load_connected_pipeline", "local_files_only", "low_cpu_mem_usage", "max_memory", "offload_folder",
    "offload_state_dict", "output_loading_info", "proxies", "quantization_config", "revision", "subfolder", "token",
    "torch_dtype", "trust_remote_code", "use_flashpack", "use_onnx", "use_safetensors", "variant",
}  # fmt: skip
"""What ``DiffusionPipeline.from_pretrained`` takes beside components and settings."""

_PART = r"(?:-\d{5}-of-\d{5})?"
_WEIGHTS = re.compile(rf"[^.]+?{_PART}(?:\.(?P<of>\w+))?{_PART}\.safetensors(?:\.index(?:\.(?P<of_index>\w+))?\.json)?")
"""A file of weights, or the index of several; its groups are the variant ("fp16")."""

_CUSTOM_PIPELINE_TEXT = '''"""Opens this folder with diffusers alone; needs the package `through-the-mask`.

    DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
"""

{imports}

from {module} import {name}

__all__ = ["{name}"]
'''


class SavedPipeline(DiffusionPipeline):
    """What the pipelines of this package share: opening and saving.

    ``from_pretrained`` takes the name of an embedded model ("ttm-tiny"), a folder or a Hub id, loads in
    float32 unless told otherwise (the embedded weights rest in half precision), reads safetensors only,
    and turns what is wrong with a folder into a ValueError that names the file.

    A saved folder is written beside and then moved in, file by file. It carries a ``pipeline.py``, so that
    ``DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`` opens it too.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Open an embedded model, a folder or a Hub id; keyword arguments as in diffusers.

        Args:
            pretrained_model_name_or_path: "ttm-tiny", a folder that ``save_pretrained`` wrote, or
            "owner/name". **kwargs: components or settings to use instead of the saved ones, ``dtype``
                (torch.float32 by default), and all else that ``DiffusionPipeline.from_pretrained`` takes.

        Raises:
            ValueError: no such model, another kind of folder, a damaged or missing file, an unknown
                setting.
        """
        name = os.fspath(pretrained_model_name_or_path)
        _check_arguments(cls, kwargs)
        given = [kwargs.pop(name) for name in ("torch_dtype", "dtype") if name in kwargs]
        kwargs[_DTYPE_ARGUMENT] = given[-1] if given else torch.float32
        kwargs.setdefault("use_safetensors", True)
        folder = _local_folder(name)
        if folder is not None:
            _check_folder(folder, cls, passed=set(kwargs))
        try:
            pipeline = super().from_pretrained(name if folder is None else str(folder), **kwargs)
        except (OSError, SafetensorError, json.JSONDecodeError, KeyError, RuntimeError) as error:
            if folder is None and isinstance(error, OSError):
                reason = str(error).splitlines()[0][:200]
                raise ValueError(
                    f"There is no folder {name}, and as a {cls.__name__} of the Hub it can't be had: {reason}"
                ) from error
            raise ValueError(f"{name} can't be opened as a {cls.__name__}: {error}") from error
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    def __setattr__(self, name: str, value: Any) -> None:
        # diffusers leaves an optional component that began as None out of the settings, and so out of every save.
        kept = self.__dict__.get("_internal_dict", {}).get(name)
        began_as_none = isinstance(kept, (list, tuple)) and not any(kept)
        if value is not None and name in type(self)._optional_components and began_as_none:
            self.register_modules(**{name: value})
        else:
            super().__setattr__(name, value)

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str], dduf_entries: None = None) -> dict[str, Any]:
        # Older releases of diffusers also hand over the entries of an archive, of which a folder has none.
        # The saved class name has the form [file, class], by which plain diffusers finds pipeline.py. Here
        # the class
        # is known, and running a file of the folder would only ask the user for trust without need.
        values: dict[str, Any] = super()._dict_from_json_file(json_file)
        if isinstance(values.get("_class_name"), list):
            values["_class_name"] = values["_class_name"][-1]
        for value in values.values():
            if isinstance(value, list) and value and isinstance(value[0], str) and value[0].startswith("ttm."):
                _import_home(value[0])  # of a folder, and of what a Hub id names
        return values

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write all components, the settings and ``pipeline.py`` to a folder; arguments as in diffusers.

        Raises:
            ValueError: ``safe_serialization=False`` (that would be pickle).
            OSError: the folder can't be written; what was in it before stays whole.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization is False; expected True: weights are saved as safetensors only.")
        target = Path(save_directory).absolute()
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=target) as beside:
            super().save_pretrained(beside, variant=variant, max_shard_size=max_shard_size)
            complete_folder(Path(beside), type(self))
            _move_in(Path(beside), target, variant)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", target.name), variant=variant, **kwargs)


def complete_folder(folder: Path, cls: type[Any]) -> None:
    """Make a folder in diffusers' layout one of a pipeline of ours.

    Adds ``pipeline.py``; takes out of the JSON files where on this machine the models came from.

    Args:
        folder: with model_index.json and the components' folders.
        cls: the pipeline's class.
    """
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    # diffusers looks a component's class up only in modules that are imported already.
    homes = {value[0] for value in index.values() if isinstance(value, list) and value[0]}
    imports = "\n".join(f"import {home}" for home in sorted(homes) if home.startswith("ttm."))
    text = _CUSTOM_PIPELINE_TEXT.format(imports=imports, module=cls.__module__, name=cls.__name__)
    (folder / f"{CUSTOM_PIPELINE}.py").write_text(text, encoding="utf-8")
    for path in folder.rglob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            continue
        changed = {key: value for key, value in values.items() if key != "_name_or_path"}
        if path.name == INDEX:
            changed["_class_name"] = [CUSTOM_PIPELINE, cls.__name__]
        if path.name == "config.json" and "architectures" in values:
            # transformers computes in the dtype that stands here, diffusers in float32: let both do the same,
            # whatever the weights rest in.
            changed["dtype"] = "float32"
        if changed != values:
            path.write_text(json.dumps(changed, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _move_in(source: Path, target: Path, variant: str | None) -> None:
    """Move every file of a tree to its place in another on the same disk, the index last.

    Weights of an earlier save that the new one has no file for are removed before the index comes: of a component that
    was in several files and now is in one, or the reverse, the libraries would open the old ones.
    """
    files = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: path.name == INDEX)
    new = {path.relative_to(source) for path in files}
    for path in files:
        if path.name == INDEX:
            for folder in {place.parent for place in new if _WEIGHTS.fullmatch(place.name)}:
                for old in (target / folder).iterdir():
                    found = _WEIGHTS.fullmatch(old.name)
                    if found and (found["of"] or found["of_index"]) == variant and folder / old.name not in new:
                        old.unlink()
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)


def _local_folder(name: str) -> Path | None:
    """The folder to open, or None for a Hub id."""
    folder = embedded_folder(name)
    if folder is not None:
        return folder
    if os.path.isdir(name):
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/")) or name.endswith("/"):
        embedded = ", ".join(embedded_models()) or "none in this installation"
        raise ValueError(
            f"There is no model {name!r}; expected an embedded one ({embedded}), a folder, or a Hub id"
            " of the form 'owner/name'."
        )
    return None


def _check_folder(folder: Path, cls: type[DiffusionPipeline], passed: set[str]) -> None:
    """Find what is wrong with a pipeline's folder before anything is loaded; raises ValueError."""
    index = folder / INDEX
    if not index.is_file():
        raise ValueError(f"{folder} is no pipeline: it has no {INDEX}; expected a folder of save_pretrained.")
    try:
        values = cls._dict_from_json_file(index)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{index} does not hold JSON ({error}); expected a file of save_pretrained.") from error
    if values.get("_class_name") != cls.__name__:
        raise ValueError(f"{folder} holds a {values.get('_class_name')}; expected a {cls.__name__}.")
    known = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    for key in values:
        if key not in known and not key.startswith("_"):
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(known)}."
            raise ValueError(f"{index} has the unknown key {key!r}; {hint}")
    for name, value in values.items():
        if isinstance(value, list) and len(value) == 2 and value[0] and name not in passed | {"_class_name"}:
            _check_component(folder / name)


def _check_arguments(cls: type[DiffusionPipeline], given: Iterable[str]) -> None:
    """diffusers only logs what it does not know, and goes on without: a misspelt setting would be lost."""
    known = {name for name in inspect.signature(cls.__init__).parameters if name != "self"} | _LOADING
    for name in given:
        if name not in known and not name.startswith("_"):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(sorted(known))}."
            raise ValueError(f"from_pretrained has no argument {name!r}; {hint}")


def _import_home(library: str) -> None:
    """Import the module of a component's class: diffusers looks classes up only in those that are there already."""
    try:
        import_module(library)
    except ImportError as error:
        raise ValueError(f"{INDEX} names the module {library!r}, which this version does not have.") from error


def _check_component(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing; expected the folder of the component {folder.name!r}.")
    for path in sorted(folder.rglob("*.safetensors")):
        read_header(path)
