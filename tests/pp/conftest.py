"""A way to see that an AnnData has not changed."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from anndata.tests.helpers import assert_equal


@pytest.fixture
def unchanged():
    """Context manager that checks that an AnnData is as it was."""

    @contextmanager
    def check(adata):
        before, was_view = adata.copy(), adata.is_view
        yield
        assert adata.is_view == was_view
        for slot in ("obs", "var", "obsm", "varm", "uns", "layers"):
            assert list(getattr(adata, slot)) == list(getattr(before, slot))
        after = adata.copy()
        assert type(after.X) is type(before.X)
        np.testing.assert_array_equal(*(cells.to_df() if cells.X is not None else 0 for cells in (after, before)))
        after.X = before.X = None  # NaN is not equal to itself
        assert_equal(after, before, exact=True)

    return check
