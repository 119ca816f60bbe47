"""Low-rank matrices on both hosts: nothing at first; what was learnt stays after merging; new branches have none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.models.conftest import Host
from ttm.models.lora import add_lora, has_lora, merge_lora


def test_lora_adds_nothing_at_first_and_merges_into_a_plain_model(host: Host) -> None:
    model, values = host.trained(), host.inputs()
    before, plain = host.run(model, values), set(model.state_dict())
    add_lora(model, rank=2)
    assert has_lora(model)
    torch.testing.assert_close(host.run(model, values), before)
    added = {name: p for name, p in model.named_parameters() if ".lora_" in name}
    assert added and not any(model._is_adapter_key(name) for name in added)
    assert all(min(p.shape) == 2 for p in added.values())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in added.values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    learnt = host.run(model, values)
    assert (learnt - before).abs().max() > 1e-3
    merge_lora(model)
    assert set(model.state_dict()) == plain and not has_lora(model)
    torch.testing.assert_close(host.run(model, values), learnt, rtol=1e-4, atol=1e-5)
    merge_lora(model)  # nothing is left to merge


def test_what_has_no_attention_is_refused(unet: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="The rank of LoRA is 0; expected at least 1"):
        add_lora(unet.fresh(), 0)
    with pytest.raises(ValueError, match="Linear has no attention that LoRA knows; expected .*to_q"):
        add_lora(nn.Linear(2, 2), 4)
    monkeypatch.setattr("ttm.models.lora.is_peft_available", lambda: False)
    with pytest.raises(ValueError, match="LoRA needs the package peft"):
        add_lora(unet.fresh(), 4)
