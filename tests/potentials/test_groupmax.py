"""GroupMax as the HyCNN that it is without input skips."""

from __future__ import annotations

import pytest
import torch

from scot_hycnn.potentials import GroupMax, HyCNN
from scot_hycnn.potentials._parameters import unpack

X = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("gate", ["smooth", "max"])
@pytest.mark.parametrize("skip", [True, False])
def test_it_is_a_hycnn_whose_skips_are_zero(gate, skip):
    options = {"n_dims": 3, "hidden": (5, 4, 3), "gate": gate, "quadratic_skip": skip}
    hycnn, groupmax = HyCNN(**options), GroupMax(**options)
    named = unpack(hycnn.init(2, torch.Generator().manual_seed(0)).double(), hycnn.shapes)
    skips = set(hycnn.shapes) - set(groupmax.shapes)
    assert skips == {"W1", "W2", "w"}
    for name in skips:
        named[name].zero_()
    of_hycnn = hycnn.weights(torch.cat([named[name].flatten(1) for name in hycnn.shapes], dim=1))
    of_groupmax = groupmax.weights(torch.cat([named[name].flatten(1) for name in groupmax.shapes], dim=1))
    torch.testing.assert_close(groupmax.value(of_groupmax, X), hycnn.value(of_hycnn, X))
    torch.testing.assert_close(groupmax.gradient(of_groupmax, X), hycnn.gradient(of_hycnn, X))


def test_it_starts_with_the_moments_of_a_hycnn():
    weights = [
        f.weights(f.init(4000, torch.Generator().manual_seed(0)))
        for f in (GroupMax(2, (8, 8), gate="max"), HyCNN(2, (8, 8), gate="max"))
    ]
    for name in ("W0", "V1", "v"):
        for moment in (torch.mean, torch.std):
            torch.testing.assert_close(*(moment(w[name]) for w in weights), rtol=0.03, atol=0.01)
    assert torch.equal(*(w["b1"] for w in weights))


def test_the_quadratic_skip_has_to_be_asked_for():
    assert not GroupMax(n_dims=2).quadratic_skip
    assert HyCNN(n_dims=2).quadratic_skip
