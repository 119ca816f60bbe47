"""Where the weights of a metric come from: a path or a Hub id, each file by its hash; one clear error where absent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Weights:
    """Files that a metric's features come from.

    Attributes:
        source: what was asked for: a path's last part, or a Hub id.
        files: where they lie.
        sha256: of all their bytes, in order.
    """

    source: str
    files: tuple[Path, ...]
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, without folders of this machine."""
        return {"source": self.source, "files": [path.name for path in self.files], "sha256": self.sha256}


def find_weights(source: str | Path, names: Sequence[str], what: str, public: str) -> Weights:
    """Find files in a folder or a Hub repository, or take the one file that is named.

    Args:
        source: a file (``names`` then has one entry and the file may have another name), a folder that holds all of
            ``names``, or a Hub id, "owner/name".
        names: the files, the weights first.
        what: whose weights these are, for the error.
        public: where people get them, for the error.

    Raises:
        ValueError: a file is not there and can't be had; says which, and where people get it.
    """
    name, files = locate_weights(source, names, what, public)
    return Weights(name, tuple(files), _sha256(files))


def locate_weights(source: str | Path, names: Sequence[str], what: str, public: str) -> tuple[str, list[Path]]:
    """The source's name and the files alone, none of them read; otherwise as :func:`find_weights`."""
    path = Path(source)
    if path.is_file() and len(names) == 1:
        return path.name, [path]
    if path.is_dir():
        absent = [name for name in names if not (path / name).is_file()]
        if absent:
            raise ValueError(f"{what}: {path} has no {', '.join(absent)}. {_advice(names, public)}")
        return path.absolute().name, [path / name for name in names]
    text = str(source)
    if text.count("/") != 1 or text.startswith((".", "/", "~")) or text.endswith("/"):
        raise ValueError(f"{what}: there is no {text!r}. {_advice(names, public)}")
    return text, [_from_hub(text, name, names, what, public) for name in names]


def module_weights(source: str, module: Any) -> dict[str, Any]:
    """The same as :meth:`Weights.to_dict` for a network in memory: a hash of its tensors' names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return {"source": source, "files": [], "sha256": digest.hexdigest()}


def _from_hub(repository: str, name: str, names: Sequence[str], what: str, public: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(repository, name))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = type(error).__name__
        raise ValueError(
            f"{what}: {name} of {repository!r} is not on this machine and can't be downloaded now ({reason})."
            f" {_advice(names, public)}"
        ) from error


def _advice(names: Sequence[str], public: str) -> str:
    files = names[0] if len(names) == 1 else f"a folder with {', '.join(names)}"
    return f"Expected {files}, or a Hub id that holds it; people get it as {public}."


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
