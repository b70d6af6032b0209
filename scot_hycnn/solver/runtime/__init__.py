"""How fits run: device, threads, batches of maps, checkpoints, clusters, progress."""

from __future__ import annotations
