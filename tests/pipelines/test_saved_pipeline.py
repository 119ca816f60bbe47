"""Saving and opening: the same results again, and one clear error for what can't be opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray

from ttm import ImageToMotionPipeline, MaskTrajectory, MotionToVideoPipeline, Pipeline, PromptPlan
from ttm.pipelines import embedded, saved_pipeline
from ttm.segmentation import Segmenter

ROOT = Path(__file__).parents[2]
Make = Callable[..., Pipeline]
Seeded = Callable[[int], torch.Generator]
Pixels = NDArray[np.uint8]
BOTH_HOSTS = pytest.mark.parametrize("host", ["wan", "unet"])


@pytest.fixture
def folder(pipe: Pipeline, tmp_path: Path) -> Path:
    pipe.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def _frames(pipe: Any, image: Pixels, masks: Pixels, plan: PromptPlan) -> Pixels:
    generator = torch.Generator().manual_seed(11)
    pipe.set_progress_bar_config(disable=True)
    return pipe(image, plan=plan, masks=masks, generator=generator, output_type="np").frames


def _is_ours(opened: Any, original: Pipeline) -> None:
    assert type(opened) is Pipeline
    for name, module in original.components.items():
        assert type(opened.components[name]) is type(module)
        if isinstance(module, torch.nn.Module):
            assert opened.components[name].dtype == torch.float32
            for key, value in module.state_dict().items():
                assert torch.equal(opened.components[name].state_dict()[key], value), (name, key)


@BOTH_HOSTS
def test_a_saved_folder_opens_to_the_same(
    make_pipeline: Make, tmp_path: Path, image: Pixels, masks: Pixels, plan: PromptPlan
) -> None:
    settings = {
        "num_inference_steps": 3,
        "guidance_scale": 4.5,
        "fps": 12.0,
        "motion_sigmas": "linear_quadratic",
    }
    pipe = make_pipeline(**settings)
    pipe.save_pretrained(tmp_path)
    opened = Pipeline.from_pretrained(tmp_path)
    _is_ours(opened, pipe)
    assert {name: opened.config[name] for name in settings} == settings
    assert opened.segmenter is None
    np.testing.assert_array_equal(_frames(opened, image, masks, plan), _frames(pipe, image, masks, plan))


@pytest.mark.parametrize("how", ["ttm", "diffusers"])
def test_a_fresh_process_makes_the_same_frames(
    pipe: Pipeline, folder: Path, tmp_path: Path, image: Pixels, masks: Pixels, plan: PromptPlan, how: str
) -> None:
    np.savez(tmp_path / "inputs.npz", image=image, masks=masks)
    plan.save(tmp_path / "plan.json")
    opener = {
        "ttm": "from ttm import Pipeline; pipe = Pipeline.from_pretrained('saved')",
        "diffusers": "from diffusers import DiffusionPipeline; "
        "pipe = DiffusionPipeline.from_pretrained('saved', trust_remote_code=True)",
    }[how]
    code = f"""
import numpy, torch
{opener}
from ttm import PromptPlan
data = numpy.load("inputs.npz")
out = pipe(data["image"], plan=PromptPlan.load("plan.json"), masks=data["masks"],
           generator=torch.Generator().manual_seed(11), output_type="np")
numpy.save("frames.npy", out.frames)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "frames.npy"), _frames(pipe, image, masks, plan))


@pytest.mark.parametrize("custom", ["pipeline", "folder", "file"])
def test_the_custom_pipeline_route_of_diffusers(pipe: Pipeline, folder: Path, custom: str) -> None:
    named = {"pipeline": "pipeline", "folder": str(folder), "file": str(folder / "pipeline.py")}[custom]
    opened = DiffusionPipeline.from_pretrained(folder, custom_pipeline=named, trust_remote_code=True)
    _is_ours(opened, pipe)


