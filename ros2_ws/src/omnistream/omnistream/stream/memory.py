# SPDX-License-Identifier: Apache-2.0
"""How much memory there is, so that a stream that does not fit is refused before it takes any."""

from __future__ import annotations

from pathlib import Path

import torch

from omnistream.errors import EngineError

MIB = 1 << 20


def check_fits(need: int, what: str, device: str) -> None:
    """Raise EngineError with both numbers if `need` bytes are more than what is free on `device`."""
    free = available_bytes(torch.device(device))
    if free is not None and need > free:
        raise EngineError(
            f"not enough memory on {device}: {what} takes {need / MIB:.0f} MiB, free are {free / MIB:.0f} MiB; "
            "a shorter policy (window:W), a smaller image_size or a smaller model needs less"
        )


def available_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU, or of this machine within its container's limit; None where the system does not say."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch gives it back first
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    known = [value for value in (_machine(), _container()) if value is not None]
    return min(known) if known else None


def _machine(path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    line = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def _container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """cgroup v2: the limit, less what is used and cannot be given back (file pages can)."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(statistics.get("file", 0)))
