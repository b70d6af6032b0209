"""Where tensors live."""

from __future__ import annotations

import torch


def resolve_device(name: str) -> torch.device:
    """Device of that name; ``'auto'`` takes the first of cuda, mps and cpu that there is.

    Parameters
    ----------
    name
        'auto', 'cpu', 'cuda', 'cuda:1', 'mps' ...

    Returns
    -------
    The device.

    Raises
    ------
    ValueError
        If PyTorch knows no such device or has none here: there is no silent fall-back to the CPU.

    Examples
    --------
    >>> from scot_hycnn import solver
    >>> solver.resolve_device("cpu")
    device(type='cpu')
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name == "auto":
        return torch.device(present[0])
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"device={name!r} is unknown; choose 'auto' or one of {present}.") from None
    if device.type not in present:
        raise ValueError(
            f"device={name!r} is not available here; PyTorch {torch.__version__} finds {present}. "
            "Choose one of them, or 'auto'."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={name!r} does not exist; there are {torch.cuda.device_count()} CUDA devices.")
    return device
