import json
import sys
from pathlib import Path

import pytest

from threadko.cli.options import UserError
from threadko.cli.services import (
    complete_services,
    find_source_folders,
    import_services,
    put_first_on_path,
)

SERVICE = """
from threadko.rpc import rpc

class First:
    name = "first"

    @rpc
    def method(self):
        pass

class Second(First):
    name = "second"

class Plain:
    name = "plain"

    @property
    def trap(self):
        raise RuntimeError("must not be run")
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module into the current folder, which is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    known = set(sys.modules)

    def write(path, source):
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(source, encoding="utf-8")

    yield write
    for name in set(sys.modules) - known:
        del sys.modules[name]


def fail(*targets):
    with pytest.raises(UserError) as caught:
        import_services(targets)
    message = caught.value.format_message()
    assert "\n" not in message
    return message


def names(*targets):
    return [cls.__name__ for cls in import_services(targets)]


def test_classes_with_entrypoints_are_found_in_their_order(write):
    write("svc.py", SERVICE)
    assert names("svc") == ["First", "Second"]


def test_class_that_is_named_needs_no_entrypoint(write):
    write("svc.py", SERVICE)
    assert names("svc:Plain") == ["Plain"]


def test_class_named_twice_is_returned_once(write):
    write("svc.py", SERVICE + "\nAlias = First\n")
    assert names("svc:Second", "svc", "svc:Alias") == ["Second", "First"]


def test_module_in_a_package_is_found(write):
    write("pkg/__init__.py", "")
    write("pkg/svc.py", SERVICE)
    assert names("pkg.svc:First") == ["First"]


def test_static_method_counts_as_entrypoint(write):
    write(
        "svc.py",
        "from threadko.rpc import rpc\nclass S:\n    @staticmethod\n    @rpc\n    def f(): pass\n",
    )
    assert names("svc") == ["S"]


def test_overridden_entrypoint_does_not_count(write):
    write("svc.py", SERVICE + "\nclass Third(First):\n    method = None\n")
    assert names("svc") == ["First", "Second"]


def test_imported_services_do_not_count(write):
    write("svc.py", SERVICE)
    write("other.py", "from svc import First\n")
    assert "imported ones do not count, so name one: other:First" in fail("other")


def test_imported_service_can_be_named(write):
    write("svc.py", SERVICE)
    write("other.py", "from svc import First\n")
    assert names("other:First") == ["First"]


def test_module_without_services_says_what_makes_one(write):
    write("empty.py", "")
    assert "no service in module 'empty'" in fail("empty")
    assert "@rpc" in fail("empty")


def test_missing_module_says_where_it_was_looked_for(write, tmp_path):
    message = fail("absent")
    assert "no module named 'absent'" in message
    assert str(tmp_path) in message


def test_missing_module_in_a_missing_package_is_the_users_mistake(write):
    assert "no module named 'absent.svc'" in fail("absent.svc")


def test_missing_module_below_a_module_says_that_it_is_no_package(write):
    write("svc.py", SERVICE)
    message = fail("svc.more")
    assert "'svc' is a module, not a package" in message
    assert "'svc:more'" in message


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("svc.py", "'svc'"),
        ("./svc.py", "'svc'"),
        ("dir/svc.py", "'dir.svc'"),
        ("dir/svc", "'dir.svc'"),
        ("svc.py:First", "'svc:First'"),
    ],
)
def test_file_gets_a_hint_with_the_dotted_name(target, hint):
    assert f"try {hint}" in fail(target)


@pytest.mark.parametrize("target", ["", ":", ":A", "a:", "a:b:c", "a..b", "a-b", "1a", "a:b.c"])
def test_malformed_target_says_the_form(target):
    assert "is not of the form module or module:Class" in fail(target)


def test_missing_class_says_which_there_are(write):
    write("svc.py", SERVICE)
    assert fail("svc:Absent") == "no class 'Absent' in module 'svc'; it has First, Second"


def test_missing_class_in_a_module_without_services_says_so_alone(write):
    write("empty.py", "")
    assert fail("empty:Absent") == "no class 'Absent' in module 'empty'"


def test_function_in_place_of_a_class_is_refused(write):
    write("svc.py", "def service(): pass\n")
    assert fail("svc:service") == "svc:service is a function, and a service is a class"


@pytest.mark.parametrize(
    ("source", "text", "line"),
    [
        ("x = 1\nraise ValueError('two\\nlines')\n", "ValueError: two lines", 2),
        ("import json\njson.loads('{')\n", "JSONDecodeError: ", 2),
        ("import absent_thing\n", "No module named 'absent_thing'", 1),
        ("def f(:\n", "SyntaxError: ", 1),
        ("import sys\n\nsys.exit('bye')\n", "SystemExit: bye", 3),
    ],
)
def test_failing_import_names_the_error_and_the_line_of_the_user(
    write, tmp_path, source, text, line
):
    write("broken.py", source)
    message = fail("broken")
    assert message.startswith("cannot import 'broken': ")
    assert text in message
    assert f"{tmp_path / 'broken.py'}:{line}" in message


def test_folder_comes_first_on_the_path_once(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    folder = str(Path.cwd())
    put_first_on_path(folder)
    put_first_on_path(folder)
    assert sys.path == [folder, "/elsewhere"]


def complete(text):
    return [item.value for item in complete_services(None, None, text)]


def test_modules_packages_and_classes_are_completed_without_importing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("class Face: pass\n1 / 0\n", encoding="utf-8")
    (tmp_path / "shop" / "orders.py").write_text("class Orders: pass\n", encoding="utf-8")
    (tmp_path / "sheds.py").write_text("class A: pass\nclass B: pass\nx = 1\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("class\n", encoding="utf-8")
    (tmp_path / "no-name.py").touch()
    assert complete("") == ["broken", "sheds", "shop"]
    assert complete("sh") == ["sheds", "shop"]
    assert complete("shop.") == ["shop.orders"]
    assert complete("shop:") == ["shop:Face"]
    assert complete("shop.orders:O") == ["shop.orders:Orders"]
    assert complete("sheds:") == ["sheds:A", "sheds:B"]
    assert complete("sheds:B") == ["sheds:B"]
    assert complete("broken:") == complete("absent:") == []


def test_folders_of_own_modules_are_found_and_those_of_a_failed_import(write, tmp_path):
    write("inner", "raise ValueError('no')")
    (tmp_path / "elsewhere").mkdir()
    broken = tmp_path / "elsewhere" / "broken_syntax.py"
    broken.write_text("class\n", encoding="utf-8")
    sys.path.append(str(broken.parent))
    try:
        with pytest.raises(UserError) as caught:
            import_services(["broken_syntax"])
    finally:
        sys.path.remove(str(broken.parent))
    folders = find_source_folders(caught.value)
    assert str(broken.parent) in folders
    assert str(Path.cwd()) in folders
    foreign = (str(Path(pytest.__file__).parent), str(Path(json.__file__).parent))
    assert not set(foreign) & set(folders)
