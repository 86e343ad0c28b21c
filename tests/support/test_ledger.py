import subprocess
import sys

from tests.support.ledger import Ledger
from tests.support.timing import TIMEOUT


def test_ledger_is_empty_before_the_first_entry(tmp_path):
    assert Ledger(tmp_path / "ledger").count() == {}


def test_lines_of_many_processes_are_counted(tmp_path):
    path = tmp_path / "ledger"
    script = (
        "import sys\n"
        "from tests.support.ledger import Ledger\n"
        "for number in range(500):\n"
        "    Ledger(sys.argv[1]).enter(number)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(3)]
    assert [writer.wait(TIMEOUT) for writer in writers] == [0, 0, 0]
    assert Ledger(path).count() == {str(number): 3 for number in range(500)}
