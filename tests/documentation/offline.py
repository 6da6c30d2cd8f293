"""Install without a network: link what this environment has, and of it what was asked for and its requirements only.

So an application that needs what its page does not install fails here as it would anywhere.
"""

from __future__ import annotations

import sys
import sysconfig
from importlib.metadata import Distribution, EntryPoint, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from documentation.pages import ROOT

_OURS = "roovet-webhooks"
_SCRIPT = """#!{python}
import sys
from {module} import {attribute}
sys.exit({attribute}())
"""


def requirement_of(word: str) -> Requirement:
    """Return what a word of the command line asks for; a path is that of this repository."""
    return Requirement(word.rpartition("/")[2] if word.startswith(".") else word)


def closure_of(asked: list[Requirement]) -> dict[str, Distribution]:
    """Return the distributions that have to be installed for what was asked."""
    found: dict[str, Distribution] = {}
    done: set[tuple[str, str]] = set()
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        found[name] = distribution(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in done:
                continue
            done.add((name, extra))
            needed = map(Requirement, found[name].requires or [])
            asked += [other for other in needed if other.marker is None or other.marker.evaluate({"extra": extra})]
    return found


def install(environment: Path, words: list[str]) -> None:
    """Link distributions into a virtual environment."""
    paths = sysconfig.get_paths("venv", vars={"base": str(environment), "platbase": str(environment)})
    packages, scripts = Path(paths["purelib"]), Path(paths["scripts"])
    for name, found in closure_of([requirement_of(word) for word in words]).items():
        if name == _OURS:
            # It may be installed in place, and then lists no files of its own.
            sources = [ROOT / "roovet_webhooks"]
        else:
            tops = {file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}}
            sources = [Path(str(found.locate_file(top))) for top in tops]
        for source in sources:
            link = packages / source.name
            if not link.exists():
                link.symlink_to(source)
        for entry in found.entry_points.select(group="console_scripts"):
            _write_script(scripts / entry.name, entry, scripts / "python")


def _write_script(path: Path, entry: EntryPoint, python: Path) -> None:
    path.write_text(_SCRIPT.format(python=python, module=entry.module, attribute=entry.attr), "utf-8")
    path.chmod(0o755)


if __name__ == "__main__":
    environment, command, *words = sys.argv[1:]
    if command != "install":
        sys.exit(f"pip {command}: only installing is known here")
    install(Path(environment), words)
