"""Passwords in addresses, odd text in log lines, and sensitive arguments."""

import collections
import copy
import dataclasses
import functools
import random
import threading
import types
from typing import Any, NamedTuple

import pytest

from threadko.utils import REDACTED, get_redacted_args, sanitize_url
from threadko.utils.redaction import mask_secrets, one_line


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://guest:secret@host:5672/vhost", "amqp://guest:********@host:5672/vhost"),
        ("amqp://guest@host/", "amqp://guest@host/"),
        ("amqp://host:5672/", "amqp://host:5672/"),
        ("http://localhost:8000/a?b=c", "http://localhost:8000/a?b=c"),
        ("amqp://u:@host", "amqp://u:@host"),
        ("amqp://:secret@host", "amqp://:********@host"),
        ("amqp://[::1]:5672/", "amqp://[::1]:5672/"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_only_the_password_is_masked(url: str, expected: str) -> None:
    assert sanitize_url(url) == expected


def test_each_address_of_a_list_is_masked() -> None:
    masked = f"amqp://u:{REDACTED}@a/;amqp://v:{REDACTED}@b/;amqp://c/"
    assert sanitize_url("amqp://u:secret@a/;amqp://v:secret@b/;amqp://c/") == masked
    assert sanitize_url(["amqp://u:secret@a/", "amqp://v:secret@b/", "amqp://c/"]) == masked


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:se@secret@host",
        "amqp://u:a/secret@host",
        "amqp://u:a;secret@host",
        "amqp://u:a:secret@host",
        "amqp://u:a?secret#secret@host",
        "amqp://u:secret@[::1",
        "amqp://u:\nsecret@host",
        "u:secret@host",
        b"amqp://u:secret@host",
        ("amqp://u:secret@host",),
    ],
)
def test_no_odd_password_shows(url: object) -> None:
    assert "secret" not in sanitize_url(url)


@pytest.mark.parametrize("value", [None, 5, object(), {}])
def test_what_is_no_address_does_not_raise(value: object) -> None:
    assert sanitize_url(value) == str(value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a plain line", "a plain line"),
        ("grüße", "grüße"),
        ("a\r\nERROR b", r"a\r\nERROR b"),
        ("\x1b[31m\0", r"\x1b[31m\x00"),
        ("\ud800\udcff", r"\ud800\udcff"),
        ("\u202egnp", r"\u202egnp"),
        (ValueError("a\nb"), r"a\nb"),
    ],
)
def test_text_of_a_stranger_makes_one_line_that_any_file_takes(text: object, line: str) -> None:
    assert one_line(text) == line
    line.encode("utf-8")


def test_long_text_of_a_stranger_is_cut() -> None:
    assert len(one_line("x" * 100_000)) < 600


