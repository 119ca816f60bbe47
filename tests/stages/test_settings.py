from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from stages.settings_loading import CONFIG_DIR, load_settings


def test_defaults_and_groups_compose() -> None:
    settings = load_settings(["stage=motion_to_video", "optimizer.lr=3e-4", "time_limit_minutes=5"])
    assert settings.stage.name == "motion_to_video"
    assert settings.optimizer.lr == 3e-4 and settings.optimizer.warmup_steps == 2000
    assert settings.time_limit_minutes == 5
    assert settings.output_dir == "runs/motion_to_video-ttm_tiny"


@pytest.mark.parametrize("group", ["stage", "host", "objective", "motion", "data", "memory"])
def test_every_file_of_a_group_composes(group: str) -> None:
    options = sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
    assert options
    for option in options:
        beside = {  # none of the three goes without the others
            "stage=few_shot": ["data=clips", "objective=epsilon"],
            "data=clips": ["stage=few_shot", "objective=epsilon"],
        }
        beside |= {"motion=none": ["stage=motion_to_video"], "data=prepared": ["data.folder=clips"]}
        settings = load_settings([f"{group}={option}", *beside.get(f"{group}={option}", [])])
        assert getattr(settings, group).name == option


def test_a_host_brings_its_objective_and_the_command_line_has_the_last_word() -> None:
    assert load_settings([]).objective.name == "flow_matching"
    assert load_settings(["host=ttm_tiny_unet"]).objective.name == "v_prediction"
    public = load_settings(["host=animatediff_sd15"])
    assert (public.objective.beta_schedule, public.host.num_masked_blocks) == ("linear", 6)
    chosen = load_settings(["host=animatediff_sd15", "objective=epsilon", "objective.beta_schedule=scaled_linear"])
    assert (chosen.objective.name, chosen.objective.beta_schedule) == ("epsilon", "scaled_linear")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimzer.lr=1", "did you mean 'optimizer.lr'"),
        ("lr=1", "did you mean 'optimizer.lr'"),
        ("max_step=1", "did you mean 'max_steps'"),
        ("+max_step=1", "did you mean 'max_steps'"),
        ("stage=image_to_moton", "did you mean 'image_to_motion'"),
        ("max_steps=many", "max_steps"),
        ("max_steps", "expected key=value"),
        ("~optimizer.lr", "expected key=value"),
        ("max_steps=0", "expected at least 1"),
        ("precision=fp8", "expected one of bf16, no"),
        ("stage.drop_text=0.95", "sum to at most 1"),
        ("stage.corrupted=0.5", "data.corrupted_variants"),
        ("stage.drop_sentence=0.3", "drop_sentence is 0.3 and stage image_to_motion; expected motion_to_video"),
        ("stage.exchanged_names=0.3", "exchanged_names is 0.3 and stage image_to_motion; expected motion_to_video"),
        ("stage.decoded_weight=-1", "decoded_weight is -1.0; expected a number of 0 or more"),
        ("optimizer.betas=[0.9]", "betas is [0.9]; expected two numbers, 0 to below 1"),
        ("optimizer.betas=[0.9,1.0]", "betas is [0.9, 1.0]; expected two numbers, 0 to below 1"),
        ("optimizer.lr=-1", "expected a positive number"),
        ("data.num_objects=[3,1]", "expected"),
        ("ema_decay=1", "expected"),
        ("optimizer.clip_norm=-1", "clip_norm is -1.0; expected at least 0"),
        ("optimizer.clip_norm=nan", "clip_norm is nan; expected at least 0"),
        ("stage.object_weight=-0.5", "object_weight is -0.5; expected at least 0"),
        ("data.num_scenes=0", "num_scenes is 0; expected at least 1"),
        ("data.shard_size=0", "shard_size is 0; expected at least 1"),
        ("data.encode_batch=0", "encode_batch is 0; expected at least 1"),
        ("objective=v_predict", "did you mean 'v_prediction'"),
        ("objective.name=score", "expected one of flow_matching, v_prediction, epsilon"),
        ("objective.beta_end=0.0001", "expected 0 < beta_start < beta_end < 1"),
    ],
)
def test_mistakes_are_named_with_the_remedy(override: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_settings([override])
    assert said in str(caught.value)


def test_a_unet_is_not_compiled() -> None:
    assert load_settings(["compile=true", "host=ttm_tiny"]).compile
    with pytest.raises(ValueError, match="compile is set and host.model unet_motion.*; expected wan"):
        load_settings(["compile=true", "host=ttm_tiny_unet"])


def test_a_typo_in_a_file_is_named_too(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    shutil.copytree(CONFIG_DIR, folder)
    file = folder / "stage" / "image_to_motion.yaml"
    file.write_text(file.read_text() + "\ndrop_txt: 0.2\n")
    with pytest.raises(ValueError, match=r"stage\.drop_txt.*did you mean 'stage\.drop_text'"):
        load_settings([], folder)


def test_hydra_of_the_process_is_left_as_it_was() -> None:
    before = GlobalHydra.instance().hydra
    load_settings([])
    with pytest.raises(ValueError):
        load_settings(["stage.drop_text=2"])
    assert GlobalHydra.instance().hydra is before
