"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

from scot_hycnn import metrics


@pytest.mark.parametrize("name", metrics.__all__)
def test_examples(name):
    failed, attempted = doctest.testmod(importlib.import_module(f"{metrics.__name__}._{name}"))
    assert attempted > 0
    assert failed == 0
