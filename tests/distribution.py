"""Build the distributions and check them: ``python -m distribution``, from the root of a clone.

The source distribution has every file of the repository, and its tests about files pass in it. The wheel installs, its
command runs, and its description, which is the README, links to nothing by a relative address.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

from documentation.pages import ROOT

if TYPE_CHECKING:
    from email.message import Message

# Tests that read files of the repository beside the package.
TESTS_OF_FILES = ("tests/documentation", "tests/test_layers.py", "tests/test_face.py")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return its output; its errors go where those of this process go."""
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 - our own


def check_source(archive: Path, folder: Path) -> None:
    """Check the source distribution, and unpack it into a folder to test it."""
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    there = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    expected = set(run("git", "ls-files").splitlines())
    assert there - {"PKG-INFO"} == expected, f"the source distribution differs by {there ^ expected}"
    # The working folder comes before the installed package in the module path.
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *TESTS_OF_FILES]
    subprocess.run(command, cwd=unpacked, check=True)  # noqa: S603 - our own


def check_wheel(wheel: Path, folder: Path) -> None:
    """Check the wheel's files and description, and install it into a new environment."""
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        check_description(message_from_bytes(files.read(metadata)))
    assert "roovet_webhooks/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"roovet_webhooks", metadata.partition("/")[0]}
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", f"{wheel}[cli]")
    assert run(folder / "bin" / "roovet-webhooks", "--version").startswith("roovet-webhooks ")


def check_description(metadata: Message) -> None:
    """Check that the description can be read away from the repository."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
    assert {url.partition(", ")[2] for url in metadata.get_all("Project-URL", [])} == set(urls.values())
    links = re.findall(r"\]\(([^)\s]+)\)", str(metadata.get_payload()))
    assert any(link.startswith(urls["Source"]) for link in links)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def main() -> None:
    """Build and check both distributions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT)
        (archive,) = (folder / "dist").glob("*.tar.gz")
        (wheel,) = (folder / "dist").glob("*.whl")
        check_source(archive, folder / "source")
        check_wheel(wheel, folder / "environment")
        sys.stdout.write(f"{archive.name} and {wheel.name} are complete\n")


if __name__ == "__main__":
    main()
