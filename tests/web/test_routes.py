"""Routing without sockets."""

import threading

import pytest
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect, Rule
from werkzeug.test import create_environ

from tests.support.timing import TIMEOUT
from threadko.exceptions import ConfigurationError
from threadko.web.routes import Routes, make_rule, read_methods


def environ(path, method="GET"):
    return create_environ(path, method=method)


@pytest.fixture
def routes():
    return Routes()


@pytest.mark.parametrize(
    ("text", "methods"),
    [("GET", {"GET"}), ("get, post", {"GET", "POST"}), ("GET,PUT,", {"GET", "PUT"})],
)
def test_methods_are_read(text, methods):
    assert read_methods(text) == methods


@pytest.mark.parametrize("text", ["", " , ", "GET /", "G3T"])
def test_methods_that_are_none(text):
    with pytest.raises(ConfigurationError, match="an HTTP method"):
        read_methods(text)


def test_path_and_method_decide(routes):
    routes.add("a", Rule("/orders/<int:number>", methods={"GET"}), "read")
    routes.add("a", Rule("/orders/<int:number>", methods={"PUT", "DELETE"}), "write")
    found = routes.match(environ("/orders/5"))
    assert (found.handler, found.path_values) == ("read", {"number": 5})
    assert routes.match(environ("/orders/5", "DELETE")).handler == "write"
    assert routes.match(environ("/orders/5", "HEAD")).handler == "read"
    with pytest.raises(NotFound):
        routes.match(environ("/orders/x"))
    with pytest.raises(MethodNotAllowed) as caught:
        routes.match(environ("/orders/5", "POST"))
    assert set(caught.value.valid_methods) == {"GET", "HEAD", "PUT", "DELETE"}
    assert routes.allowed(environ("/orders/5", "OPTIONS")) == ["DELETE", "GET", "HEAD", "PUT"]
    assert routes.allowed(environ("/nowhere", "OPTIONS")) == []


def test_missing_slash_is_a_redirect(routes):
    routes.add("a", Rule("/orders/", methods={"GET"}), "list")
    with pytest.raises(RequestRedirect):
        routes.match(environ("/orders"))


def test_same_route_twice_is_an_error_and_changes_nothing(routes):
    routes.add("a", Rule("/x", methods={"GET", "POST"}), "first")
    with pytest.raises(ConfigurationError, match="POST /x is there twice: by 'first' and 'second'"):
        routes.add("b", Rule("/x", methods={"POST"}), "second")
    routes.add("b", Rule("/x", methods={"PUT"}), "third")
    assert routes.match(environ("/x", "POST")).handler == "first"
    assert len(routes) == 2


@pytest.mark.parametrize("url", ["no slash", "/<unknown:x>", "/<int:a>/<int:a>", "/<"])
def test_url_that_is_no_rule(routes, url):
    with pytest.raises(ConfigurationError, match="is no URL rule"):
        routes.add("a", make_rule("GET", url), "x")
    assert len(routes) == 0


def test_owner_takes_only_its_own_along(routes):
    routes.add("a", Rule("/a", methods={"GET"}), "a")
    routes.add("b", Rule("/b", methods={"GET"}), "b")
    routes.remove("a")
    with pytest.raises(NotFound):
        routes.match(environ("/a"))
    assert routes.match(environ("/b")).handler == "b"
    routes.add("c", Rule("/a", methods={"GET"}), "new")
    assert routes.match(environ("/a")).handler == "new"


def test_requests_are_matched_while_routes_come_and_go(routes):
    routes.add("stays", Rule("/stays", methods={"GET"}), "stays")
    over = threading.Event()

    def come_and_go(name):
        while not over.is_set():
            routes.add(name, Rule(f"/{name}", methods={"GET"}), name)
            routes.remove(name)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for _ in range(500):
        assert routes.match(environ("/stays")).handler == "stays"
    over.set()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(routes) == 1


def test_rules_that_take_the_same_requests_are_the_same(routes):
    routes.add("a", make_rule("GET", "/<int:number>/<name>"), "one")
    with pytest.raises(ConfigurationError, match="is there twice: by 'one' and 'two'"):
        routes.add("a", make_rule("GET", "/<int:other>/<another>"), "two")
    routes.add("a", make_rule("GET", "/<string:number>/<name>"), "three")
    assert routes.match(environ("/5/x")).handler == "one"
    assert routes.match(environ("/y/x")).handler == "three"


def test_rule_without_methods_takes_all(routes):
    routes.add("a", Rule("/any"), "any")
    assert routes.match(environ("/any", "PATCH")).handler == "any"
    with pytest.raises(ConfigurationError, match="PUT /any is there twice"):
        routes.add("a", make_rule("PUT", "/any"), "put")