class Service:
    def plain(self, a: Any, b: Any = None, *args: Any, c: Any = 3, **kwargs: Any) -> None: ...

    def other_instance_name(this, a: Any) -> None: ...  # noqa: N805 (as users may)

    def fixed(self, a: Any) -> None: ...

    @staticmethod
    def _wrap(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    wrapped = _wrap(fixed)


class Fires:
    """What an entrypoint has that matters here."""

    def __init__(self, sensitive_arguments: Any, method_name: str = "plain") -> None:
        self.container = types.SimpleNamespace(service_cls=Service)
        self.method_name = method_name
        self.sensitive_arguments = sensitive_arguments


def redact(sensitive: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return get_redacted_args(Fires(sensitive), *args, **kwargs)


def redact_b(sensitive: Any, b: Any) -> Any:
    return redact(sensitive, 1, b)["b"]


def test_all_arguments_are_there_by_name_without_the_instance() -> None:
    rest = {"args": (), "c": 3, "kwargs": {}}
    assert redact((), 1) == {"a": 1, "b": None, **rest}
    assert redact((), b=2, a=1) == {"a": 1, "b": 2, **rest}
    expected = {"a": 1, "b": 2, "args": (3, 4), "c": 5, "kwargs": {"d": 6}}
    assert redact((), 1, 2, 3, 4, c=5, d=6) == expected
    assert list(redact((), 1)) == ["a", "b", "args", "c", "kwargs"]


def test_the_instance_may_have_any_name() -> None:
    assert get_redacted_args(Fires("a", "other_instance_name"), 1) == {"a": REDACTED}


def test_an_argument_may_be_called_like_a_parameter_of_the_function() -> None:
    assert redact((), 1, entrypoint=2)["kwargs"] == {"entrypoint": 2}


def test_arguments_that_the_method_does_not_take_are_a_type_error() -> None:
    with pytest.raises(TypeError):
        redact(())


@pytest.mark.parametrize("nothing", [(), "", [""], ["", ""], iter(())])
def test_nothing_is_masked_when_nothing_is_sensitive(nothing: Any) -> None:
    assert redact(nothing, 1, {"x": 2})["b"] == {"x": 2}


@pytest.mark.parametrize(
    "spec", [".", "a.", ".a", "a..b", "a[", "a[]", "a]b", "a[0", "a b", "a,b", "1", "[0]", "a.[0]"]
)
def test_what_is_no_path_is_refused_by_name(spec: str) -> None:
    with pytest.raises(ValueError, match=r"sensitive_arguments of plain: .* is no path") as caught:
        redact(spec, {"b": "secret"})
    assert "secret" not in str(caught.value)


X = REDACTED


class Point(NamedTuple):
    x: Any
    y: Any


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        ("b", 5, X),
        ("b", {"x": 1}, X),
        ("b.x", {"x": 1, "y": 2}, {"x": X, "y": 2}),
        ("b[x]", {"x": 1, "y": 2}, {"x": X, "y": 2}),
        ("b['x']", {"x": 1, "y": 2}, {"x": X, "y": 2}),
        ("b.x.y", {"x": {"y": 1, "z": 2}}, {"x": {"y": X, "z": 2}}),
        ("b.api-key", {"api-key": 1, "api": 2}, {"api-key": X, "api": 2}),
        ("b[x.y]", {"x.y": 1, "x": 2}, {"x.y": X, "x": 2}),
        ("b[0]", [1, 2], [X, 2]),
        ("b.0", [1, 2], [X, 2]),
        ("b[-1]", [1, 2], [1, X]),
        ("b[0]", (1, 2), (X, 2)),
        ("b[0][1]", ((1, 2), 3), ((1, X), 3)),
        ("b.x[0].y", {"x": [{"y": 1, "z": 2}, {"y": 3}]}, {"x": [{"y": X, "z": 2}, {"y": 3}]}),
        ("b.x[0].y", {"x": ({"y": 1},)}, {"x": ({"y": X},)}),
        ("b[0].x[1]", [{"x": [1, 2]}], [{"x": [1, X]}]),
        ("b[0]", {0: 1, 1: 2}, {0: X, 1: 2}),
        ("b.0", {0: 1, "0": 2}, {0: X, "0": X}),
        ("b.x", {b"x": 1}, {b"x": X}),
        ("b.None", {None: 1}, {None: X}),
        ("b.x", collections.OrderedDict(x=1, y=2), {"x": X, "y": 2}),
        ("b.x", collections.defaultdict(list, x=1), {"x": X}),
        ("b.x", types.MappingProxyType({"x": 1, "y": 2}), {"x": X, "y": 2}),
        ("b.x", collections.ChainMap({"x": 1}, {"y": 2}), {"x": X, "y": 2}),
        ("b[0]", collections.deque([1, 2]), [X, 2]),
        ("b[0]", collections.UserList([1, 2]), [X, 2]),
        ("b.x", Point(1, 2), (X, 2)),
        ("b[1].z", Point(1, {"z": 2}), (1, {"z": X})),
        (["b.x", "b.y"], {"x": 1, "y": 2, "z": 3}, {"x": X, "y": X, "z": 3}),
        (["b.x", "b"], {"x": 1}, X),
        (["b", "b.x"], {"x": 1}, X),
    ],
)
def test_what_a_path_names_is_masked(spec: Any, value: Any, expected: Any) -> None:
    shown = repr(value)
    result = redact_b(spec, value)
    assert result == expected
    assert type(result) is type(expected)
    assert repr(value) == shown


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("b.x", {"y": 1}),
        ("b.x.y", {"x": 1}),
        ("b.x.y.z", {"x": {"y": "text"}}),
        ("b.x[0]", {"x": "text"}),
        ("b.x.y", {"x": None}),
        ("b[0]", []),
        ("b[2]", [1, 2]),
        ("b[-3]", [1, 2]),
        ("b.x", [1, 2]),
        ("b[0]", "text"),
        ("b[0]", b"text"),
        ("b.real", 5),
        ("b.x", None),
        ("nowhere", 5),
        ("nowhere.x", 5),
    ],
)
def test_what_is_not_there_is_ignored(spec: str, value: Any) -> None:
    assert redact_b(spec, value) == value


def test_parameters_that_take_the_rest_can_be_named() -> None:
    assert redact("kwargs.z", 1, z=2, y=3)["kwargs"] == {"z": X, "y": 3}
    assert redact("args[0]", 1, 2, 3, 4)["args"] == (X, 4)
    assert redact("args", 1, 2, 3, 4)["args"] == X


def test_a_name_that_is_no_parameter_is_one_of_the_keywords() -> None:
    assert redact("z", 1, z=2, y=3)["kwargs"] == {"z": X, "y": 3}
    assert redact("z.x", 1, z={"x": 2})["kwargs"] == {"z": {"x": X}}


