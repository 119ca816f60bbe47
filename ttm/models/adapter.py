"""What a host gains by training, kept apart from the host: the new modules' first values, saving and loading.

An adapter is a folder with two files: ``masked_adapter.safetensors`` (the new parameters alone, under the
names they have in the model, and LoRA's matrices where there are any) and ``masked_adapter.json`` (which host and
which public weights they fit, and the configuration they were trained with).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttm.atomic_write import written_beside
from ttm.models.base import name_of, same_base
from ttm.models.lora import add_lora, has_lora, lora_dtypes, lora_form, lora_shapes, lora_state_dict, merge_lora

logger = logging.getLogger(__name__)

WEIGHTS_NAME = "masked_adapter.safetensors"
CONFIG_NAME = "masked_adapter.json"
FORMAT = "through-the-mask adapter 1"

if TYPE_CHECKING:
    _Base = nn.Module
else:
    _Base = object


class AdapterMixin(_Base):
    """New modules on a diffusers host; stands before the host among the bases of a model.

    A subclass names them in ``_adapter_modules`` (a component of the parameter's name), the configuration
    they depend on in ``_adapter_config`` and ``_adapter_host`` (its own and the host's keys), and, in
    ``_adapter_beginnings``, the host's module whose weights a new module begins with.
    """

    _adapter_modules: tuple[str, ...] = ()
    _adapter_config: tuple[str, ...] = ()
    _adapter_host: tuple[str, ...] = ()
    _adapter_beginnings: dict[str, str] = {}
    config: Any

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Open a saved model of this class, or a plain host, whose new modules add nothing yet.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            kwargs: as diffusers' ``from_pretrained`` takes them; keys of the configuration may be among them.

        Raises:
            ValueError: a weight of the host is missing.
        """
        with_info = kwargs.pop("output_loading_info", False)
        kwargs.setdefault("use_safetensors", True)
        loader: Any = super()
        with _without_news_of_new_weights():
            model, info = loader.from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **kwargs)
        missing = sorted(info.get("missing_keys", ()))
        lost = [name for name in missing if not cls._is_adapter_key(name)]
        if lost:
            raise ValueError(
                f"{pretrained_model_name_or_path} lacks {len(lost)} weights of the host, first {lost[0]!r};"
                f" expected all of them (only {cls.__name__}'s new modules may be missing)."
            )
        model.begin_adapter(missing)
        return (model, info) if with_info else model

    @classmethod
    def from_host(cls, host: Any, copy: bool = True, **extra_config: Any) -> Any:
        """A copy of a plain host with new modules that add nothing yet, on its device and in its dtypes.

        Args:
            host: a model of the class that this one extends.
            copy: False takes the host's tensors over, for a host that nothing else uses.
            extra_config: the keys of the configuration that this class adds.

        Raises:
            ValueError: a key that this class does not add.
        """
        unknown = sorted(set(extra_config) - set(cls._adapter_config))
        if unknown:
            known = sorted(cls._adapter_config)
            raise ValueError(f"{unknown[0]!r} is no setting of {cls.__name__}; expected {known}.")
        config = {key: value for key, value in host.config.items() if not key.startswith("_")}
        with torch.device(host.device):
            model: Any = cls(**{**config, **extra_config})
        differing = model.state_dict().keys() ^ host.state_dict().keys()
        strange = [name for name in sorted(differing) if not cls._is_adapter_key(name)]
        if strange:
            raise ValueError(
                f"The host ({type(host).__name__}) and {cls.__name__} differ in {strange[0]!r} and"
                f" {len(strange) - 1} more weights; expected a plain host, without fused or added layers."
            )
        new = model.adapter_state_dict().keys() - host.state_dict().keys()
        for name in new:
            _tensor_of(model, name).data = _tensor_of(model, name).data.to(host.dtype)
        # One by one: a host may mix dtypes (some modules stay in fp32), and has buffers that are not saved.
        for name, source in [*host.named_parameters(), *host.named_buffers()]:
            _tensor_of(model, name).data = source.detach().clone() if copy else source.detach()
        model.begin_adapter(sorted(new))
        return model.train(host.training)

    @classmethod
    def _is_adapter_key(cls, name: str) -> bool:
        return not set(cls._adapter_modules).isdisjoint(name.split("."))

    @torch.no_grad()
    def begin_adapter(self, names: list[str] | None = None) -> None:
        """Give new parameters their first values.

        These are the weights of the host's module beside them where it has one, ones and zeros for a norm,
        and zeros for the last projection of each branch and for the conditions' embedding.

        Args:
            names: parameters of the adapter; all of them by default. May lie on the meta device.
        """
        for name in self.adapter_state_dict() if names is None else names:
            target = _tensor_of(self, name)
            if target.is_meta:
                owner, _, leaf = name.rpartition(".")
                device = next(p.device for p in self.parameters() if not p.is_meta)
                zeros = torch.zeros_like(target, device=device)
                fresh = nn.Parameter(zeros, requires_grad=target.requires_grad)
                setattr(self.get_submodule(owner), leaf, fresh)
                target = fresh
            target.data.copy_(self._beginning(name, target))

    def _beginning(self, name: str, target: Tensor) -> Tensor:
        parts = name.split(".")
        if parts[-2] != "to_out":
            for new, old in self._adapter_beginnings.items():
                if new in parts:
                    source = ".".join(old if part == new else part for part in parts)
                    return _tensor_of(self, source).to(target)
            if "norm" in parts[-2] and parts[-1] == "weight":
                return torch.ones_like(target)
        return torch.zeros_like(target)

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """The new parameters alone, by their names in the model."""
        return {name: value for name, value in self.state_dict().items() if self._is_adapter_key(name)}

    def save_adapter(
        self, folder: str | Path, state: Mapping[str, Tensor] | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Write the adapter into ``folder``, which is made if it is absent; each file whole or not at all.

        Args:
            folder: where to.
            state: the model's state, where its own tensors are not whole (sharded over processes); None: its own.
            dtype: to write in; None: as they are.

        Raises:
            ValueError: the model has no new module.
            OSError: the folder can't be written.
        """
        state = self.state_dict() if state is None else state
        own = {name: value for name, value in state.items() if self._is_adapter_key(name)} | lora_state_dict(state)
        weights = {name: value.detach().to(dtype or value.dtype).contiguous() for name, value in own.items()}
        if not weights:
            raise ValueError(
                "This model has no condition channels, masked blocks or mask cross-attention; there is no adapter"
                " to save."
            )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with written_beside(folder / WEIGHTS_NAME) as path:
            save_file(weights, path, metadata={"format": "pt"})
        with written_beside(folder / CONFIG_NAME) as path:
            path.write_text(json.dumps(self._adapter_description(), indent=2) + "\n", encoding="utf-8")

    def _adapter_description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "class": type(self).__name__,
            "config": {key: _plain(self.config[key]) for key in self._adapter_config},
            "host": {key: _plain(self.config[key]) for key in self._adapter_host},
            "base": self.config.get("base"),
            "lora": lora_form(self),
        }

    def load_adapter(self, folder: str | Path) -> None:
        """Read what :meth:`save_adapter` wrote; the model is untouched unless all of it fits.

        LoRA's matrices are added to the weights that they lie beside: afterwards nothing needs peft. To weights in 16
        bits what was learnt arrives in part, and a warning says so.

        Raises:
            FileNotFoundError: one of the two files is missing.
            ValueError: a file is damaged; the adapter belongs to another host, other public weights or another
                configuration; or it has LoRA and this model has some already.
        """
        folder = Path(folder)
        for file in (CONFIG_NAME, WEIGHTS_NAME):
            if not (folder / file).is_file():
                raise FileNotFoundError(f"{folder} holds no {file}; expected a folder written by save_adapter.")
        lora = self._check_description(folder / CONFIG_NAME).get("lora")
        if lora and has_lora(self):
            raise ValueError(f"{folder} has LoRA and the model too; expected merge_lora, or a model without.")
        try:
            weights = load_file(folder / WEIGHTS_NAME)
        except SafetensorError as error:
            raise ValueError(f"{folder / WEIGHTS_NAME} is damaged ({error}); expected a whole file.") from error
        shapes = {name: list(value.shape) for name, value in self.adapter_state_dict().items()}
        _check_shapes(folder, weights, shapes | (lora_shapes(self, lora["rank"]) if lora else {}))
        if lora:
            _warn_of_rounding(folder, lora_dtypes(self))
            add_lora(self, **lora)
        self.load_state_dict(weights, strict=False)
        if lora:
            merge_lora(self)

    def _check_description(self, path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged: it does not hold JSON ({error}).") from error
        expected = self._adapter_description()
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"{path} is no description of an adapter; expected 'format': {FORMAT!r}.")
        if isinstance(config := found.get("config"), dict):  # an older one has it off
            config.setdefault("carried_first_frame", False)
        for part in ("class", "config", "host"):
            if found.get(part) != expected[part]:
                raise ValueError(
                    f"{path.parent} does not fit this model: its {part} is {found.get(part)};"
                    f" expected {expected[part]}."
                )
        if not same_base(found.get("base"), expected["base"]):
            raise ValueError(
                f"{path.parent} was trained on {name_of(found['base'])}; this model extends"
                f" {name_of(expected['base'])}. Expected the same weights."
            )
        return found


@contextmanager
def _without_news_of_new_weights() -> Iterator[None]:
    """Keep diffusers from warning of weights that a checkpoint lacks: they are looked at, and begun, right after."""
    log = logging.getLogger("diffusers.models.modeling_utils")

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Some weights of ")

    log.addFilter(wanted)
    try:
        yield
    finally:
        log.removeFilter(wanted)


def _warn_of_rounding(folder: Path, dtypes: set[torch.dtype]) -> None:
    """Say that changes below half a step of a 16-bit weight are lost, whatever the sum is computed in."""
    if short := sorted(str(dtype).removeprefix("torch.") for dtype in dtypes if dtype.itemsize < 4):
        logger.warning(
            "%s has LoRA and the weights that it is added to are in %s: small changes are rounded off. Open the base in"
            " float32, load the adapter, then call .to(...): that rounds once, after the sum.",
            folder,
            ", ".join(short),
        )


def _check_shapes(folder: Path, weights: Mapping[str, Tensor], own: Mapping[str, list[int]]) -> None:
    if set(weights) != set(own):
        name = sorted(set(weights) ^ set(own))[0]
        where = "the model but not the adapter" if name in own else "the adapter but not the model"
        raise ValueError(f"{folder} does not fit: {name!r} is in {where}; expected the same parameters in both.")
    for name, value in weights.items():
        if list(value.shape) != own[name]:
            raise ValueError(f"{folder} does not fit: {name!r} is {list(value.shape)}; expected {own[name]}.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tensor_of(module: nn.Module, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    tensor = getattr(module.get_submodule(owner), leaf)
    assert isinstance(tensor, Tensor)
    return tensor
