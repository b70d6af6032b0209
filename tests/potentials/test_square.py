"""The theory's construction of x^2, with the weights set by hand: the potentials are the functions of the paper."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "_lib" / "square.py"
if not PATH.exists():
    pytest.skip("benchmarks are not part of this distribution", allow_module_level=True)
spec = importlib.util.spec_from_file_location("_square", PATH)
_square = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_square)

WIDTHS = [(2,), (8,), (2, 2), (4, 2), (2, 6), (2, 2, 2, 2), (4, 6, 2), (16, 16), (2,) * 8]


def on_the_line(widths, x):
    f = _square.hycnn(widths)
    weights = f.weights(_square.square(widths))
    points = torch.tensor(x)[None, :, None]
    return f.value(weights, points)[0].numpy(), f.gradient(weights, points)[0, :, 0].numpy()


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_the_error_is_the_one_of_the_theorem(widths):
    n_pieces = int(np.prod(widths))
    x = np.linspace(0, 1, 8 * n_pieces + 1)  # meets the ends and the middle of every piece
    value, _ = on_the_line(widths, x)
    assert np.abs(value - x**2).max() == pytest.approx(_square.error_bound(widths), rel=1e-6)


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_pieces_multiply_with_depth(widths):
    n_pieces = int(np.prod(widths))
    middles = (np.arange(n_pieces) + 0.5) / n_pieces
    _, slopes = on_the_line(widths, middles)
    np.testing.assert_allclose(slopes, 2 * middles, atol=1e-9)


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_weights_between_layers_are_not_negative(widths):
    f = _square.hycnn(widths)
    weights = f.weights(_square.square(widths))
    assert all((w >= 0).all() for name, w in weights.items() if name[0] in "Vv")
    assert all(w.isfinite().all() for w in weights.values())


def test_odd_widths_are_refused():
    with pytest.raises(ValueError, match=r"widths=\(2, 3\) must be even"):
        _square.square((2, 3))
