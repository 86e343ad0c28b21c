"""Configuration as text: YAML files, ``KEY=VALUE`` from the command line, values of variables.

Error texts name files, lines and keys, never values: those may be passwords. For the same reason
they have no cause, for PyYAML's errors quote the line that they are about.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from threadko.configuration.substitution import OPENING, substitute
from threadko.exceptions import ConfigurationError
from threadko.utils.expansion import check_expanded

__all__ = ["dump", "load_file", "parse_define", "parse_value"]

#: What PyYAML's constructors raise about a value that its tag does not allow, such as 2026-02-30.
_VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

#: What a plain scalar has that is no other type; `=` and `<<` have tags of their own.
_STRING_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "value", "merge"))

# Where PyYAML's words end and a word of the text begins.
_QUOTING = re.compile(r"(\b(?:alias|anchor|handle|tag)\b) '.*", re.DOTALL)


def load_file(
    path: str | os.PathLike[str], environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping.

    Variables in it are those of `environ`, by default of the process.

    Raises `ConfigurationError` if the file cannot be read or holds anything else.
    """
    name = os.fspath(path)
    source = f"configuration file {name!r}"
    try:
        text = pathlib.Path(path).read_bytes()
    except OSError as exc:
        reason = exc.strerror or exc
        raise ConfigurationError(f"cannot read {source}: {reason}") from exc
    with _errors_in_one_line(source, text):
        loader = _FileLoader(text, source, os.environ if environ is None else environ)
        data = loader.get_single_data()
        if b"*" in text:
            _check_aliases(data)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigurationError(
            f"{source} must hold a mapping of keys to values, not a {type(data).__name__}"
        )
    for key in data:
        if not isinstance(key, str):
            raise ConfigurationError(
                f"{source}: the key {key!r} must be a string; put it in quotes"
            )
    return data


def parse_define(text: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`, the value read by `parse_value`.

    `KEY` alone is True, `KEY=` is None. Raises `ConfigurationError` if it cannot be read.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not key:
        raise ConfigurationError("a definition must be KEY=VALUE, and its key is missing")
    return key, parse_value(value, f"the value defined for {key}") if equals else True


def parse_value(text: str, source: str) -> Any:
    """Return the value that a text means in YAML; nothing is None.

    A text that is no more than a string is taken as it stands: with line ends, and with what YAML
    would cut off as a comment.

    Raises `ConfigurationError`, which begins with `source`, if it cannot be read.
    """
    with _errors_in_one_line(source):
        return _parse_value(text)


def dump(entries: Mapping[str, Any]) -> str:
    """Return YAML that means these entries, in their order."""
    shown: str = yaml.dump(
        dict(entries), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    return shown


class _Dumper(yaml.SafeDumper):
    """Writes what the checks of `settings` return too, and nothing in two places by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    node: yaml.ScalarNode = dumper.represent_str(text)
    if "${" in text:
        node.style = "'"  # read again without quotes, it would be substituted
    return node


_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)
_Dumper.add_representer(str, _represent_text)


def _parse_value(text: str) -> Any:
    text = text.strip()
    if text.startswith("#"):
        return text
    loader = _ValueLoader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if _is_plain_string(node) and text[0] not in "!&":  # those begin a tag and an anchor
        return text
    value = loader.construct_document(node)
    if "*" in text:
        _check_aliases(value)
    return value


def _check_aliases(value: Any) -> None:
    try:
        check_expanded(value)
    except ValueError as exc:
        raise yaml.constructor.ConstructorError(problem=str(exc)) from None


def _is_plain_string(node: yaml.Node) -> bool:
    return (
        isinstance(node, yaml.ScalarNode)
        and node.tag in _STRING_TAGS
        and node.style is None
        and node.start_mark.index == 0
    )


class _ValueLoader(yaml.SafeLoader):
    """YAML with its standard tags, whose errors have a place."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _VALUE_ERRORS:
            raise yaml.constructor.ConstructorError(
                problem="this is no value of its kind", problem_mark=node.start_mark
            ) from None


class _FileLoader(_ValueLoader):
    """YAML with variables in plain scalars, and after ``!env_var`` and ``!raw_env_var``."""

    def __init__(self, text: bytes, source: str, environ: Mapping[str, str]) -> None:
        super().__init__(text)
        self._source = source
        self._environ = environ

    def construct_env_var(self, node: yaml.ScalarNode) -> Any:
        text = self.construct_scalar(node)
        replaced = self._substitute(text, node)
        if replaced == text:
            return text
        try:
            return _parse_value(replaced)
        except (yaml.YAMLError, RecursionError):
            problem = (
                "with its variables in place the value is not valid YAML; "
                "to keep it a string, put !raw_env_var before it"
            )
            raise self._error(problem, node) from None

    def construct_raw_env_var(self, node: yaml.ScalarNode) -> str:
        return self._substitute(self.construct_scalar(node), node)

    def _substitute(self, text: str, node: yaml.ScalarNode) -> str:
        try:
            return substitute(text, self._environ)
        except ConfigurationError as exc:
            problem = f"{exc}; quotes without a tag keep a value as it is"
            raise self._error(problem, node) from None

    def _error(self, problem: str, node: yaml.ScalarNode) -> ConfigurationError:
        return ConfigurationError(f"{self._source}, line {node.start_mark.line + 1}: {problem}")


_FileLoader.add_constructor("!env_var", _FileLoader.construct_env_var)
_FileLoader.add_constructor("!raw_env_var", _FileLoader.construct_raw_env_var)
# None: whatever the scalar begins with.
_FileLoader.add_implicit_resolver("!env_var", re.compile(r".*\$\{", re.DOTALL), None)


@contextlib.contextmanager
def _errors_in_one_line(source: str, text: bytes = b"") -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        # A value of one line needs no number.
        line = f", line {mark.line + 1}" if mark and (text or mark.line) else ""
        problem = _QUOTING.sub(r"\1", exc.problem or exc.context or "")
        hint = "" if mark is None else _find_hint(text, mark.line)
        raise ConfigurationError(f"{source} is not valid YAML{line}: {problem}{hint}") from None
    except yaml.reader.ReaderError as exc:
        raise ConfigurationError(f"{source} is not valid YAML: {exc.reason}") from None
    except RecursionError:
        raise ConfigurationError(f"{source} is nested too deep") from None


def _find_hint(text: bytes, line: int) -> str:
    lines = text.splitlines()
    if line < len(lines) and OPENING.encode() in lines[line]:
        return (
            "; a value with ${...} in brackets, or with ': ' in it, needs quotes, "
            "and !env_var before them"
        )
    return ""
