"""A file in which the workers of many processes enter what they do, for a test to count."""

import os
from collections import Counter
from pathlib import Path

__all__ = ["Ledger"]


class Ledger:
    """Any thread of any process may enter a line; none is lost or torn, however that one ends."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def enter(self, line: object) -> None:
        """Append a line, in one write: the kernel puts it behind all others."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    def count(self) -> Counter[str]:
        """Return how often each line was entered."""
        if not self.path.exists():
            return Counter()
        return Counter(self.path.read_text().splitlines())
