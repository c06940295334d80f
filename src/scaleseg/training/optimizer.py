"""The optimiser with the paper's parameter groups, and the learning rate of each step (paper, section 4)."""

from collections.abc import Collection

import torch
from torch import nn

from scaleseg.config import TrainConfig
from scaleseg.errors import UserError
from scaleseg.model import ScaleAware

__all__ = ["create_optimizer", "freeze", "freeze_batch_norm", "has_batch_norm", "rate", "set_rate"]


def create_optimizer(model: ScaleAware, settings: TrainConfig, fresh: Collection[str]) -> torch.optim.Optimizer:
    """Groups by name: {weights, biases} x {pretrained, fresh, fresh fusion}. Biases and norms learn faster, do not decay."""
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = settings.fusion_lr if name.startswith("fusion.") else 1.0
            times = settings.fresh_lr * own if name in fresh else 1.0
            groups.setdefault((name in fresh, times, parameter.ndim == 1), []).append(parameter)
    if not groups:
        raise UserError(
            f"train.freeze is {list(settings.freeze)}: nothing is left to train; leave some layers out of it"
        )
    described = [
        {
            "params": parameters,
            "lr": settings.lr * times * (settings.bias_lr if is_bias else 1),
            "weight_decay": 0.0 if is_bias else settings.weight_decay,
        }
        for (_, times, is_bias), parameters in sorted(groups.items())
    ]
    for group in described:
        group["full_lr"] = group["lr"]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(described, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(described, momentum=settings.momentum)


def rate(settings: TrainConfig, step: int) -> float:
    """The share of the full learning rate at a step, counted from 0."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "step":
        return float(settings.step_factor ** (step // settings.step_every))
    if settings.schedule == "poly":
        horizon = settings.schedule_steps or settings.steps
        return float(max(0.0, 1 - step / horizon) ** settings.poly_power)
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Every group's learning rate to a share of its full one."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * share


def freeze(model: ScaleAware, layers: Collection[str], fresh: Collection[str] = ()) -> None:
    """Layers of the segmenter, all of it (`segmenter`) and `fusion` stay as they are; dropout goes on, as at rate 0 in Caffe.

    UserError for a layer that is not there, and for one with `fresh` parameters: random ones would stay random.
    """
    parts = {"fusion": model.fusion, "segmenter": model.segmenter}
    for layer in layers:
        try:
            module = parts[layer] if layer in parts else model.segmenter.get_submodule(layer or "?")
        except AttributeError:
            known = ", ".join(
                name for name, child in model.segmenter.named_children() if any(True for _ in child.parameters())
            )
            raise UserError(
                f"train.freeze names {layer!r}; this segmenter's layers are {known}; and there are "
                "segmenter, which is all of them, and fusion"
            ) from None
        prefix = f"{layer}." if layer in parts else f"segmenter.{layer}."
        if random := [name for name in fresh if name.startswith(prefix)]:
            raise UserError(
                f"train.freeze names {layer}, but {random[0]} starts at random and would never learn; leave {layer} out "
                "of it, or give train.init_from a checkpoint that has it, for the same classes"
            )
        module.requires_grad_(False)
        freeze_batch_norm(module)


def freeze_batch_norm(model: nn.Module) -> None:
    """Pretrained statistics and gains stay as they are, in training mode too: small batches would spoil them."""
    for module in model.modules():
        if isinstance(module, _NORMS):
            module.eval()
            module.requires_grad_(False)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether there are statistics that training would change."""
    return any(isinstance(module, _NORMS) for module in model.modules())


_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
