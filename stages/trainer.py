"""The training loop, the only one; it knows no stage, no host and no objective.

Read :meth:`Trainer.train` top to bottom. Sample ``i`` of a run (i = step * batch_size + place) has its clip, noise,
noise level and dropout from (seed, i) alone; processes and micro-batches only divide the samples of a step among
themselves. A checkpoint therefore holds weights, their average and the optimiser's state, and nothing random; any
number of processes goes on from it. A model that is shared out (stages/sharding.py) trains by the same lines.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.attention_kernel import attention_kernel
from stages.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from stages.decoded_error import DecodedError
from stages.disk_space import expect_space
from stages.draws import dropped, noise_like
from stages.objectives import Objective, weighted_error
from stages.optimization import EMA, build_optimizer, learning_rate
from stages.processes import AllOf
from stages.settings import Settings
from stages.sharding import forget_gathered, is_shared_out, local, share_out, whole
from stages.task import Task
from stages.tracking import Tracker, clock, memory_in_use
from stages.validation import Drawn, mean_scores
from stages.whole_files import prepare_output, remove_leftovers

Sampler = Callable[[nn.Module, int, int], dict[int, Drawn]]


@dataclass(frozen=True)
class Finished:
    """How a run ended: at which step, whether that was max_steps, and the loss of the last logged interval."""

    step: int
    complete: bool
    loss: float


class Trainer:
    """One run.

    Args:
        settings: of the run.
        accelerator: owns devices, processes and autocast.
        model: the transformer; its trainable parameters are those that require a gradient.
        task: the samples.
        objective: noise levels and targets.
        sampler: of a model, this process's number and their count: draws its share of the validation clips, by
            their numbers; None = never.
        decoded_error: of what a prediction looks like, weighed by ``stage.decoded_weight``; None = not looked at.
        began: ``time.monotonic()`` when the program began, which ``time_limit_minutes`` counts from.

    Raises:
        ValueError: a batch that the processes can't divide; a checkpoint of another model.
        OSError: the output folder can't be written, or lacks the space of its checkpoints.
    """

    def __init__(
        self,
        settings: Settings,
        accelerator: Accelerator,
        model: nn.Module,
        task: Task,
        objective: Objective,
        sampler: Sampler | None = None,
        decoded_error: DecodedError | None = None,
        began: float | None = None,
    ) -> None:
        self.settings, self.accelerator, self.task, self.objective = settings, accelerator, task, objective
        self.sampler, self.decoded_error = sampler, decoded_error
        self.began = time.monotonic() if began is None else began
        self.folder = Path(settings.output_dir)
        self.per_process, self.micro = divide_batch(settings, accelerator.num_processes)
        self.processes = AllOf(accelerator)
        shared_out = is_shared_out(settings, accelerator)
        self.model = share_out(model, accelerator, settings) if shared_out else model.to(accelerator.device)
        self.model.train()
        self.named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.optimizer = build_optimizer(self.named, settings.optimizer)
        self.ema = EMA(self.named, settings.ema_decay)
        self.step = self._resume()
        if accelerator.is_main_process:
            for folder in (self.folder, self.folder / "checkpoints"):
                remove_leftovers(folder)
            prepare_output(self.folder)
            expect_space(settings, self.model, self.step)
        accelerator.wait_for_everyone()
        self.wrapped = self.model if shared_out else accelerator.prepare(self.model)
        self._stop = False

    def train(self) -> Finished:
        """Train from the last checkpoint (or step 0) to ``max_steps``, or until a time limit or a SIGTERM."""
        settings, main = self.settings, self.accelerator.is_main_process
        tracker = Tracker(self.folder, settings.tracker, self.step, asdict(settings)) if main else None
        if tracker is not None:
            tracker.say(self._greeting())
        first, last_loss = self.step, math.nan
        losses, norms, since, since_step = [], [], time.monotonic(), self.step
        with self._signals():
            while self.step < settings.max_steps and not self._must_stop():
                rate = learning_rate(self.step, settings.optimizer, settings.max_steps)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                losses.append(self._accumulate())
                clip = settings.optimizer.clip_norm or math.inf
                norms.append(whole(torch.nn.utils.clip_grad_norm_([p for _, p in self.named], clip)))
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.ema.update(self.named, self.step)
                self.step += 1
                saves = self.step % settings.checkpoint_every == 0
                if self.step % settings.log_every == 0 or saves or self.step == settings.max_steps:
                    last_loss, norm = self._finite_means(losses, norms)
                    memory = self._most_memory()
                    if tracker is not None:
                        pace = (time.monotonic() - since) / (self.step - since_step)
                        self._report(tracker, last_loss, norm, rate, pace, memory)
                    losses, norms, since, since_step = [], [], time.monotonic(), self.step
                if saves:
                    self._save()
                if self.sampler is not None and self.step % settings.sample_every == 0:
                    begin = time.monotonic()
                    self._show(tracker)
                    since += time.monotonic() - begin  # which was no training
        if losses:  # stopped between two logs: what was not looked at yet
            last_loss, _ = self._finite_means(losses, norms)
        if self.step > first:
            self._save()
        if tracker is not None:
            tracker.close()
        return Finished(self.step, self.step >= settings.max_steps, last_loss)

    def _accumulate(self) -> Tensor:
        """Gradients of this process's part of one step; returns its mean loss."""
        accelerator, settings = self.accelerator, self.settings
        begin = self.step * settings.batch_size + accelerator.process_index * self.per_process
        count = self.per_process // self.micro
        total = torch.zeros((), device=accelerator.device)
        for part in range(count):
            indices = np.arange(begin + part * self.micro, begin + (part + 1) * self.micro, dtype=np.int64)
            # Processes exchange gradients once a step, with the last micro-batch; but of a model that is shared out
            # none has room for all gradients, and they are summed and divided after each.
            quiet = accelerator.no_sync(self.wrapped) if part < count - 1 else contextlib.nullcontext()
            with quiet, attention_kernel(settings.attention, accelerator.device, settings.precision):
                loss = self._loss(indices) / count
                accelerator.backward(loss)
            total += loss.detach()
        return total

    def _loss(self, indices: NDArray[np.int64]) -> Tensor:
        """The loss of some samples, a function of their global indices and the weights."""
        stage, seed, device = self.settings.stage, self.settings.seed, self.accelerator.device
        batch = self.task.batch(indices)
        without_text, without_visual = dropped(seed, indices, stage.drop_text, stage.drop_visual, stage.drop_both)
        with_visual, with_text = torch.from_numpy(~without_visual), torch.from_numpy(~without_text)
        nothing = (self.task.nothing, self.task.nothing_mask)
        conditions = batch.conditions.keep(with_visual, with_text, *nothing)
        noise = torch.from_numpy(noise_like(seed, indices, tuple(batch.data.shape[1:])))
        levels = self.objective.levels(seed, indices)
        noisy, timesteps = self.objective.noisy(batch.data, noise, levels)
        target = self.objective.target(batch.data, noise, levels).to(device)
        clean = batch.clean_frames
        noisy = torch.cat([batch.data[:, :, :clean], noisy[:, :, clean:]], dim=2)
        inputs = {name: None if v is None else v.to(device) for name, v in conditions.inputs(torch.float32).items()}
        prediction = self.wrapped(noisy.to(device), timesteps.to(device), **inputs, return_dict=False)[0]
        weights = None
        if stage.object_weight > 0:
            weights = (1 + stage.object_weight * batch.covered[:, :, clean:]).to(device)
        importance = self.objective.importance(levels)
        importance = None if importance is None else importance.to(device)
        loss = weighted_error(prediction[:, :, clean:], target[:, :, clean:], weights, importance)
        if self.decoded_error is not None:
            estimate = self.objective.data(noisy.to(device), prediction.float(), levels.to(device))
            with self.accelerator.autocast():
                loss = loss + stage.decoded_weight * self.decoded_error(estimate, batch, indices)
        return loss

    def _resume(self) -> int:
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        if checkpoint is None:
            return 0
        own = dict(self.named)
        expected = {name: tuple(p.shape) for name, p in own.items()}
        found = {name: checkpoint.model.shape(name) for name in checkpoint.model}
        if expected != found:
            differing = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
            raise ValueError(
                f"{self.folder} holds a run of another model ({len(differing)} tensors differ, {differing[0]!r} first);"
                " expected the same stage and host settings, or another output_dir."
            )
        with torch.no_grad():
            for name, parameter in own.items():
                local(parameter).copy_(checkpoint.model.own(name, parameter))
                local(self.ema.average[name]).copy_(checkpoint.ema.own(name, parameter))
        load_optimizer_tensors(self.optimizer, self.named, checkpoint.optimizer)
        return int(checkpoint.state["step"])

    def _save(self) -> None:
        state = {
            "step": self.step,
            "samples": self.step * self.settings.batch_size,
            "num_scenes": self.task.num_scenes,
            "settings": asdict(self.settings),
        }
        model = {name: p.detach() for name, p in self.named}
        checkpoint = Checkpoint(model, self.ema.average, optimizer_tensors(self.optimizer, self.named), state)
        save_checkpoint(self.folder / "checkpoints", checkpoint, self.settings.keep_checkpoints, self.processes)

    def _finite_means(self, losses: list[Tensor], norms: list[Tensor]) -> tuple[float, float]:
        """Mean loss and gradient norm since the last look.

        Raises:
            FloatingPointError: one of them is not finite, in all processes alike; nothing of it is saved.
        """
        loss, norm = self._mean(losses), float(torch.stack(norms).mean())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"loss {loss}, gradient norm {norm} at step {self.step}; expected finite numbers."
                " The last checkpoint is from before; lower optimizer.lr or clip_norm and start again."
            )
        return loss, norm

    def _mean(self, losses: list[Tensor]) -> float:
        mean = torch.stack(losses).mean()
        return float(self.accelerator.reduce(mean, "mean"))

    def _most_memory(self) -> float:
        """Of the process that has held most, GB."""
        held = torch.tensor([memory_in_use(self.accelerator.device)], device=self.accelerator.device)
        return float(self.accelerator.gather(held).max())

    def _must_stop(self) -> bool:
        limit = self.settings.time_limit_minutes
        stop = self._stop or (limit is not None and time.monotonic() - self.began > 60 * limit)
        if self.accelerator.num_processes > 1:  # all of them stop at the same step, or the others wait for ever
            flag = torch.tensor(float(stop), device=self.accelerator.device)
            stop = bool(self.accelerator.reduce(flag, "sum") > 0)
        return stop

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and the first SIGINT end the run after the step, with a checkpoint."""

        def ask(number: int, frame: Any) -> None:
            self._stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not in the main thread: whoever runs us there handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model with the moving average in place of its weights, in evaluation mode."""
        kept = {name: local(p).clone() for name, p in self.named}
        self.ema.copy_to(self.model)
        self.model.eval()
        try:
            yield self.model
        finally:
            forget_gathered(self.model)
            with torch.no_grad():
                for name, p in self.named:
                    local(p).copy_(kept[name])
            self.model.train()

    def _show(self, tracker: Tracker | None) -> None:
        """Draw the validation clips, each process its share, with the averaged weights; keep them and their scores."""
        assert self.sampler is not None
        with self.averaged() as model, torch.no_grad():
            own = self.sampler(model, self.accelerator.process_index, self.accelerator.num_processes)
        drawn = dict(gather_object(list(own.items())))
        if tracker is not None:
            clips = [drawn[number] for number in sorted(drawn)]
            tracker.videos(self.step, "samples", [clip.beside_truth() for clip in clips])
            tracker.numbers(self.step, mean_scores(clips), "validation")

    def _greeting(self) -> str:
        trained = sum(p.numel() for _, p in self.named)
        processes = self.accelerator.num_processes
        return (
            f"{self.settings.stage.name}: {trained / 1e6:.2f}M trained parameters, {self.task.num_scenes} scenes,"
            f" {processes} process(es) x {self.per_process // self.micro} x {self.micro} clips,"
            f" {torch.get_num_threads()} threads, from step {self.step} to {self.settings.max_steps}"
        )

    def _report(self, tracker: Tracker, loss: float, norm: float, rate: float, pace: float, memory: float) -> None:
        left = pace * (self.settings.max_steps - self.step)
        limit = self.settings.time_limit_minutes
        if limit is not None:
            left = min(left, max(0.0, 60 * limit - (time.monotonic() - self.began)))
        clips = self.settings.batch_size / pace
        tracker.say(
            f"step {self.step}/{self.settings.max_steps}  loss {loss:.4f}  gradient {norm:.3f}  lr {rate:.2e}"
            f"  {clips:.1f} clips/s  {memory:.1f} GB  {clock(left)} left"
        )
        values = {"loss": loss, "gradient_norm": norm, "lr": rate, "clips_per_second": clips, "memory_gb": memory}
        tracker.numbers(self.step, values | {"samples": float(self.step * self.settings.batch_size)})


def divide_batch(settings: Settings, processes: int) -> tuple[int, int]:
    """Clips of a step a process, and of a forward pass.

    Raises:
        ValueError: the division leaves a rest.
    """
    if settings.batch_size % processes:
        raise ValueError(f"batch_size is {settings.batch_size}; expected a multiple of {processes} processes.")
    per_process = settings.batch_size // processes
    micro = settings.micro_batch_size or per_process
    if micro < 1 or per_process % micro:
        raise ValueError(
            f"micro_batch_size is {micro}; expected a divisor of the {per_process} clips that each process has."
        )
    return per_process, micro
