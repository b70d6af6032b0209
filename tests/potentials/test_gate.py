"""The smooth maximum: known values, extreme differences, derivatives of both outputs."""

from __future__ import annotations

import pytest
import torch

from scot_hycnn.potentials._gate import smooth_max


@pytest.fixture
def branches():
    generator = torch.Generator().manual_seed(0)
    return [5 * torch.randn(2, 20, 3, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_it_is_logaddexp_with_the_sigmoid_as_slope(branches):
    a, b = branches
    z, slope = smooth_max(a, b)
    torch.testing.assert_close(z, torch.logaddexp(a, b), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(slope, torch.sigmoid(a - b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_differences_are_the_maximum_itself(dtype):
    large = torch.tensor([1e4, -1e4, 0.0, 1e4, -1e4, 80.0, -80.0], dtype=dtype)
    other = torch.tensor([-1e4, 1e4, 1e4, 1e4, -1e4, 0.0, 0.0], dtype=dtype)
    z, slope = smooth_max(large, other)
    torch.testing.assert_close(z, torch.logaddexp(large, other))
    torch.testing.assert_close(slope[:5], torch.tensor([1.0, 0.0, 0.0, 0.5, 0.5], dtype=dtype))


def test_it_is_symmetric_and_its_slopes_add_to_one(branches):
    a, b = branches
    (z, slope), (mirrored, other) = smooth_max(a, b), smooth_max(b, a)
    torch.testing.assert_close(z, mirrored)
    torch.testing.assert_close(slope + other, torch.ones_like(slope))


def test_both_outputs_have_the_right_derivatives(branches):
    a, b = (branch[0].clone().requires_grad_() for branch in branches)
    assert torch.autograd.gradcheck(smooth_max, (a, b))
    assert torch.autograd.gradgradcheck(smooth_max, (a, b))


def test_derivatives_stay_finite_where_one_branch_is_far_ahead():
    a = torch.tensor([1e4, -1e4], requires_grad=True)
    b = torch.tensor([-1e4, 1e4], requires_grad=True)
    z, slope = smooth_max(a, b)
    along_a, along_b = torch.autograd.grad(z.sum() + slope.sum(), (a, b))
    assert along_a.tolist() == [1, 0]
    assert along_b.tolist() == [0, 1]


@pytest.mark.parametrize("which", [(True, False), (False, True)])
def test_one_branch_may_be_fixed(branches, which):
    inputs = [branch.clone().requires_grad_(needs) for branch, needs in zip(branches, which, strict=True)]
    z, _ = smooth_max(*inputs)
    z.sum().backward()
    free = inputs[which.index(True)]
    torch.testing.assert_close(free.grad, torch.sigmoid(free - inputs[which.index(False)]).detach())


def test_with_and_without_autograd_agree_and_inputs_stay_untouched(branches):
    copies = [branch.clone() for branch in branches]
    plain = smooth_max(*branches)
    recorded = smooth_max(*(branch.clone().requires_grad_() for branch in branches))
    for left, right in zip(plain, recorded, strict=True):
        assert torch.equal(left, right)
    for branch, copy in zip(branches, copies, strict=True):
        assert torch.equal(branch, copy)
