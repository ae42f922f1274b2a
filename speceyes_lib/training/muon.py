"""The optimiser of the embedded models' matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch


class Muon32(torch.optim.Optimizer):
    """Muon in float32, with the learning rate scaled to AdamW's.

    torch's own class computes in bfloat16. On a CPU without instructions for it that takes more than half of a step.
    Source: https://kellerjordan.github.io/posts/muon/
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float = 1e-3) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": 0.95, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    average = self.state[matrix].setdefault("average", torch.zeros_like(matrix))
                    average.lerp_(matrix.grad, 1 - group["momentum"])
                    direction = matrix.grad.lerp(average, group["momentum"])
                    by_shape.setdefault(matrix.shape, []).append((matrix, direction))
            for shape, pairs in by_shape.items():
                size = group["lr"] * 0.2 * math.sqrt(max(shape))
                for (matrix, _), change in zip(
                    pairs, _orthogonal(torch.stack([d for _, d in pairs])), strict=True
                ):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=size)


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """About the nearest matrices [n, rows, columns] with orthogonal rows or columns, by five Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x
