"""How large a value is if what lies in several places counts in each.

A few lines of YAML with aliases in aliases make a value that takes little memory, until something
walks through it.
"""

from typing import Any

__all__ = ["check_expanded"]

_MAX_EXPANDED = 1_000_000  # guessed


def check_expanded(value: Any) -> None:
    """Raise `ValueError` if a value holds itself, or would hold a million values in copies."""
    _Expansion().count(value)


class _Expansion:
    """Counts the values that there would be if each alias were a copy."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}  # of lists and mappings, by id; 0 within their own count

    def count(self, value: Any) -> int:
        """Return how many values are in `value`."""
        if isinstance(value, dict):
            items: Any = (item for pair in value.items() for item in pair)
        elif isinstance(value, (list, tuple, set)):
            items = value
        else:
            return 1
        size = self._sizes.get(id(value))
        if size == 0:
            raise ValueError("an alias stands for what it is part of")
        if size is None:
            self._sizes[id(value)] = 0
            size = self._sizes[id(value)] = 1 + sum(map(self.count, items))
            if size > _MAX_EXPANDED:
                raise ValueError(f"aliases stand for more than {_MAX_EXPANDED} values")
        return size
