"""A public text-to-video base in diffusers' layout: what it is, and whether it can be a host.

Known layouts, by the ``_class_name`` of model_index.json:
- WanPipeline, WanImageToVideoPipeline (Wan 2.1 of both sizes, Wan 2.2 TI2V with ``expand_timesteps``);
- StableDiffusionPipeline (1.x), made a video model by an AnimateDiff motion adapter from a place of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from stages.public_weights import PICKLES, STEMS, check_weights, on_meta, read_json
from ttm.pipelines.saved_pipeline import INDEX

WAN, STABLE_DIFFUSION = ("WanPipeline", "WanImageToVideoPipeline"), ("StableDiffusionPipeline",)
PLAIN_FILES = ("*.json", "*.txt", "*.model")
"""All of a component that is not weights."""


@dataclass(frozen=True)
class Source:
    """Where a checkpoint comes from.

    Attributes:
        name: Hub id, or the name of a folder.
        revision: commit of the Hub, or what the user said; None: unknown.
        folder: where its files lie.
    """

    name: str
    revision: str | None
    folder: Path


def find_source(place: str, revision: str | None, patterns: tuple[str, ...]) -> Source:
    """A local folder, or the files of a Hub id that match ``patterns``, downloaded or from the Hub's cache.

    Raises:
        ValueError: neither is there, or the place is a single file.
    """
    path = Path(place)
    if path.is_dir():
        hub, snapshots, commit = path.resolve().parts[-3:] if len(path.resolve().parts) > 3 else ("", "", "")
        if snapshots == "snapshots" and hub.startswith("models--"):  # a folder of the Hub's cache says whose it is
            return Source(hub.removeprefix("models--").replace("--", "/"), commit, path)
        return Source(path.resolve().name, revision, path)
    if path.is_file():
        kind = "a pickle" if path.suffix in PICKLES else "a single file"
        raise ValueError(f"{place} is {kind}; expected a folder in diffusers' layout, of safetensors, or a Hub id.")
    if place.count("/") != 1 or place.startswith((".", "/")) or place.endswith("/"):
        raise ValueError(f"There is no folder {place!r}; expected one in diffusers' layout, or a Hub id 'owner/name'.")
    try:
        folder = Path(snapshot_download(place, revision=revision, allow_patterns=list(patterns)))
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{place} can't be had from the Hub: {reason}") from error
    return Source(place, folder.name, folder)


@dataclass(frozen=True)
class PublicBase:
    """A checkpoint that can be a host.

    Attributes:
        source: of the pipeline.
        index: its model_index.json.
        adapter: the source of Stable Diffusion's motion adapter; None for Wan.
    """

    source: Source
    index: dict[str, Any]
    adapter: Source | None = None

    @classmethod
    def find(cls, place: str, revision: str | None = None, motion_adapter: str | None = None) -> PublicBase:
        """Open a base and judge it by its small files, then by the headers of its weights.

        Of a Hub id the small files are fetched first, so that what can't be a host is refused before a download of
        gigabytes.

        Raises:
            ValueError: no such place, another layout or class, parts that are missing, damaged, pickled or don't fit
                each other.
        """
        small = (INDEX, *(f"*/{pattern}" for pattern in PLAIN_FILES))
        source = find_source(place, revision, small)
        if not (source.folder / INDEX).is_file():
            raise ValueError(f"{place} has no {INDEX}; expected a pipeline in diffusers' layout.")
        base = cls(source, read_json(source.folder / INDEX))
        base._check_class(motion_adapter)
        base._check_parts()
        parts = [f"{name}/{STEMS[library]}" for name, (library, _) in base.components()]
        weights = tuple(f"{part}{end}.safetensors" for part in parts for end in ("", "-*"))
        base = cls(find_source(place, source.revision, (*small, *weights)), base.index)
        if motion_adapter is not None:
            adapter = find_source(motion_adapter, None, ("*.json", "*.safetensors"))
            base = cls(base.source, base.index, adapter)
        base._check_weights()
        return base

    @property
    def is_wan(self) -> bool:
        """Whether the host is a Wan transformer; else it is Stable Diffusion's U-Net."""
        return self.index.get("_class_name") in WAN

    @property
    def host_folder(self) -> Path:
        """Where the host's configuration and weights lie."""
        return self.source.folder / ("transformer" if self.is_wan else "unet")

    @property
    def known_first_frame(self) -> bool:
        """Whether the host takes a first frame in the place of the noisy one (Wan 2.2 TI2V)."""
        return bool(self.index.get("expand_timesteps"))

    def components(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Name, library and class of the parts that a host needs, the host itself among them."""
        wanted = ["vae", "text_encoder", "tokenizer", "scheduler", self.host_folder.name]
        if self.is_wan and self.host_config().get("image_dim") is not None:
            wanted += ["image_encoder", "image_processor"]
        for name in wanted:
            library, kind = (self.index.get(name) or [None, None])[:2]
            if library is None:
                raise ValueError(f"{self.source.folder / INDEX} names no {name}; expected one of them.")
            yield name, (library, kind)

    def host_config(self) -> dict[str, Any]:
        """The host's config.json."""
        return read_json(self.host_folder / "config.json")

    def _check_class(self, motion_adapter: str | None) -> None:
        name, known = self.index.get("_class_name"), (*WAN, *STABLE_DIFFUSION)
        if name not in known:
            raise ValueError(f"{self.source.name} is a {name}; expected one of {', '.join(known)}.")
        if (self.index.get("transformer_2") or [None])[0] is not None or self.index.get("boundary_ratio"):
            raise ValueError(
                f"{self.source.name} has two experts (transformer and transformer_2, which take turns by noise level);"
                " expected a base with one transformer."
            )
        if self.is_wan and motion_adapter is not None:
            raise ValueError(f"{self.source.name} is a {name}, a video model by itself; expected no motion adapter.")
        if not self.is_wan and motion_adapter is None:
            raise ValueError(f"{self.source.name} is a {name}, a model of images; expected a --motion-adapter too.")

    def _check_parts(self) -> None:
        for name, (library, kind) in self.components():
            folder = self.source.folder / name
            if not folder.is_dir():
                raise ValueError(f"{self.source.name} has no folder {name!r}; expected its {kind}.")
            if library == "diffusers" and name != "scheduler":
                found = read_json(folder / "config.json").get("_class_name")
                if found != kind:
                    raise ValueError(f"{folder}/config.json is of a {found}; expected a {kind}, as {INDEX} says.")
        expected = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
        if self.is_wan:
            expected = {
                "transformer": "WanTransformer3DModel", "vae": "AutoencoderKLWan", "text_encoder": "UMT5EncoderModel"
            }  # fmt: skip
        for name, (_, kind) in self.components():
            if kind != expected.get(name, kind):
                raise ValueError(f"{self.source.name}'s {name} is a {kind}; expected a {expected[name]}.")
        self._check_sizes()

    def _check_sizes(self) -> None:
        config, vae = self.host_config(), on_meta(read_json(self.source.folder / "vae" / "config.json")).config
        text = read_json(self.source.folder / "text_encoder" / "config.json")
        channels = vae.z_dim if self.is_wan else vae.latent_channels
        accepted = {channels}
        if self.is_wan and not self.known_first_frame:
            accepted.add(2 * channels + vae.scale_factor_temporal)
        if config.get("in_channels") not in accepted:
            raise ValueError(
                f"{self.source.name}'s {self.host_folder.name} takes {config.get('in_channels')} channels; expected"
                f" {' or '.join(map(str, sorted(accepted)))}, with the {channels} of its vae."
            )
        wide, width = config.get("text_dim" if self.is_wan else "cross_attention_dim"), text.get("d_model")
        width = text.get("hidden_size") if width is None else width
        if wide != width:
            raise ValueError(f"{self.source.name}'s host takes text of width {wide}; its text_encoder's is {width}.")
        if config.get("pos_embed_seq_len") is not None:
            raise ValueError(f"{self.source.name} takes a first and a last frame; expected a host of one image.")

    def _check_weights(self) -> None:
        for name, (library, _) in self.components():
            if name not in ("tokenizer", "scheduler", "image_processor"):
                check_weights(self.source.folder / name, library)
        if self.adapter is not None:
            check_motion_adapter(self.adapter, self.host_config())


def check_motion_adapter(adapter: Source, unet: Mapping[str, Any]) -> None:
    """Raise ValueError unless a motion adapter is one, is whole, and fits a U-Net's configuration."""
    path = adapter.folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    if config.get("_class_name") != "MotionAdapter":
        kind = config.get("_class_name", "folder without config.json")
        raise ValueError(f"{adapter.name} is a {kind}; expected a MotionAdapter of AnimateDiff.")
    found, expected = config.get("block_out_channels"), unet.get("block_out_channels")
    if found != expected:
        raise ValueError(f"{adapter.name} is of another U-Net: its block_out_channels is {found}; expected {expected}.")
    check_weights(adapter.folder)
