"""What can't be a host is refused with one sentence, before anything is written; what can says where it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from stages.from_public import main
from stages.host import build_transformer, load_vae
from stages.settings_loading import load_settings
from tests.stages.public_bases import write_motion_adapter, write_stable_diffusion, write_wan
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.pipelines.motion_to_video import MotionToVideoPipeline

SHARD = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Break = Callable[[Path], Any]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """wan/, sd/, and the motion adapters adapter/ and wide_adapter/."""
    root = tmp_path_factory.mktemp("bases")
    write_wan(root / "wan")
    write_stable_diffusion(root / "sd")
    write_motion_adapter(root / "adapter")
    write_motion_adapter(root / "wide_adapter", (16, 16))
    return root


@pytest.fixture(scope="module")
def folder(bases: Path) -> Path:
    """The folder that wan/ becomes."""
    main([str(bases / "wan"), str(bases / "wan_folder"), "--revision", "v1", "--masked-blocks", "2"])
    return bases / "wan_folder"


def change(name: str, **values: Any) -> Break:
    """Set keys of a JSON file."""

    def apply(base: Path) -> None:
        path = base / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return apply


def as_pickle(base: Path) -> None:
    (base / "vae/diffusion_pytorch_model.safetensors").rename(base / "vae/diffusion_pytorch_model.bin")


def cut_off(base: Path) -> None:
    data = (base / SHARD).read_bytes()
    (base / SHARD).write_bytes(data[:-100])


def naming(place: str) -> Break:
    """The index of the shards names another file, which is there."""

    def spoil(base: Path) -> None:
        path = base / "transformer/diffusion_pytorch_model.safetensors.index.json"
        values = json.loads(path.read_text())
        values["weight_map"][next(iter(values["weight_map"]))] = place.replace("BASE", str(base))
        path.write_text(json.dumps(values))

    return spoil


TWO = {"transformer_2": ["diffusers", "WanTransformer3DModel"], "boundary_ratio": 0.9}
INDEX, CONFIG = "model_index.json", "transformer/config.json"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change(INDEX, _class_name="LTXPipeline"), "is a LTXPipeline; expected one of WanPipeline"),
        (change(INDEX, **TWO), "has two experts .*; expected a base with one transformer"),
        (change(INDEX, vae=["diffusers", "AutoencoderKL"]), "vae/config.json is of a AutoencoderKLWan; expected"),
        (change(INDEX, text_encoder=[None, None]), "names no text_encoder"),
        (lambda base: shutil.rmtree(base / "vae"), "has no folder 'vae'; expected its AutoencoderKLWan"),
        (lambda base: (base / INDEX).unlink(), "has no model_index.json; expected a pipeline in diffusers' layout"),
        (lambda base: (base / INDEX).write_text("[1]"), "holds a list; expected a JSON object"),
        (lambda base: (base / SHARD).unlink(), "lacks diffusion_pytorch_model-00001-of-00002.safetensors"),
        (naming("../text_encoder/model.safetensors"), "index.json names '../text.*; expected safetensors files beside"),
        (naming("BASE/text_encoder/model.safetensors"), "index.json names '/.*; expected safetensors files beside it"),
        (naming("config.json"), "index.json names 'config.json'; expected safetensors files beside it"),
        (cut_off, "00001-of-00002.safetensors is damaged: it has .* bytes; expected"),
        (as_pickle, "vae holds diffusion_pytorch_model.bin, a pickle, which runs code when it is read; expected"),
        (lambda base: (base / "text_encoder/model.safetensors").unlink(), "text_encoder holds no weights; expected"),
        (change("vae/config.json", z_dim=8), "transformer takes 4 channels; expected 8 or 20, with the 8 of its vae"),
        (change("text_encoder/config.json", d_model=32), "takes text of width 16; its text_encoder's is 32"),
        (change(CONFIG, num_layers=5), "transformer lack 'blocks.4.*; expected those of the WanTransformer3DModel"),
        (change(CONFIG, num_layers=3), "transformer also hold 'blocks.3"),
        (change(CONFIG, ffn_dim=64), r"of another size: 'blocks.0.ffn.* is \[32, 24\]; expected \[64, 24\]"),
        (change(CONFIG, pos_embed_seq_len=10), "takes a first and a last frame"),
    ],
)
def test_what_is_no_host_is_refused(bases: Path, tmp_path: Path, spoil: Break, said: str) -> None:
    base = shutil.copytree(bases / "wan", tmp_path / "base")
    spoil(base)
    with pytest.raises(SystemExit, match=said):
        main([str(base), str(tmp_path / "folder")])
    assert not (tmp_path / "folder").exists()


def test_places_and_arguments_that_do_not_fit(bases: Path, tmp_path: Path) -> None:
    def refused(said: str, base: Path | str, *words: str) -> None:
        with pytest.raises(SystemExit, match=said):
            main([str(base), str(tmp_path / "folder"), *words])
        assert not (tmp_path / "folder").exists()

    (tmp_path / "model.ckpt").write_bytes(b"pickled")
    refused("model.ckpt is a pickle; expected a folder in diffusers' layout", tmp_path / "model.ckpt")
    refused("There is no folder '/nowhere/at/all'", "/nowhere/at/all")
    adapter = ("--motion-adapter", str(bases / "adapter"))
    refused("is a WanPipeline, a video model by itself; expected no motion adapter", bases / "wan", *adapter)
    refused("a model of images; expected a --motion-adapter too", bases / "sd")
    wide = ("--motion-adapter", str(bases / "wide_adapter"))
    refused(r"block_out_channels is \[16, 16\]; expected \[8, 16\]", bases / "sd", *wide)
    none = ("--motion-adapter", str(bases / "wan"))
    refused("wan is a folder without config.json; expected a MotionAdapter", bases / "sd", *none)
    refused("--masked-blocks is 9; expected 0 to 4", bases / "wan", "--masked-blocks", "9")


def test_names_from_long_ago_are_read_as_diffusers_reads_them(bases: Path, tmp_path: Path) -> None:
    """The public autoencoder of Stable Diffusion 1.5 was saved before its attention got the names it has now."""
    base = shutil.copytree(bases / "sd", tmp_path / "base")
    path = base / "vae/diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, value in load_file(path).items():
        for new, before in old.items():
            name = name.replace(new, before)
        renamed[name] = value
    assert any(".proj_attn." in name for name in renamed)
    save_file(renamed, path, {"format": "pt"})
    stage = ["--motion-adapter", str(bases / "adapter"), "--stage", "motion_to_video"]
    main([str(base), str(tmp_path / "folder"), *stage])
    found, expected = (load_vae(str(place)).state_dict() for place in (tmp_path / "folder", bases / "sd"))
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_an_output_with_something_in_it_is_left_alone(bases: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="is there already, and not empty; expected a new folder"):
        main([str(bases / "wan"), str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_says_where_its_weights_came_from_and_takes_no_room_twice(bases: Path, folder: Path) -> None:
    record = json.loads((folder / "source.json").read_text())
    identity = {key: record[key] for key in ("source", "revision", "fingerprint")}
    assert (record["source"], record["revision"], record["class"]) == ("wan", "v1", "WanPipeline")
    for name, blocks in (("motion_transformer", 0), ("transformer", 2)):
        config = json.loads((folder / name / "config.json").read_text())
        assert (config["_class_name"], config["num_masked_blocks"]) == ("MaskedWanTransformer3DModel", blocks)
        assert config["base"] == identity and config["condition_channels"] == 8
        assert (folder / name / Path(SHARD).name).samefile(bases / "wan" / SHARD)


def test_one_stage_alone_copied(bases: Path, tmp_path: Path) -> None:
    main([str(bases / "wan"), str(tmp_path / "one"), "--stage", "motion_to_video", "--copy"])
    assert not (tmp_path / "one" / SHARD).samefile(bases / "wan" / SHARD)
    pipe = MotionToVideoPipeline.from_pretrained(tmp_path / "one")
    assert (pipe.transformer.config.num_masked_blocks, pipe.config.num_frames, pipe.config.height) == (1, 81, 480)
    pipe.save_pretrained(tmp_path / "again")
    kept = json.loads((tmp_path / "again/transformer/config.json").read_text())["base"]
    assert kept == pipe.transformer.config.base and kept["source"] == "wan"


def test_a_hub_id_is_recorded_with_its_commit(bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the Hub's cache, in its own layout; nothing is asked of a network."""
    home = tmp_path / "models--owner--tiny-wan"
    shutil.copytree(bases / "wan", home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    (home / "refs/main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    main(["owner/tiny-wan", str(tmp_path / "one"), "--stage", "image_to_motion"])
    main([str(home / "snapshots" / COMMIT), str(tmp_path / "two"), "--stage", "image_to_motion"])
    one, two = (json.loads((tmp_path / name / "source.json").read_text()) for name in ("one", "two"))
    assert (one["source"], one["revision"]) == ("owner/tiny-wan", COMMIT) and one == two
    with pytest.raises(SystemExit, match="owner/other can't be had from the Hub"):
        main(["owner/other", str(tmp_path / "three")])


def test_training_refuses_weights_of_another_class(folder: Path) -> None:
    words = [f"host.pipeline={folder}", f"host.init_from={folder}"]
    with pytest.raises(ValueError, match="holds a MaskedWanTransformer3DModel; expected one of MaskedUNetMotionModel"):
        build_transformer(load_settings(["host=animatediff_sd15", *words]))


def test_adapters_of_another_base_or_kind_of_host_are_refused(bases: Path, folder: Path, tmp_path: Path) -> None:
    open_it: Callable[[Path], Any] = MaskedWanTransformer3DModel.from_pretrained
    open_it(folder / "transformer").save_adapter(tmp_path / "adapter")
    assert set(load_file(tmp_path / "adapter/masked_adapter.safetensors")) == set(
        open_it(folder / "transformer").adapter_state_dict()
    )
    torch.manual_seed(9)
    write_wan(tmp_path / "other", eps=1e-5, ffn_dim=64)
    main([str(tmp_path / "other"), str(tmp_path / "other_folder"), "--masked-blocks", "2"])
    with pytest.raises(ValueError, match=r"was trained on wan at v1 \(.*\); this model extends other \("):
        open_it(tmp_path / "other_folder/transformer").load_adapter(tmp_path / "adapter")
    adapter = ["--motion-adapter", str(bases / "adapter"), "--stage", "motion_to_video"]
    main([str(bases / "sd"), str(tmp_path / "unet"), *adapter])
    unet = MaskedUNetMotionModel.from_pretrained(tmp_path / "unet/transformer")
    unet.save_adapter(tmp_path / "unet_adapter")
    with pytest.raises(ValueError, match="its class is MaskedUNetMotionModel; expected MaskedWanTransformer3DModel"):
        open_it(folder / "transformer").load_adapter(tmp_path / "unet_adapter")
