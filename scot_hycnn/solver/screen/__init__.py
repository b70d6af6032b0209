"""One model for all conditions of a screen: shared networks, weights of each condition, and unseen conditions."""

from __future__ import annotations
