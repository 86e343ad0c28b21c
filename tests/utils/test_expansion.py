"""Values that are larger than they look."""

from typing import Any

import pytest

from threadko.utils.expansion import check_expanded


def nest(levels: int, width: int) -> list[Any]:
    value: list[Any] = ["x"] * width
    for _ in range(levels):
        value = [value] * width
    return value


@pytest.mark.parametrize("value", [None, "x" * 2_000_000, {"a": [1, (2, {3})]}, nest(4, 10)])
def test_what_is_no_larger_than_it_looks_passes(value: Any) -> None:
    check_expanded(value)


@pytest.mark.parametrize("value", [nest(20, 10), {"a": nest(20, 2)}])
def test_what_would_be_immense_in_copies_is_refused_at_once(value: Any) -> None:
    with pytest.raises(ValueError, match="more than 1000000 values"):
        check_expanded(value)


@pytest.mark.parametrize("key", [0, "a"])
def test_what_holds_itself_is_refused(key: Any) -> None:
    value: Any = [None] if key == 0 else {}
    value[key] = {"b": [value]}
    with pytest.raises(ValueError, match="part of"):
        check_expanded(value)
