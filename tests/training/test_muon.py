from __future__ import annotations

import pytest
import torch

from speceyes_lib.training.muon import Muon32


def test_matrices_move_along_orthogonal_directions():
    torch.manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(6, 4)) for _ in range(2)]
    before = [m.detach().clone() for m in matrices]
    optimizer = Muon32(matrices, lr=0.1)
    for m in matrices:
        m.grad = torch.randn(6, 4)
    optimizer.step()
    for m, old in zip(matrices, before, strict=True):
        step = (old * (1 - 0.1 * 0.01) - m.detach()) / (0.1 * 0.2 * 6**0.5)
        assert torch.linalg.svdvals(step) == pytest.approx(torch.ones(4), abs=0.35)


def test_matrices_without_a_gradient_stay_and_join_later():
    torch.manual_seed(0)
    late, early = (torch.nn.Parameter(torch.randn(3, 5)) for _ in range(2))
    before = late.detach().clone()
    optimizer = Muon32([late, early], lr=0.1)
    early.grad = torch.randn(3, 5)
    optimizer.step()
    assert torch.equal(late, before)
    late.grad = torch.randn(3, 5)
    optimizer.step()
    alone = torch.nn.Parameter(before.clone())
    alone.grad = late.grad
    Muon32([alone], lr=0.1).step()
    assert torch.allclose(late, alone, atol=1e-6)
