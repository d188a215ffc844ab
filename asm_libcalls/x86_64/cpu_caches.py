"""Size of the CPU's outermost cache, read from Linux's sysfs."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
_USUAL = 32 << 20


def last_level_cache(folder: Path = _FOLDER) -> int:
    """Return the bytes of the outermost data or unified cache; 32 MiB if unknown."""
    sizes = []
    for cache in folder.glob("index*"):
        try:
            if (cache / "type").read_text().strip() != "Instruction":
                level = int((cache / "level").read_text())
                sizes.append((level, _bytes((cache / "size").read_text().strip())))
        except (OSError, ValueError):  # hidden by a hypervisor, or another format
            continue
    return max(sizes)[1] if sizes else _USUAL


def _bytes(size: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    return int(size[:-1]) << units[size[-1]] if size[-1:] in units else int(size)
