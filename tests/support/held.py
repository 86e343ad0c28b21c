"""What a process holds, as the kernel counts it."""

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Held"]


class Held(NamedTuple):
    """Resident memory, threads and open descriptors of a process; needs /proc."""

    kib: int
    threads: int
    descriptors: int

    @classmethod
    def by(cls, pid: int) -> "Held":
        """Look at a process now."""
        status = Path(f"/proc/{pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        return cls(
            kib=int(values["VmRSS"].split()[0]),
            threads=int(values["Threads"]),
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - as short as it gets
        )
