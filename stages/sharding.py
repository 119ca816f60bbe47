"""A model shared out: every process holds some rows of every parameter (FSDP2, torch's ``fully_shard``).

accelerate starts the processes and gives devices and autocast; the sharding is called here, since accelerate (1.15)
shards on accelerators alone and silently replicates on a CPU: what is tested would not be what is run.

A parameter [R, ...] is cut along its first axis into equal runs of rows, the last ones shorter or empty. Everything
that goes with it (its moments, its average) is cut alike, so that elementwise work needs no other process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from stages.settings import Settings


def is_shared_out(settings: Settings, accelerator: Accelerator) -> bool:
    """Whether a run divides its model: it is told to, and there is more than one process to divide it among."""
    return settings.sharding != "none" and accelerator.num_processes > 1


def check_sharding(settings: Settings) -> None:
    """Refuse before slow work what can't be shared out.

    Raises:
        ValueError: an optimiser that knows whole tensors alone, or a release of torch that is too old.
    """
    if settings.sharding == "none":
        return
    if settings.optimizer.name != "adamw":
        raise ValueError(
            f"sharding is {settings.sharding} and optimizer.name {settings.optimizer.name}; expected adamw:"
            " the others work on whole tensors alone."
        )
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    mixed = settings.memory.weights == "bfloat16" and settings.host.trainable != "all"
    if mixed and release < (2, 7):
        raise ValueError(
            f"torch {torch.__version__} can't share out frozen weights in bfloat16 beside trained ones in float32;"
            " expected torch 2.7 or newer, or memory.weights=float32."
        )


def share_out(model: nn.Module, accelerator: Accelerator, settings: Settings) -> nn.Module:
    """Divide a model's parameters, block by block, and give each process its rows of the main process's values.

    Args:
        model: with values in the main process; elsewhere they are not read.
        settings: ``sharding``: "full", one copy over all processes, or "node", one a machine (processes of a machine
            share it, machines exchange gradients); ``precision``: "bf16" gathers the blocks' weights in bfloat16.
            Gradients are summed in float32 in any case.

    Returns:
        The same model: its parameters are DTensors. It lies on the accelerator's device.
    """
    device, main = accelerator.device, accelerator.is_main_process
    values = {name: tensor.detach() for name, tensor in _tensors(model).items()} if main else {}
    model.to("meta")
    mesh = _mesh(settings.sharding, accelerator)
    # Inputs stay as they are: a timestep or a share of coverage loses its meaning in bfloat16.
    exact = MixedPrecisionPolicy(cast_forward_inputs=False)
    short = torch.bfloat16 if settings.precision == "bf16" else None
    quick = MixedPrecisionPolicy(param_dtype=short, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layers in model.children():
        if isinstance(layers, nn.ModuleList):
            for block in layers:
                fully_shard(block, mesh=mesh, mp_policy=quick)
    fully_shard(model, mesh=mesh, mp_policy=exact)  # what lies outside of blocks: small, and sensitive
    model.to_empty(device=device)
    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            own = local(tensor)
            full = torch.empty(tensor.shape, dtype=own.dtype, device=device)
            if main:
                full.copy_(values.pop(name))
            dist.broadcast(full, src=0)
            own.copy_(full[first_row(tensor) :][: len(own)] if own.ndim else full)
    # As accelerate's prepare does for a model that is not shared out: autocast within, float32 outside.
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=short is not None)
    model.forward = convert_outputs_to_fp32(autocast(model.forward))  # type: ignore[method-assign]
    return model


def gathered(model: nn.Module, empty: nn.Module, is_main: bool) -> nn.Module:
    """The inverse: a whole copy in the CPU's memory of the main process; all of them call it together.

    An accelerator that has room to train has none for a copy of what is frozen in twice the bits.

    Args:
        model: shared out, or not.
        empty: the same model on the meta device; it gets the values, in the main process.
        is_main: whether this is the main process.
    """
    for name, tensor in _tensors(model).items():
        full = whole(tensor)
        if is_main:
            own = full.to("cpu", copy=True)
            owner, _, leaf = name.rpartition(".")
            module = empty.get_submodule(owner)
            if leaf in module._parameters:
                module._parameters[leaf] = nn.Parameter(own, requires_grad=False)
            else:
                module._buffers[leaf] = own
    return empty


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that are not saved too."""
    return dict([*model.named_parameters(), *model.named_buffers()])


def _mesh(sharding: str, accelerator: Accelerator) -> DeviceMesh:
    count, kind = accelerator.num_processes, accelerator.device.type
    if sharding == "full":
        return init_device_mesh(kind, (count,))
    a_node = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if count % a_node:
        raise ValueError(f"{count} processes on machines of {a_node}; expected as many on each for sharding=node.")
    return init_device_mesh(kind, (count // a_node, a_node), mesh_dim_names=("copy", "rows"))


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a tensor, which share its memory; a tensor that is not shared out is its own."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """Where this process's rows begin."""
    if not isinstance(tensor, DTensor):
        return 0
    axis = _axis(tensor)
    each = -(-tensor.shape[0] // tensor.device_mesh.size(axis))
    return min(each * tensor.device_mesh.get_local_rank(axis), tensor.shape[0])


@dataclass(frozen=True)
class Share:
    """Which part of a model a process keeps: number ``index`` of ``count``; ``writes``: no lower rank has the same."""

    index: int
    count: int
    writes: bool


def share_of(tensors: Iterable[Tensor]) -> Share:
    """The share that this process has of some parameters; (0, 1) where they are not shared out."""
    for tensor in tensors:
        if isinstance(tensor, DTensor):
            axis, mesh = _axis(tensor), tensor.device_mesh
            others = [mesh.get_local_rank(other) for other in range(mesh.ndim) if other != axis]
            return Share(mesh.get_local_rank(axis), mesh.size(axis), not any(others))
    return Share(0, 1, not dist.is_initialized() or dist.get_rank() == 0)


def cut_like(rows: Tensor, of: Tensor) -> Tensor:
    """This process's rows as part of a tensor that is cut as ``of`` is."""
    if not isinstance(of, DTensor):
        return rows
    return DTensor.from_local(rows, of.device_mesh, of.placements, run_check=False, shape=of.shape, stride=of.stride())


def whole(tensor: Tensor) -> Tensor:
    """All rows, in every process; all of them call it together."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def forget_gathered(model: nn.Module) -> None:
    """Free what a forward pass without a backward one left gathered; else a change of the rows would go unseen."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _axis(tensor: DTensor) -> int:
    """Which axis of the mesh divides the rows."""
    return next(axis for axis, placement in enumerate(tensor.placements) if placement == Shard(0))
