"""What a process tells of itself, for a test that looks for leaks."""

import os
import threading
from pathlib import Path
from typing import Any

__all__ = ["describe"]


def describe(client: Any) -> dict[str, Any]:
    """Return the process id, our threads, the open descriptors, and the calls that wait."""
    names = [thread.name for thread in threading.enumerate()]
    return {
        "pid": os.getpid(),
        "threads": sorted(name for name in names if name.startswith("threadko-")),
        "descriptors": len(list(Path("/dev/fd").iterdir())),
        "pending": client.pending,
    }
