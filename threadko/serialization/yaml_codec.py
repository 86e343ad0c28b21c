"""YAML, in which a message may hold plain values and nothing that runs code.

The text comes from others, and YAML has small texts that stand for immense values. Such values are
refused where nobody writes them: merge keys, numbers of endless length, aliases in aliases.
"""

from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, ScalarNode

from threadko.exceptions import DecodeError
from threadko.utils.expansion import check_expanded

__all__ = ["dump", "load"]

_MAX_DIGITS = 4300  # as Python's own limit for decimal numbers

_MERGE_TAG = "tag:yaml.org,2002:merge"

# libyaml is much faster where it is at hand.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(Composer, _Parser):  # type: ignore[misc]  # one of two, as installed
    """The safe loader, composing in Python: libyaml's own composer overflows the C stack."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        Composer.__init__(self)

    def flatten_mapping(self, node: MappingNode) -> None:
        """Refuse merge keys: merged into one another, nine lines of them fill any memory."""
        if any(key.tag == _MERGE_TAG for key, _ in node.value):
            raise ConstructorError(None, None, "merge keys are not read", node.start_mark)

    def construct_yaml_int(self, node: ScalarNode) -> Any:
        """Refuse numbers that take longer than all else together."""
        if len(node.value) > _MAX_DIGITS:
            raise ConstructorError(None, None, "a number is too long", node.start_mark)
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def dump(value: Any) -> str:
    """Return a value as YAML."""
    text: str = yaml.dump(value, Dumper=_Dumper)
    return text


def load(text: str) -> Any:
    """Return the value in YAML."""
    loader = _Loader(text)
    try:
        value = loader.get_single_data()
    finally:
        loader.dispose()
    if "*" in text:
        try:
            check_expanded(value)
        except ValueError as exc:
            raise DecodeError(str(exc)) from None
    return value
