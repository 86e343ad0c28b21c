"""The names that must be nameko's, letter by letter."""

from threadko import constants


def test_the_names_on_the_wire_are_namekos() -> None:
    assert constants.HEADER_PREFIX == "nameko"
    assert constants.CALL_ID_STACK_CONTEXT_KEY == "call_id_stack"
    assert (constants.NON_PERSISTENT, constants.PERSISTENT) == (1, 2)


def test_each_constant_of_the_module_is_public() -> None:
    names = sorted(name for name in vars(constants) if name.isupper())
    assert names == constants.__all__