def test_plain_diffusers_asks_for_trust_and_ttm_does_not(pipe: Pipeline, folder: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(folder)
    _is_ours(Pipeline.from_pretrained(folder), pipe)


@BOTH_HOSTS
def test_weights_at_rest_in_half_precision_are_opened_in_single(pipe: Pipeline, tmp_path: Path) -> None:
    pipe.to(torch.bfloat16).save_pretrained(tmp_path)
    opened = Pipeline.from_pretrained(tmp_path)
    kept = Pipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    plain = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    for name in ("vae", "text_encoder", "motion_transformer", "transformer"):
        assert getattr(opened, name).dtype == getattr(plain, name).dtype == torch.float32
        assert getattr(kept, name).dtype == torch.bfloat16
        for key, value in getattr(pipe, name).state_dict().items():
            assert torch.equal(getattr(opened, name).state_dict()[key], value.float())


@pytest.mark.parametrize("written", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("known", ["dtype", "torch_dtype"])
def test_a_dtype_by_either_name_reaches_every_release_of_diffusers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, written: str, known: str
) -> None:
    """Older releases ignore the name that they do not know; only what is handed on tells them apart."""
    opened, handed = DiffusionPipeline.from_pretrained.__func__, {}  # type: ignore[attr-defined]

    def listening(cls: type[Any], *given: Any, **named: Any) -> Any:
        handed.update(named)
        return opened(cls, *given, **named)

    monkeypatch.setattr(saved_pipeline, "_DTYPE_ARGUMENT", known)
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", classmethod(listening))
    pipe = Pipeline.from_pretrained(folder, **{written: torch.bfloat16})
    assert {name for name in handed if "dtype" in name} == {known}
    assert pipe.transformer.dtype == pipe.text_encoder.dtype == torch.bfloat16


def test_the_index_is_read_as_diffusers_0_37_asks_for_it(folder: Path) -> None:
    assert Pipeline._dict_from_json_file(folder / "model_index.json", dduf_entries=None)["_class_name"] == "Pipeline"


def test_components_and_settings_given_at_opening_win(make_pipeline: Make, pipe: Pipeline, folder: Path) -> None:
    segmented = make_pipeline(with_segmenter=True)
    planner = object()
    opened = Pipeline.from_pretrained(
        folder,
        transformer=pipe.motion_transformer,
        segmenter=segmented.segmenter,
        planner=planner,
        num_frames=9,
    )
    assert opened.transformer is pipe.motion_transformer and opened.segmenter is segmented.segmenter
    assert opened.planner is planner and opened.config.num_frames == 9


@BOTH_HOSTS
def test_the_stages_save_and_open_alone(
    pipe: Pipeline, tmp_path: Path, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    pipe.image_to_motion.save_pretrained(tmp_path / "first")
    pipe.motion_to_video.save_pretrained(tmp_path / "second")
    first = ImageToMotionPipeline.from_pretrained(tmp_path / "first")
    second = DiffusionPipeline.from_pretrained(tmp_path / "second", trust_remote_code=True)
    assert type(second) is MotionToVideoPipeline
    made = first(image, plan, masks, generator=seeded(2)).trajectory
    assert made == pipe.image_to_motion(image, plan, masks, generator=seeded(2)).trajectory
    moves = MaskTrajectory(np.repeat(masks[None], 5, axis=0))
    videos = [
        stage(image, plan, moves, generator=seeded(3), output_type="np").frames
        for stage in (second, pipe.motion_to_video)
    ]
    np.testing.assert_array_equal(*videos)


def test_the_folder_tells_nothing_of_this_machine(pipe: Pipeline, folder: Path, tmp_path: Path) -> None:
    Pipeline.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in (tmp_path / "again").rglob("*"):
        if path.suffix in (".json", ".py"):
            assert str(tmp_path) not in path.read_text(encoding="utf-8"), path
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"model_index.json", "pipeline.py", "transformer/diffusion_pytorch_model.safetensors"} <= names
    assert not [name for name in names if Path(name).suffix in (".bin", ".pt", ".pkl")]


def test_saving_that_fails_leaves_the_old_folder_whole(
    pipe: Pipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight.add_(1)
    monkeypatch.setattr(pipe.transformer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        pipe.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(ValueError, match="safetensors only"):
        pipe.save_pretrained(folder, safe_serialization=False)


def test_push_to_hub_uploads_a_whole_folder(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.utils import hub_utils

    uploaded: dict[str, list[str]] = {}

    class Card:
        def save(self, path: str) -> None:
            Path(path).write_text("card", encoding="utf-8")

    class Repository:
        repo_id = "someone/tiny"

    def upload(repo_id: str, folder_path: str, **options: Any) -> str:
        files = (path for path in Path(folder_path).rglob("*") if path.is_file())
        uploaded[repo_id] = sorted(path.relative_to(folder_path).as_posix() for path in files)
        index = json.loads((Path(folder_path) / "model_index.json").read_text(encoding="utf-8"))
        assert index["_class_name"] == ["pipeline", "Pipeline"]
        return "done"

    monkeypatch.setattr(hub_utils, "create_repo", lambda *arguments, **options: Repository())
    monkeypatch.setattr(hub_utils, "load_or_create_model_card", lambda *arguments, **options: Card())
    monkeypatch.setattr(hub_utils, "populate_model_card", lambda card: card)
    monkeypatch.setattr(hub_utils, "upload_folder", upload)
    assert pipe.push_to_hub("someone/tiny") == "done"
    assert {"README.md", "model_index.json", "pipeline.py", "vae/config.json"} <= set(uploaded["someone/tiny"])


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("size", [0, 5, 60, 4000, -1])
def test_a_truncated_weight_file_is_named(folder: Path, size: int) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    _cut(path, size)
    with pytest.raises(ValueError, match=r"transformer.diffusion_pytorch_model.safetensors is damaged"):
        Pipeline.from_pretrained(folder)


def test_a_weight_file_of_noise_is_named(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))
    with pytest.raises(ValueError, match=r"vae.diffusion_pytorch_model.safetensors is damaged"):
        Pipeline.from_pretrained(folder)


def _index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    change(values)
    (folder / "model_index.json").write_text(json.dumps(values), encoding="utf-8")


def test_what_cannot_be_opened_says_why(pipe: Pipeline, folder: Path, tmp_path: Path) -> None:
    def refused(match: str, name: Any = folder, cls: Any = Pipeline) -> None:
        with pytest.raises(ValueError, match=match):
            cls.from_pretrained(name)

    refused("no model 'ttm-tinny'; expected an embedded one .*folder, or a Hub id", "ttm-tinny")
    refused("no model '/nowhere/at/all'", "/nowhere/at/all")
    refused("There is no folder runs/nothere, and as a Pipeline of the Hub it can't be had", "runs/nothere")
    refused("has no model_index.json", tmp_path)
    refused("holds a Pipeline; expected a ImageToMotionPipeline", cls=ImageToMotionPipeline)
    _index(folder, lambda values: values.update(num_framez=17))
    refused("unknown key 'num_framez'; did you mean 'num_frames'")
    _index(folder, lambda values: values.pop("num_framez"))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "elsewhere")
    refused("can't be opened as a Pipeline: .*diffusion_pytorch_model.safetensors")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    (folder / "scheduler").rmdir()
    refused("scheduler is missing")
    (folder / "model_index.json").write_text("{", encoding="utf-8")
    refused("does not hold JSON")


def test_a_pipeline_without_a_segmenter_takes_an_embedded_ones(pipe: Pipeline, folder: Path, tmp_path: Path) -> None:
    _index(folder, lambda values: values.update(segmenter_from="ttm-tiny"))
    opened = Pipeline.from_pretrained(folder)
    assert isinstance(opened.segmenter, Segmenter)
    segmenter = opened.segmenter
    opened.save_pretrained(tmp_path / "again")  # it stays where it is
    assert opened.segmenter is segmenter
    assert not (tmp_path / "again" / "segmenter").exists()
    index = json.loads((tmp_path / "again" / "model_index.json").read_text(encoding="utf-8"))
    assert index["segmenter_from"] == "ttm-tiny" and index["segmenter"] == [None, None]
    given = Pipeline.from_pretrained(tmp_path / "again", segmenter=segmenter)
    assert given.segmenter is segmenter
    given.save_pretrained(tmp_path / "whole")  # one that was given is saved
    assert (tmp_path / "whole" / "segmenter" / "config.json").is_file()
    _index(folder, lambda values: values.update(segmenter_from="ttm-tinny"))
    with pytest.raises(ValueError, match=r"segmenter_from is 'ttm-tinny'; expected an embedded .*\(ttm-tiny"):
        Pipeline.from_pretrained(folder)


def test_embedded_models_open_by_name(
    pipe: Pipeline, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded, "EMBEDDED", tmp_path)
    assert embedded.embedded_models() == ["saved"]
    opened = Pipeline.from_pretrained("saved")
    _is_ours(opened, pipe)
    assert opened.name_or_path == "saved"


def test_a_hub_id_opens_in_a_fresh_process(pipe: Pipeline, folder: Path, tmp_path: Path) -> None:
    """From a cache in the Hub's layout, as ``hf download`` leaves it; nothing is asked of a network."""
    home = tmp_path / "hub" / "models--someone--tiny"
    (home / "snapshots").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)
    folder.rename(home / "snapshots" / ("a" * 40))
    code = "from ttm import Pipeline; p = Pipeline.from_pretrained('someone/tiny'); print(type(p.transformer).__name__)"
    variables = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [type(pipe.transformer).__name__]


def test_an_argument_that_nothing_knows_is_told(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no argument 'num_frame'; did you mean 'num_frames'"):
        Pipeline.from_pretrained(folder, num_frame=9)


def test_a_module_that_is_not_there_is_told(folder: Path) -> None:
    _index(folder, lambda values: values.update(transformer=["ttm.models.no_such", "Transformer"]))
    with pytest.raises(ValueError, match="names the module 'ttm.models.no_such', which this version does not have"):
        Pipeline.from_pretrained(folder)


def test_a_segmenter_that_is_assigned_later_is_saved(pipe: Pipeline, make_pipeline: Make, tmp_path: Path) -> None:
    without = make_pipeline("wan")
    without.segmenter = None
    without.save_pretrained(tmp_path / "without")
    opened = Pipeline.from_pretrained(tmp_path / "without", segmenter=None)
    opened.segmenter = Segmenter.from_pretrained(embedded.EMBEDDED / "ttm-tiny" / "segmenter")
    opened.save_pretrained(tmp_path / "with")
    assert isinstance(Pipeline.from_pretrained(tmp_path / "with").segmenter, Segmenter)


@pytest.mark.parametrize("first", ["20KB", None])
def test_weights_of_an_earlier_save_do_not_stay_in_force(pipe: Pipeline, tmp_path: Path, first: str | None) -> None:
    """Many files, then one, and the reverse; a variant beside them stays."""
    pipe.save_pretrained(tmp_path / "kept", variant="fp16")
    pipe.save_pretrained(tmp_path / "kept", max_shard_size=first)
    parts = len(list((tmp_path / "kept/transformer").glob("*.safetensors")))
    with torch.no_grad():
        for module in (pipe.transformer, pipe.text_encoder):
            next(module.parameters()).add_(1)
    pipe.save_pretrained(tmp_path / "kept", max_shard_size=None if first else "20KB")
    assert len(list((tmp_path / "kept/transformer").glob("*.safetensors"))) != parts
    _is_ours(Pipeline.from_pretrained(tmp_path / "kept"), pipe)
    assert (tmp_path / "kept/transformer/diffusion_pytorch_model.fp16.safetensors").is_file()
