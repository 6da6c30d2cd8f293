"""The direction of imports: a module knows only what stands above it, and nothing goes in circles."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from documentation.pages import rows_of, section_of

import roovet_webhooks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(roovet_webhooks.__file__).parent

# From the ground up, as CONTRIBUTING.md shows them: a row imports only rows above it, and within a row what stands
# further left.
ROWS = [re.findall(r"`(\w+)`", row[0]) for row in rows_of(section_of("CONTRIBUTING.md", "The layers"), 2)]
PLACE = {name: (row, column) for row, names in enumerate(ROWS) for column, name in enumerate(names)}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def layer_of(module: str) -> str:
    """Return the name of the rows that a module belongs to: the longest that it begins with."""
    parts = module.split(".")
    beginnings = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in beginnings if name in PLACE), parts[0])


def checked_by_types_only(tree: ast.Module) -> set[ast.AST]:
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def inside_functions(tree: ast.Module) -> set[ast.AST]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {inner for function in functions for inner in ast.walk(function)}


def imports_of(path: Path, *, at_run_time_and_module_level: bool = False) -> set[str]:
    """Return the modules of the package that a file imports, as dotted names below the package."""
    tree = ast.parse(path.read_text("utf-8"))
    left_out = checked_by_types_only(tree) | inside_functions(tree) if at_run_time_and_module_level else set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            base = node.module or ""
            # A name that is a module is that module; any other is taken from its module.
            found |= {
                f"{base}.{alias.name}" if f"{base}.{alias.name}".removeprefix("roovet_webhooks.") in MODULES else base
                for alias in node.names
            }
    ours = {name for name in found if name.partition(".")[0] == "roovet_webhooks"}
    return {name.removeprefix("roovet_webhooks").lstrip(".") for name in ours}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_stands_above_it(module: str) -> None:
    own = layer_of(module)
    assert own in PLACE, f"{own} has no place in the layers: give it one"
    for imported in imports_of(MODULES[module]):
        assert imported, f"{module} imports the package's face"
        other = layer_of(imported)
        if other != own:
            assert PLACE[other] < PLACE[own], f"{module} imports {imported}, which stands below it or beside it"


def test_no_circle() -> None:
    # Of any imports: at module level, in functions, and those that only type checkers follow.
    graph = {name: imports_of(path) - {name, ""} for name, path in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) >= set(MODULES)


# Private words that the code once had, each with the name that the field uses. They must not come back.
REPLACED = {
    "keeper": "maintenance thread",
    "keeping": "renewing",
    "floor": "capacity",
    "feed": "poller",
    "crew": "worker context",
    "pace": "throughput",
    "company": "isolation gate",
    "suspect": "crashed",
    "suspects": "crashed",
    "claim_suspect": "claim_isolated",
    "census": "store counts",
    "turns": "write lock",
    "enclosing": "implicit transaction",
    "beat": "heartbeat",
    "watch_over": "start_maintenance",
    "tidy": "prune",
    "hand_over": "enqueue",
    "let_go": "close_quietly, release",
    "tell": "log_event",
    "told": "fields",
    "about": "context",
    "heard": "is_enabled",
    "said": "message",
    "mend": "remedy",
    "of": "resolve, diagnose",
    "described": "to_dict",
    "examined": "check",
    "lasting": "format_duration",
    "counted": "stats_to_dict",
    "admission": "request_checks",
    "intake": "body",
    "opening": "factory",
    "disks": "filesystem",
}


def names_in(path: Path) -> Iterator[str]:
    """Yield every name that a file gives: of itself, of classes, functions, arguments, variables and attributes."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_word_is_a_name(path: Path) -> None:
    found = {name for name in names_in(path) if name.strip("_").lower() in REPLACED}
    assert not found, f"use instead: {sorted(REPLACED[name.strip('_').lower()] for name in found)}"


def test_the_face_imports_nothing_until_it_is_asked() -> None:
    assert imports_of(ROOT / "__init__.py", at_run_time_and_module_level=True) == {"_version"}


def uses_cryptography(path: Path) -> bool:
    tree = ast.parse(path.read_text("utf-8"))
    nodes = set(ast.walk(tree)) - checked_by_types_only(tree)
    return any(isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cryptography") for node in nodes)


def test_one_module_computes_macs() -> None:
    assert {name for name, path in MODULES.items() if uses_cryptography(path)} == {"signing.mac"}


def test_the_checks_here_can_fail(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        "from typing import TYPE_CHECKING\n"
        "from roovet_webhooks import telemetry, Event\n"
        "import roovet_webhooks.signing.keys\n"
        "if TYPE_CHECKING:\n    from roovet_webhooks.receiving.receiver import WebhookReceiver\n"
        "def late():\n    from roovet_webhooks.asgi import WebhookApp\n"
    )
    assert imports_of(sample) == {"telemetry", "", "signing.keys", "receiving.receiver", "asgi"}
    assert imports_of(sample, at_run_time_and_module_level=True) == {"telemetry", "", "signing.keys"}
