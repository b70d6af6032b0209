"""Whatever fails in a function that writes, and whenever: the AnnData is as it was, or all of the result is there."""

from __future__ import annotations

import errno
import linecache
import random
import sys
import warnings
from functools import partial
from itertools import cycle
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

import scot_hycnn as sh
from scot_hycnn._anndata._write import commit

OURS, ANNDATAS = (str(Path(package.__file__).parent) for package in (sh, anndata))
GAUSSIAN = {"potential": "gaussian"}
WRITERS = {
    "pp.split": partial(sh.pp.split, rng=1),
    "pp.pca": partial(sh.pp.pca, n_comps=3),
    "tl.hycnn_ot": partial(sh.tl.hycnn_ot, source_key="control", target_key="IFN-beta", inverse=True, **GAUSSIAN),
    "tl.hycnn_screen": partial(sh.tl.hycnn_screen, source_key="control", groupby="condition", **GAUSSIAN),
    "tl.transport": partial(sh.tl.transport),
    "tl.decode": sh.tl.decode,
    "tl.project": sh.tl.project,
    "tl.evaluate": partial(sh.tl.evaluate, split_key="split", n_bootstrap=0),
}
ERRORS = (KeyboardInterrupt, MemoryError, partial(OSError, errno.ENOSPC, "No space left on device"))
# The function that assigns.
COMMIT = commit.__code__
# Lines at which a call fails, one after the other; the slow tests try more of them.
N_FAILURES = 6


def test_every_writer_is_here():
    writers = {f"tl.{name}" for name in sh.tl.__all__} | {f"pp.{name}" for name in sh.pp.__all__}
    assert set(WRITERS) == writers


@pytest.fixture(scope="module")
def made(new_cells):
    """Slots of all kinds: some that no writer has any business with, and all that they replace."""
    adata, rng = new_cells(60), np.random.default_rng(1)
    adata.obs["split"] = np.where(rng.random(adata.n_obs) < 0.5, "train", "test")
    adata.obs["split"] = adata.obs["split"].astype("category")
    adata.raw = adata.copy()
    adata.obsp["distances"] = sparse.csr_matrix(rng.random((adata.n_obs, adata.n_obs)) > 0.9)
    adata.varp["correlation"] = np.eye(adata.n_vars)
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2].copy()
    adata.uns["mine"] = {"nested": {"text": "x", "values": np.arange(3)}, "objects": np.array(["a", None], object)}
    for name in ("tl.hycnn_ot", "tl.hycnn_screen", "tl.decode", "tl.project", "tl.evaluate"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            WRITERS[name](adata)
    return adata


@pytest.fixture
def ready(made):
    return made.copy()


def prepared(ready, kind):
    if kind == "view":
        return ready[np.arange(ready.n_obs) != 3]
    adata = ready.copy()
    if kind == "fresh":  # nothing is replaced
        adata.obs = adata.obs[["condition", "n_counts", "split"]]
        del adata.layers["hycnn_ot"], adata.obsm["X_umap_hycnn_ot"], adata.uns["umap_hycnn_ot"]
        del adata.uns["hycnn_ot_evaluation"], adata.obsm["X_hycnn_ot_inverse"]
    return adata


class Failing:
    """Raises an error at the n-th line of the package, or of anndata called by it; None counts the lines."""

    def __init__(self, n=None, error=None):
        # For every line: whether it assigns, and whether it is within the call that assigns.
        self.n, self.error, self.lines, self.assigns = n, error, [], False

    def trace(self, frame, event, _):
        ours = frame.f_code.co_filename.startswith(OURS)
        if not (ours or frame.f_code.co_filename.startswith(ANNDATAS)):
            return None
        if frame.f_code is COMMIT and event in ("call", "return"):
            self.assigns = event == "call"
        if event == "line":
            self.lines.append((ours and self.assigns, self.assigns))
            # Python comes to a line with "with" twice; an error of a tracer there would leave a lock locked, which no
            # interrupt does.
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
            if self.n is not None and self.n <= len(self.lines) and not line.startswith("with "):
                raise self.error()
        return self.trace

    def __call__(self, write, adata):
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            write(adata)
        except BaseException as error:
            if self.n is None or self.n > len(self.lines):
                raise
            return type(error)
        finally:
            sys.settrace(before)
        return None


def fail_everywhere(write, ready, kind, content_of, n_failures):
    """Most failures are among the lines that assign, and anndata's between them."""
    whole, count = prepared(ready, kind), Failing()
    before = content_of(whole)
    count(write, whole)
    complete, draw = content_of(whole), random.Random(kind)
    for fit in ("uns/hycnn_ot", "uns/hycnn_screen"):  # they hold the seconds of the fit
        complete.pop(fit, None)
    lines = range(len(count.lines))
    assigning, among = ([n for n in lines if count.lines[n][k]] for k in range(2))
    chosen = {assigning[0], assigning[-1], lines[-1]}
    for population in (assigning, among, lines):
        chosen |= set(draw.sample(population, min(len(population), n_failures // 3)))
    left = []
    for n, error in zip(sorted(chosen), cycle(ERRORS), strict=False):
        adata = prepared(ready, kind)
        failing = Failing(n + 1, error)
        raised = failing(write, adata)
        after = content_of(adata)
        left.append(after == before)
        assert after == before or complete.items() <= after.items(), n
        # The number of lines varies a little, so the end is recognised by the lines that assign.
        is_over = sum(assigns for assigns, _ in failing.lines) > len(assigning) - 3
        assert after == before or raised is None or is_over, n
    assert any(left)


# Every writer replaces slots; one after the other writes into an AnnData without results, or into a view.
KINDS = [(name, "replacing") for name in WRITERS] + list(zip(WRITERS, cycle(["view", "fresh"]), strict=False))


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.filterwarnings("ignore:Replacing", "ignore:At least .* evaluated cells")
def test_a_failure_at_any_line_leaves_no_trace(ready, content_of, name, kind):
    fail_everywhere(WRITERS[name], ready, kind, content_of, N_FAILURES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replacing", "fresh", "view"])
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("ignore:Replacing", "ignore:At least .* evaluated cells")
def test_a_failure_at_hundreds_of_lines_leaves_no_trace(ready, content_of, name, kind):
    fail_everywhere(WRITERS[name], ready, kind, content_of, 300)


def test_a_warning_made_an_error_leaves_no_trace(ready, unchanged):
    for write in WRITERS.values():
        with unchanged(ready), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.filterwarnings("ignore", "At least .* evaluated cells")
            with pytest.raises(UserWarning, match=r"Replacing .* key_added"):
                write(ready)


@pytest.mark.parametrize("write", [sh.tl.transport, sh.tl.decode], ids=["transport", "decode"])
def test_a_full_disk_leaves_no_store_and_no_trace(ready, unchanged, tmp_path, monkeypatch, write):
    original = anndata.io.write_elem

    def write_elem(*args, **kwargs):
        if not next(written, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(*args, **kwargs)

    monkeypatch.setattr(anndata.io, "write_elem", write_elem)
    for n in (0, 1):
        written = iter([True] * n)
        with unchanged(ready), pytest.raises(OSError, match="No space left"):
            write(ready, output=tmp_path / "moved.zarr")
        assert list(tmp_path.iterdir()) == []
