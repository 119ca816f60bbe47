"""What a table of ablations says, and what is made of its rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from benchmarks.ablate import CONFIGS, open_plan
from benchmarks.ablation_few_shot import FewShotPlan
from benchmarks.ablation_plan import START, Plan
from benchmarks.ablation_scores import METRICS
from benchmarks.ablation_table import verdicts
from benchmarks.few_shot import read_command_line
from benchmarks.measure import Settings
from benchmarks.scenes import pair_scene
from stages.settings_loading import load_settings


@pytest.fixture(autouse=True)
def _hydra_is_free() -> None:
    GlobalHydra.instance().clear()  # an earlier test may have imported sam2


@pytest.mark.parametrize(
    ("table", "host", "rows"),
    [
        ("attention", "ttm_tiny", "ti2v,none,unmasked,cross,self"),
        ("attention", "ttm_tiny_unet", "both"),
        ("representation", "ttm_tiny", "none,masks,flow_attention"),
        ("representation", "ttm_tiny_unet", "optical_flow"),
    ],
)
def test_every_row_of_a_table_is_a_run(table: str, host: str, rows: str) -> None:
    plan, dry_run = open_plan([f"table={table}", f"host={host}", f"rows=[{rows}]", "seeds=[3]"])
    assert isinstance(plan, Plan) and not dry_run and plan.jobs[0] == (START, 0)
    common = None
    for row, seed in plan.jobs:
        settings = load_settings(plan.overrides(row, seed))
        assert settings.stage.name == "motion_to_video" and settings.host.name == host
        assert settings.data.encode_scenes == settings.data.num_scenes > 0, "a fresh checkout has no encoded scenes"
        if row != START:
            begin = settings.host.init_from
            decided = (settings.max_steps, settings.optimizer, settings.data, settings.batch_size, begin)
            common = common or decided
            assert decided == common  # rows differ in what they ablate and in nothing else


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows=[bothh]"], "no row 'bothh'.*did you mean 'both'"),
        (["host=wan_1_3b"], "no host 'wan_1_3b'"),
        (["seeds=[0,0]"], "each once"),
        (["seeds=[]"], "number of seeds"),
        (["table.steps=0"], "steps of table=attention is 0"),
        (["table=nothing"], "table/nothing"),
        (["stepps=3"], "stepps"),
        (["table=few_shot", "rows=[zigzag]"], "did you mean 'zigzags'"),
        (["table=few_shot", "host=ttm_tiny"], "no host 'ttm_tiny'"),
        (["table=few_shot", "seeds=[]"], "seeds is empty"),
    ],
)
def test_bad_input_is_told(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_plan(words)


def test_the_few_shot_table_is_its_programs(tmp_path: Path) -> None:
    asked = ["rows=[turns-back]", "seeds=[1]", "table.arguments.steps=7", "table.arguments.lr=1e-5"]
    asked.append("table.arguments.vary-colours=clip")
    plan, dry_run = open_plan(["table=few_shot", "--dry-run", *asked, f"output={tmp_path}"])
    assert isinstance(plan, FewShotPlan) and dry_run
    assert plan.jobs == [("turns-back", 1)]
    arguments = plan.arguments()
    assert (arguments.output, arguments.steps, arguments.lr) == (tmp_path, 7, 1e-5)
    own = vars(read_command_line([]))
    assert arguments.vary_colours == "clip" != own["vary_colours"]
    assert {**vars(arguments), **{name: own[name] for name in ("output", "steps", "lr", "vary_colours")}} == own


def test_orders_are_counted_seed_by_seed() -> None:
    blank = {metric.name: None for metric in METRICS}
    runs = {
        ("none", 0): {**blank, "PSNR": 10.0, "twins: wrong one acts": 0.5},
        ("none", 1): {**blank, "PSNR": 10.0, "twins: wrong one acts": 0.5},
        ("both", 0): {**blank, "PSNR": 14.0, "twins: wrong one acts": 0.5},
        ("both", 1): {**blank, "PSNR": 9.0, "twins: wrong one acts": 0.75},
        ("both", 2): {**blank, "PSNR": 0.0, "twins: wrong one acts": 0.0},  # no run of the other row has this seed
    }
    found = {verdict.metric: verdict for verdict in verdicts(runs, [("none", "both"), ("none", "absent")])}
    assert set(found) == {"PSNR", "twins: wrong one acts"}
    assert (found["PSNR"].difference, found["PSNR"].agreeing, found["PSNR"].holds) == (1.5, 1, True)
    assert str(found["twins: wrong one acts"]) == "does not hold (0 of 2 seeds)"


def test_who_acts_is_counted_by_kind_and_by_what_was_said() -> None:
    rows = [
        {"kind": "pair", "asked": 1, "as_asked": [0.1, 0.9], "swapped": [0.6, 0.2]},
        {"kind": "pair", "asked": 0, "as_asked": [0.4, 0.7], "swapped": [0.4, 0.7]},
        {"kind": "twins", "asked": 0, "as_asked": [0.5, 0.5]},
    ]
    found = {metric.name: metric.of(rows) for metric in METRICS}
    assert found["pairs: right one acts"] == 0.5 and found["pairs: wrong one acts"] == 0.5
    assert found["swapped: right one acts"] == 1.0 and found["swapped: wrong one acts"] == 0.0
    assert found["twins: right one acts"] == 1.0 and found["twins: lead of the right one"] == 0.0
    assert found["pairs: lead of the right one"] == pytest.approx((0.8 - 0.3) / 2)
    assert found["PSNR"] is None


def test_twins_share_their_name_and_one_of_them_acts() -> None:
    pair = pair_scene(Settings(size=64, num_frames=5), "twins-000")
    first, second = pair.scene.objects
    assert first.phrase == second.phrase and pair.scene.plan.phrases == [first.phrase] * 2
    assert [item.appearance is not None for item in (first, second)] == [pair.asked == 0, pair.asked == 1]
    assert np.count_nonzero(pair.scene.ids[0] == 1) and np.count_nonzero(pair.scene.ids[0] == 2)


def test_a_clusters_jobs_compose() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra 'cluster'")
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        words = ["hydra/launcher=slurm_gpu", "hydra.launcher.partition=gpu", "row=both", "seed=1"]
        config = compose(config_name="ablate", overrides=words, return_hydra_config=True)
    launcher = config.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.partition, launcher.gpus_per_node, launcher.max_num_timeout) == ("gpu", 1, 5)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.ablate", "rows=[nothing]", f"output={tmp_path}"]
    done = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "no row 'nothing'" in done.stderr and "Traceback" not in done.stderr
