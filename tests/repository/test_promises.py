"""The page of promises names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/promises.md").read_text("utf-8"))))


def test_there_are_promises():
    assert len(NAMED) > 30


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_test_is_there(file, name):
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    assert name in ["", *(node.name for node in tree.body if isinstance(node, ast.FunctionDef))]
