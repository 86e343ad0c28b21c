"""What browsers are told of other origins."""

import pytest

from threadko.web.cors import Cors

ALLOW = "Access-Control-Allow-Origin"


@pytest.mark.parametrize(
    ("cors", "origin", "allowed", "varies"),
    [
        (Cors(frozenset({"https://a"})), "https://a", "https://a", True),
        (Cors(frozenset({"https://a"})), "https://b", None, True),
        (Cors(frozenset({"https://a"})), None, None, True),
        (Cors(frozenset({"*"})), "https://b", "*", False),
        (Cors(frozenset({"*"}), credentials=True), "https://b", "https://b", True),
    ],
)
def test_origins(cors, origin, allowed, varies):
    found = cors.answer({} if origin is None else {"HTTP_ORIGIN": origin})
    assert found.get(ALLOW) == allowed
    assert ("Vary" in found) is varies


def test_preflight_names_what_is_allowed():
    cors = Cors(frozenset({"*"}), headers=("X-A", "X-B"), exposed=("X-C",), max_age=5)
    environ = {"HTTP_ORIGIN": "https://a", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "PUT"}
    assert cors.answer_preflight(environ, ["GET", "PUT"]) == {
        ALLOW: "*",
        "Access-Control-Allow-Methods": "GET, PUT",
        "Access-Control-Allow-Headers": "X-A, X-B",
        "Access-Control-Expose-Headers": "X-C",
        "Access-Control-Max-Age": "5",
    }
    del environ["HTTP_ACCESS_CONTROL_REQUEST_METHOD"]
    assert "Access-Control-Allow-Methods" not in cors.answer_preflight(environ, ["GET"])
