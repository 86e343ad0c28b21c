import sys

from tests.support.pythons import PYTHONS, why_not


def test_running_python_is_among_them_and_can_run_services():
    (version,) = (version for version in PYTHONS if PYTHONS[version] == sys.executable)
    assert sys.version.startswith(f"{version}.")
    assert why_not(version) == ""


def test_python_that_is_not_here_says_what_to_do(monkeypatch):
    monkeypatch.setitem(PYTHONS, "3.99", "")
    assert "THREADKO_PYTHONS" in why_not("3.99")
