"""Other processes."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver

import pytest


@pytest.fixture(scope="session")
def processes():
    """Return a context whose processes begin as copies of one that has imported PyTorch, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scot_hycnn.solver", "distributed"])
    forkserver.ensure_running()
    return context
