"""A copy of what a clone of the repository would hold, for tests that build or follow the pages."""

import shutil
import subprocess
from pathlib import Path

__all__ = ["ROOT", "copy_checkout"]

ROOT = Path(__file__).parents[2]


def copy_checkout(target: Path) -> Path:
    """Copy every file that git knows or would take, in its present state, and return `target`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target
