"""The fitted map: what it predicts, what it is certain of, how it is stored."""

from __future__ import annotations
