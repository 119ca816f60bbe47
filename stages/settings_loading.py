"""Read the settings of a training run from ``configs/`` and the command line, with readable errors.

A key that no dataclass of :mod:`stages.settings` knows is an error that names the nearest known one, whether it comes
from the command line or a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stages.settings import Settings
from stages.settings_check import check_settings

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"
GROUPS = ("stage", "host", "objective", "motion", "data", "memory")


def _known_keys(node: DictConfig, prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in node.items_ex(resolve=False):
        name = f"{prefix}{key!s}"
        keys.add(name)
        if isinstance(value, DictConfig):
            keys |= _known_keys(value, f"{name}.")
    return keys


def unknown_key_message(key: str, known: Sequence[str] | set[str]) -> str:
    """The error for a key that no setting has, with the nearest known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.6)
    if not near:  # the same last part somewhere else: lr -> optimizer.lr
        leaf = key.rsplit(".", 1)[-1]
        leaves = {name.rsplit(".", 1)[-1]: name for name in names}
        near = [leaves[match] for match in difflib.get_close_matches(leaf, leaves, n=3, cutoff=0.6)]
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else f"; known: {', '.join(names)}"
    return f"There is no setting {key!r}{hint}"


def load_settings(overrides: Sequence[str], config_dir: Path = CONFIG_DIR, config_name: str = "train") -> Settings:
    """Compose ``configs/train.yaml`` with overrides such as ``stage=motion_to_video optimizer.lr=1e-4``.

    Raises:
        ValueError: an unknown key or group option (the nearest known one is named), a value of the wrong type,
            or settings that contradict each other.
    """
    schema = OmegaConf.structured(Settings)
    free = ("host.transformer.",)
    known = _known_keys(schema)
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise ValueError(f"{text!r} can't be read; expected key=value. ({error})") from error
        if override.type is None or override.type.name not in ("CHANGE", "FORCE_ADD", "ADD") or "=" not in text:
            raise ValueError(f"{text!r} is no setting; expected key=value.")
        key: str = override.key_or_group
        if key not in known and not key.startswith(free):
            raise ValueError(unknown_key_message(key, known))
        if key in GROUPS:
            _expect_option(key, override.value(), config_dir)
    # An override of a field that its YAML file leaves at the default has to be added, in hydra's words; the schema
    # has already said that it exists.
    forced = [text if text.split("=", 1)[0] in GROUPS else "++" + text.lstrip("+") for text in overrides]
    backup = GlobalHydra.instance().hydra  # another library of this process may have initialised hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(config_dir), version_base="1.3"):
            composed = compose(config_name=config_name, overrides=forced)
        for key in _known_keys(composed):
            if key not in known and not key.startswith(free):
                raise ValueError(f"{config_dir}: {unknown_key_message(key, known)}")
        settings = OmegaConf.to_object(OmegaConf.merge(schema, composed))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"The settings don't fit together: {error}") from error
    finally:
        GlobalHydra.instance().hydra = backup
    assert isinstance(settings, Settings)
    check_settings(settings)
    return settings


def _expect_option(group: str, option: Any, config_dir: Path) -> None:
    options = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
    if option not in options:
        near = difflib.get_close_matches(str(option), options, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{group}={option} does not exist (there are: {', '.join(options)}){hint}")
