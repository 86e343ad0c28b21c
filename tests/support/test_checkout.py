from tests.support.checkout import ROOT, copy_checkout


def test_copy_holds_the_files_of_the_repository_and_no_environment(tmp_path):
    copy = copy_checkout(tmp_path / "copy")
    assert (copy / "Makefile").read_bytes() == (ROOT / "Makefile").read_bytes()
    assert (copy / "threadko" / "py.typed").exists()
    assert not (copy / ".venv").exists()
    assert not (copy / "docs" / "_build").exists()