def test_a_decorated_method_has_the_names_that_were_meant() -> None:
    assert get_redacted_args(Fires("a", "wrapped"), 1) == {"a": X}
    assert get_redacted_args(Fires("a", "wrapped"), a=1) == {"a": X}
    assert get_redacted_args(Fires("args[0]", "wrapped"), 1) == {"args": (X,), "kwargs": {}}
    # A call that what is decorated would not take.
    assert get_redacted_args(Fires("a", "wrapped"), 1, a=2) == {"args": (1,), "kwargs": {"a": X}}


@dataclasses.dataclass
class Login:
    password: str


class Broken(dict[str, Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    "value",
    [
        Login("secret"),
        types.SimpleNamespace(password="secret"),
        {"secret"},
        Broken(password="secret"),
        iter(["secret"]),
    ],
)
def test_what_cannot_be_looked_into_is_masked_whole(value: Any) -> None:
    assert redact_b("b.password", value) == X
    assert redact_b("b.x.password", {"x": value, "y": 1}) == {"x": X, "y": 1}


class Uncopied:
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("not copied")


@pytest.mark.parametrize("stubborn", [threading.Lock(), Uncopied(), (n for n in ())])
def test_what_cannot_be_copied_is_shown_as_it_is(stubborn: Any) -> None:
    original = {"lock": stubborn, "password": "secret", "own": {"password": "secret"}}
    before = copy.copy(original)
    result = redact_b(["b.password", "b.own.password"], original)
    assert result == {"lock": stubborn, "password": X, "own": {"password": X}}
    assert original == before


def test_what_was_redacted_shares_nothing_with_the_arguments() -> None:
    original = {"x": 1, "list": [1], "own": {"y": [2]}}
    result = redact_b("b.x", original)
    result["list"].append(5)
    result["own"]["y"].append(5)
    assert original == {"x": 1, "list": [1], "own": {"y": [2]}}


def test_one_that_holds_itself_is_redacted() -> None:
    original: dict[str, Any] = {"x": 1}
    original["list"] = [original]
    assert redact_b("b.x", original)["x"] == X


class Tree:
    """Random nested values, a path into one of them, and how that path is written."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.spec = "b"
        self.value = self.build(self.random.randint(0, 5), "SECRET")

    def leaf(self) -> Any:
        return self.random.choice([None, 1, 2.5, "text", b"bytes", True, Login("p"), object()])

    def build(self, depth: int, core: Any) -> Any:
        if depth == 0:
            return core
        # From the outside in, for so the path is written.
        kind = self.random.choice(["dict", "keys", "list", "tuple", "point", "deque"])
        if kind in ("dict", "keys"):
            key = self.random.choice(["x", "some-key", "k_1"] if kind == "dict" else [0, 7, b"x"])
            name = key.decode() if isinstance(key, bytes) else key
            self.spec += self.random.choice([f".{name}", f"[{name}]"])
            return {"other": self.leaf(), 1: self.leaf(), key: self.build(depth - 1, core)}
        if kind == "point":
            self.spec += self.random.choice([".y", "[1]", "[-1]"])
            return Point(self.leaf(), self.build(depth - 1, core))
        place = self.random.randint(0, 2)
        self.spec += self.random.choice([f".{place}", f"[{place}]"])
        items = [self.leaf() for _ in range(2)]
        items.insert(place, self.build(depth - 1, core))
        return {"list": list, "tuple": tuple, "deque": collections.deque}[kind](items)


@pytest.mark.parametrize("seed", range(200))
def test_no_secret_shows_wherever_it_lies(seed: int) -> None:
    tree = Tree(seed)
    shown = repr(tree.value)
    assert "SECRET" in shown
    assert "SECRET" not in repr(redact(tree.spec, 1, tree.value)), tree.spec
    assert "SECRET" not in repr(redact(tree.spec.replace("b", "z", 1), 1, z=tree.value))
    assert "SECRET" in repr(redact(f"{tree.spec}.deeper", 1, tree.value))
    assert repr(tree.value) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("password", "hush", "********"),
        ("DB_PASSWD", 5, "********"),
        ("API_KEY", "hush", "********"),
        ("SECRET_KEY", ["a", {"b": "c"}], ["********", {"b": "********"}]),
        ("tokens", {"shop": "hush"}, {"shop": "********"}),
        ("password", None, None),
        ("password", "", ""),
        ("routing_key", "a.b", "a.b"),
        ("keyfile", "/etc/key.pem", "/etc/key.pem"),
        ("url", "https://ann:hush@host/path", "https://ann:********@host/path"),
        ("urls", ("amqp://a:b@h", 5), ["amqp://a:********@h", 5]),
        ("text", "no address: a:b@c", "no address: a:b@c"),
    ],
)
def test_secrets_in_plain_data_are_masked(name, value, shown):
    assert mask_secrets({name: value}) == {name: shown}
