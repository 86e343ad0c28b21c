"""Packaging. What threadko needs stands in requirements/, its version in threadko/__init__.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_requirements(name):
    """Return the requirements of one file, without those that it includes from another."""
    lines = (HERE / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    wanted = (line.partition("#")[0].strip() for line in lines)
    return [line for line in wanted if line and not line.startswith("-")]


def read_version():
    """Return the version without importing the package: what it needs may not be installed yet."""
    face = (HERE / "threadko" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', face, re.MULTILINE).group(1)


setup(
    name="threadko",
    version=read_version(),
    description="Microservices on standard CPython threads, in the shape of nameko and on its wire",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["threadko", "threadko.*"]),
    package_data={"threadko": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=read_requirements("base"),
    extras_require={
        "sqlalchemy": read_requirements("sqlalchemy"),
        "test": read_requirements("test") + read_requirements("sqlalchemy"),
        "docs": read_requirements("docs"),
        "dev": [
            requirement
            for name in ("test", "sqlalchemy", "dev")
            for requirement in read_requirements(name)
        ],
    },
    entry_points={
        "console_scripts": ["threadko = threadko.cli.main:main"],
        "pytest11": ["threadko = threadko.testing.pytest"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
