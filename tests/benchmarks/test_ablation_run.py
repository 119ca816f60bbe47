"""The launcher's runs with the real trainer, at a size of seconds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from benchmarks.ablate import CONFIGS
from benchmarks.ablation_cost import measure_cost, told
from benchmarks.ablation_plan import START, Plan, Scenes
from benchmarks.ablation_run import run_job, scene_settings, scoring_fingerprint
from benchmarks.ablation_subject import TrainedStage
from benchmarks.ablation_table import read_runs
from benchmarks.measures.local_prompts import swapped
from benchmarks.rows import read_rows
from benchmarks.scenes import pair_scene
from stages.settings_loading import load_settings
from ttm.pipelines.embedded import embedded_folder

SIZES = {
    "patch_size": "[1,1,1]", "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 48, "out_channels": 48,
    "text_dim": 128, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two steps of a transformer of random weights, on the embedded autoencoder and text encoder."""
    cache = tmp_path_factory.mktemp("cache")
    common = [
        "host=ttm_tiny", f"host.pipeline={embedded_folder('ttm-tiny')}", "host.num_masked_blocks=1",
        *[f"host.transformer.{name}={value}" for name, value in SIZES.items()],
        "stage=motion_to_video", f"data.cache_dir={cache}", "data.size=32", "data.num_frames=5",
        "data.num_objects=[1,2]",
        "data.shard_size=4", "data.encode_scenes=4", "batch_size=2", "precision=no", "optimizer.lr=1e-2",
        "optimizer.warmup_steps=1", "checkpoint_every=1", "keep_checkpoints=9", "log_every=1", "tracker=none",
    ]  # fmt: skip
    table = OmegaConf.load(CONFIGS / "table" / "attention.yaml")
    rows = {name: list(table.rows[name]) for name in ("ti2v", "none", "both")}
    return Plan(
        "attention", "a small table", "ttm_tiny", rows, [0], 2, 1,
        [*common, "host.num_masked_blocks=0", "motion.left_out=0.5"], common, [("ti2v", "both")], Scenes(1, 1, 0),
        {"num_inference_steps": 1, "guidance_scale": 1.0, "image_guidance_scale": 1.0},
        tmp_path_factory.mktemp("table"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(plan: Plan) -> Plan:
    """Every run made without a stop."""
    for row, seed in plan.jobs:
        run_job(plan, row, seed)
    return plan


def rows_of(plan: Plan, row: str) -> dict[tuple[str, str], dict]:
    return read_rows(plan.run_folder(row, 0), scoring_fingerprint(plan))


def test_a_dry_run_measures_every_row_and_leaves_nothing(whole: Plan, tmp_path: Path) -> None:
    dry = dataclasses.replace(whole, folder=tmp_path / "dry", rows={"both": []})
    costs = measure_cost(dry)
    assert list(costs) == [START, "both"] and all(cost.step > 0 and cost.scene > 0 for cost in costs.values())
    assert (costs["both"].steps, costs["both"].scenes) == (2, 2)
    assert not dry.folder.exists()
    assert "nothing was trained" in told(dry, costs)


def test_all_rows_are_trained_scored_and_tabulated(whole: Plan) -> None:
    runs = read_runs(whole, scoring_fingerprint(whole))
    assert set(runs) == {(START, 0), ("ti2v", 0), ("none", 0), ("both", 0)}
    assert all(value is not None for value in runs["both", 0].values())
    text = (whole.folder / "table.md").read_text(encoding="utf-8")
    assert "ti2v < both" in text and "| PSNR ↑ |" in text
    assert len((whole.folder / "runs.csv").read_text(encoding="utf-8").splitlines()) == 5
    assert list(whole.run_folder("both", 0).glob("*.png"))


def test_every_row_begins_with_the_start(whole: Plan) -> None:
    """The masked branches are zero at first: what a row has changed after its steps is all that sets it apart."""
    from safetensors.torch import load_file

    name = "transformer/diffusion_pytorch_model.safetensors"
    start = load_file(whole.run_folder(START, 0) / name)
    both = load_file(whole.run_folder("both", 0) / name)
    assert set(start) < set(both)
    moved = [float((both[key] - value).abs().max()) for key, value in start.items()]
    assert 0 < max(moved) <= 2 * 1e-2 * 1.5  # AdamW moves a weight by about lr a step


def test_what_sees_no_local_prompt_is_not_changed_by_a_swap(whole: Plan) -> None:
    scene = pair_scene(scene_settings(whole, load_settings(whole.overrides("both", 0))), "pair-000").scene
    changed = {}
    for row in ("ti2v", "none", "both"):
        stage = TrainedStage(load_settings(whole.overrides(row, 0)), whole.sampling)
        made, again = (stage.render(scene, plan, 3) for plan in (scene.plan, swapped(scene.plan)))
        changed[row] = not np.array_equal(made, again)
        assert stage.reads_local_prompts == changed[row]
        values = rows_of(whole, row)["scene", "pair-000"]
        assert changed[row] or values["swapped"] == values["as_asked"]
    assert changed == {"ti2v": False, "none": False, "both": True}


def test_a_run_that_was_killed_ends_with_equal_rows(whole: Plan, tmp_path: Path) -> None:
    """What a kill leaves: an earlier checkpoint, no export, some rows and half of one."""
    killed = dataclasses.replace(whole, folder=tmp_path / "killed")
    shutil.copytree(whole.run_folder(START, 0), killed.run_folder(START, 0))
    run_job(killed, "both", 0)
    expected, folder = rows_of(killed, "both"), killed.run_folder("both", 0)
    assert {key: value["as_asked"] for key, value in expected.items()} == {
        key: value["as_asked"] for key, value in rows_of(whole, "both").items()
    }
    (folder / "finished.json").unlink()
    shutil.rmtree(folder / "transformer")
    shutil.rmtree(sorted((folder / "checkpoints").iterdir())[-1])
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(lines[:2]) + lines[2][:20], encoding="utf-8")
    run_job(killed, "both", 0)
    assert rows_of(killed, "both") == expected


def test_a_folder_of_other_settings_is_refused(whole: Plan) -> None:
    other = dataclasses.replace(whole, steps=3)
    with pytest.raises(ValueError, match=r"other settings or weights \(max_steps\)"):
        run_job(other, "both", 0)
    faster = dataclasses.replace(whole, common=[*whole.common, "optimizer.lr=1e-3"])
    assert read_runs(whole, scoring_fingerprint(whole))
    for plan in (other, faster):
        found = read_runs(plan, scoring_fingerprint(plan))
        assert set(found) == {(START, 0)}, "runs of other settings are in no table that says so"
    assert json.loads((whole.run_folder("both", 0) / "finished.json").read_text())["seconds"] > 0


def test_a_run_from_other_weights_is_refused(whole: Plan) -> None:
    (path,) = (whole.run_folder(START, 0) / "transformer").glob("*.safetensors")
    before = path.read_bytes()
    save_file({name: value * 2 for name, value in load_file(path).items()}, path, {"format": "pt"})
    try:
        with pytest.raises(ValueError, match=r"other settings or weights \(weights\)"):
            run_job(whole, "both", 0)
    finally:
        path.write_bytes(before)
