"""The choice between the networks and the Gaussian map."""

from __future__ import annotations
