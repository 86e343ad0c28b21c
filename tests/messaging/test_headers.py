"""Context data in headers."""

from threadko.messaging import (
    decode_from_headers,
    encode_to_headers,
)

# Headers


def test_context_becomes_headers_and_comes_back():
    headers = encode_to_headers({"a": 1, "none": None, "list": ["x"]})
    assert headers == {"nameko.a": 1, "nameko.list": ["x"]}
    assert decode_from_headers({**headers, "foreign": 1, "x-death": []}) == {"a": 1, "list": ["x"]}
    assert encode_to_headers({"a": 1}, prefix="own") == {"own.a": 1}
    assert decode_from_headers({"own.a": 1, "nameko.b": 2}, prefix="own") == {"a": 1}
