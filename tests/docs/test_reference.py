"""The reference knows every public name, and finds those that nobody described."""

import importlib.util
from pathlib import Path
from typing import ClassVar

import pytest

import threadko.messaging
import threadko.rpc

PATH = Path(__file__).parents[2] / "docs" / "reference.py"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "module",
    [
        "threadko",
        "threadko.amqp",
        "threadko.amqp.consume",
        "threadko.amqp.publish",
        "threadko.containers",
        "threadko.events",
        "threadko.exceptions",
        "threadko.extensions",
        "threadko.messaging",
        "threadko.rpc",
        "threadko.runners",
        "threadko.serialization",
        "threadko.standalone.events",
        "threadko.standalone.rpc",
        "threadko.testing.services",
        "threadko.timer",
        "threadko.web.handlers",
        "threadko.web.server",
        "threadko.web.websocket",
    ],
)
def test_module_that_users_import_has_a_page(reference, module):
    assert module in reference.find_public_modules()


def test_rooms_behind_a_face_have_none(reference):
    modules = reference.find_public_modules()
    assert [name for name in modules if name.startswith(("threadko.cli", "threadko.rpc."))] == []


def test_name_that_two_modules_hand_on_is_described_once(reference):
    homes = reference.find_homes()
    assert homes[id(threadko.messaging.Exchange)] == "threadko.amqp.Exchange"
    page = reference.make_page("threadko.messaging", homes)
    assert "The same as :py:class:`threadko.amqp.Exchange`" in page
    assert ".. autoclass:: threadko.messaging.Exchange" not in page
    assert ".. autoclass:: threadko.messaging.Publisher" in page


def test_alias_is_described_under_the_name_of_its_own(reference):
    homes = reference.find_homes()
    assert homes[id(threadko.rpc.RpcProxy)] == "threadko.rpc.ServiceRpc"


def test_methods_of_public_classes_count(reference):
    assert "threadko.rpc.ServiceRpc.get_dependency" in reference.find_public()


def test_name_without_docstring_or_page_is_found(reference):
    class Described:
        """One."""

    class Bare:
        attribute: ClassVar[int] = 1

    Bare.__doc__ = None
    public = {"m.Described": Described, "m.Bare": Bare, "m.CONSTANT": 1, "m.absent": len}
    known = {"m.Described", "m.Bare", "m.CONSTANT"}
    assert reference.find_undocumented(public, known) == ["m.Bare", "m.absent"]


def test_pages_are_written_and_old_ones_go(reference, tmp_path):
    (tmp_path / "threadko.gone.rst").touch()
    reference.write_pages(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {
        "index",
        *reference.find_public_modules(),
    }


def test_table_of_keys_has_type_default_and_meaning(reference):
    table = reference.make_key_table("broker")
    assert (
        "   * - ``HEARTBEAT``\n     - whole seconds, 1 to 65535\n     - ``20``\n     - a " in table
    )
    assert "   * - ``LOGIN_METHOD``\n     - string\n     - PLAIN\n" in table


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (True, "``true``"), ("660", '``"660"``'), ({}, "``{}``"), (2.5, "``2.5``")],
)
def test_defaults_are_shown_as_a_file_would_have_them(reference, value, text):
    assert reference.format_default(value) == text
