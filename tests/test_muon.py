"""Muon: against torch's own, which takes matrices alone, and against AdamW for what is no kernel."""

import pytest
import torch
from torch import nn

from yolite.training import muon
from yolite.training.muon import REACH, Muon, orthogonalise
from yolite.training.optim import build_optimizer


@pytest.mark.parametrize("shape", [(2, 8, 30), (1, 30, 8), (3, 16, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_become_nearly_one(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """The directions are kept: U·Vᵀ of the singular value decomposition is the oracle."""
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrices = u @ torch.diag(torch.logspace(0, -1.5, s.shape[1])) @ v
    found = orthogonalise(matrices, dtype)
    assert found.shape == matrices.shape
    assert found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert 0.7 < float(values.min())
    assert float(values.max()) < 1.3
    assert float(nn.functional.cosine_similarity(found.flatten(1), (u @ v).flatten(1)).min()) > 0.97
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 5), dtype), torch.zeros(1, 4, 5)), "no gradient, no step"


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 32, 288), (1, 64, 16)])
@pytest.mark.parametrize("others", [0.0, 0.001, 0.01, 0.1])
def test_one_direction_alone_is_no_larger_for_it(shape: tuple[int, int, int], others: float) -> None:
    """The quintics explode just above 1, where bfloat16 rounds to when one direction has nearly all of the norm."""
    for seed in range(20):
        torch.manual_seed(seed)
        u, s, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        values = torch.cat((torch.ones(1), torch.rand(s.shape[1] - 1) * others))
        found = orthogonalise(u @ torch.diag(values) @ v, torch.bfloat16)
        assert float(torch.linalg.svdvals(found).max()) < 1.4


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch's own Muon came with 2.9")
def test_kernels_move_as_under_torchs_own_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which has one quintic, five times over."""
    monkeypatch.setattr(muon, "STEPS", ((3.4445, -4.7750, 2.0315),) * 5)
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(6, 20)) for _ in range(2))
    group = {"params": [ours], "orthogonal": True, "weight_decay": 0.1}
    mine = Muon([group], 0.02, (0.9, 0.999), torch.bfloat16)
    larger = REACH / 0.2
    own = torch.optim.Muon([theirs], 0.02 * larger, 0.1 / larger, 0.9, nesterov=True, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(6, 20)
        theirs.grad = ours.grad.clone()
        mine.step()
        own.step()
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # theirs takes the norm in bfloat16
    assert float((ours.detach() - 1).abs().max()) > 0.08, "they moved"


def test_what_is_no_kernel_between_channels_moves_as_under_adamw() -> None:
    """Biases, norms, depthwise kernels and the last convolution; all other kernels do not."""

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(4, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, groups=8, bias=False),
            nn.Conv2d(8, 2, 1),
        )

    nets = [net(), net()]
    optimizers = [build_optimizer(n, name, 0.01, 0.9, 0.05) for n, name in zip(nets, ("muon", "adamw"), strict=True)]
    for step in range(2):
        for n in nets:
            torch.manual_seed(step)
            for parameter in n.parameters():
                parameter.grad = torch.randn_like(parameter)
        for optimizer in optimizers:
            optimizer.step()
    same = {n: torch.equal(p, q) for (n, p), q in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True)}
    assert same.pop("0.weight") is False
    assert all(same.values()), same
