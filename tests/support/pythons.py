"""The Pythons at hand, for what may differ between them: how a process ends."""

import functools
import os
import shutil
import subprocess
import sys

__all__ = ["PYTHONS", "why_not"]

#: The versions that are supported; the running Python stands for its own.
_VERSIONS = ("3.10", "3.11", "3.12", "3.13")
_NEEDED = "pika, yaml, click"


def _find() -> dict[str, str]:
    """Return the paths of the Pythons by version; "" for those that are not here.

    THREADKO_PYTHONS names those in environments, as paths with `:` between them.
    """
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = {version: shutil.which(f"python{version}") or "" for version in _VERSIONS}
    for path in filter(None, os.environ.get("THREADKO_PYTHONS", "").split(os.pathsep)):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        version = subprocess.run([path, "-c", code], capture_output=True, text=True, check=True)
        found[version.stdout.strip()] = path
    return {**found, own: sys.executable}


PYTHONS = _find()


@functools.cache
def why_not(version: str) -> str:
    """Return why a Python cannot run a service, "" if it can."""
    path = PYTHONS[version]
    if (
        path
        and not subprocess.run([path, "-c", f"import {_NEEDED}"], capture_output=True).returncode
    ):
        return ""
    return (
        f"no Python {version} with {_NEEDED}: make an environment with them, and name its python"
        f" in THREADKO_PYTHONS"
    )
