"""The architecture, enforced: imports run downwards only, and L1 capabilities do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {
    "errors": 0, "messages": 0, "config": 0, "paths": 0,
    "database": 0.5,
    "engines": 1, "knowledge": 1, "confidence": 1, "escalation": 1, "updates": 1, "telemetry": 1,
    "assistant": 2, "intake": 2, "sessions": 2, "prompts": 2, "library": 2, "understanding": 2, "installation": 2,
    "calibrating": 2, "dependencies": 2, "gathering": 2, "deciding": 2, "audits": 2, "drifting": 2, "sameness": 2,
    "sayings": 2,
    "api": 3,
    "daemon": 4, "parts": 4, "cli": 4, "__main__": 4,
}  # fmt: skip
WORKER_PROTOCOL = "agent.engines.protocol"
"""Engines that live beside what they know (intents, documents) may speak the workers' protocol."""
L0_MAY_IMPORT = {"pydantic"}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, at any depth, ``from agent import x`` as ``agent.x``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def part_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = sorted(path for path in (ROOT / "agent").rglob("*.py") if path != ROOT / "agent" / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    part = part_of(module_of(path))
    assert part in LAYERS, f"{path.name} belongs to no layer: add it to LAYERS"
    for name in imports_of(path):
        if not name.startswith("agent.") or (other := part_of(name)) == part or other.startswith("__version__"):
            continue
        if other not in LAYERS:
            continue  # a name imported from the package itself
        if name.startswith(WORKER_PROTOCOL) and LAYERS[part] == 1:
            continue
        if other == "engines" and LAYERS[part] == 1 and name == "agent.engines":
            continue  # the prefix of the line above
        allowed = LAYERS[other] < LAYERS[part] or (LAYERS[other] == LAYERS[part] and LAYERS[part] in (0, 2, 4))
        assert allowed, f"{module_of(path)} (layer {LAYERS[part]}) imports {name} (layer {LAYERS[other]})"


def test_the_vocabulary_needs_nothing_but_pydantic() -> None:
    import sys

    for name in ("errors", "messages", "config", "paths"):
        for module in imports_of(ROOT / "agent" / f"{name}.py"):
            top = module.split(".")[0]
            assert top == "agent" or top in sys.stdlib_module_names or top in L0_MAY_IMPORT, f"{name} imports {module}"


def test_the_way_to_sqlite_needs_nothing_but_apsw() -> None:
    import sys

    for module in imports_of(ROOT / "agent" / "database.py"):
        top = module.split(".")[0]
        assert top in ("agent", "apsw") or top in sys.stdlib_module_names, f"database imports {module}"


def test_quantize_imports_only_the_catalogue_and_the_engines() -> None:
    for path in (ROOT / "quantize").rglob("*.py"):
        for name in imports_of(path):
            if name.startswith("agent."):
                assert name.startswith(("agent.updates", "agent.engines", "agent.errors", "agent.messages")), name


def test_a_wrong_direction_is_noticed(tmp_path: Path) -> None:
    """The check can fail: a capability that imports the API is seen by the same reading of imports."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from agent.api import app\n", encoding="utf-8")
    assert any(part_of(name) == "api" for name in imports_of(wrong))
