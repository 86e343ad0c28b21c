"""Objects by dotted path."""

import os.path
from pathlib import Path

import pytest

from threadko.utils import import_from_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, None),
        ("os", os),
        ("os.path", os.path),
        ("os.path.join", os.path.join),
        ("pathlib.Path.home", Path.home),
    ],
)
def test_a_path_gives_its_object(path: str | None, expected: object) -> None:
    assert import_from_path(path) == expected


@pytest.mark.parametrize(
    "path", ["nowhere_at_all", "nowhere_at_all.x", "os.path.nowhere", "os.path.join.x", "", "a..b"]
)
def test_a_path_to_nothing_is_an_import_error_that_names_it(path: str) -> None:
    with pytest.raises(ImportError, match=repr(path).replace(".", r"\.")):
        import_from_path(path)


@pytest.mark.parametrize(
    ("name", "source", "error"),
    [
        ("lacks_a_module", "import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("divides_by_zero", "1 / 0", "division by zero"),
    ],
)
def test_an_error_inside_of_the_module_is_passed_on(
    name: str, source: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises((ModuleNotFoundError, ZeroDivisionError), match=error):
        import_from_path(f"{name}.thing")
