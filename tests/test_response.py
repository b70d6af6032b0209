"""The test for a response: its p values beyond those that permutations can give."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scot_hycnn._response import energy_of_parts, moments_of_divisions


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 4), (5, 3), (4, 6)])
def test_moments_are_those_of_all_divisions(n, m):
    cells = np.random.default_rng(n).gamma(1.0, size=(n + m, 2))
    between = cdist(cells, cells)
    divisions = np.array([np.isin(np.arange(n + m), first) for first in combinations(range(n + m), n)], dtype=float)
    distances = energy_of_parts(between, divisions)
    assert distances.mean() == pytest.approx(0, abs=1e-12)
    assert moments_of_divisions(between, n) == pytest.approx(((distances**2).mean(), (distances**3).mean()))
