"""The structure of the package: which room may import which, unique names, and sizes."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "resnet_jax"

ROOMS = (
    {"cli"},
    {"report"},
    {"paper", "comparison"},
    {"sweeps"},
    {"evaluation", "analysis", "detection"},
    {"interop"},
    {"inference"},
    {"training"},
    {"models", "data", "parallel"},
    {"errors", "files", "console", "object_storage", "lease"},
)
"""From the roof to the ground floor.

A room imports only from lines below its own; itself; and those of the last line each
other."""

PROTOCOLS = {
    "resnet_jax.cli": {"ABOUT", "EXAMPLES", "OPTIONS", "execute"},
}
"""Names that every module below provides with the same meaning."""


def trees() -> Iterator[tuple[str, Path, ast.Module]]:
    """Yields every module of the package: its dotted name, its file and its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, path, ast.parse(path.read_text())


MODULES = {name: (path, tree) for name, path, tree in trees()}


def imports(name: str, nodes: Iterator[ast.AST]) -> set[str]:
    """Returns the modules of the package that some code imports.

    A name of a package that is a module counts as that module.
    """
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module or "")
    return {module for module in found if module in MODULES and module != name}


def room(module: str) -> str:
    """Returns the room of a module; the package itself and its __main__ have none."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else ""


def test_imports_point_downwards() -> None:
    floors = {name: floor for floor, names in enumerate(ROOMS) for name in names}
    wrong = set()
    for name, (_, tree) in MODULES.items():
        for imported in imports(name, ast.walk(tree)):
            here, there = room(name), room(imported)
            if not here or here == there:
                continue  # The package itself may name everything: it imports when it is asked.
            assert here in floors, f"{here} is not in the list of rooms"
            ground = here in ROOMS[-1] and there in ROOMS[-1]
            if not ground and (not there or floors[there] <= floors[here]):
                wrong.add((name, imported))
    assert wrong == set()


def test_no_modules_import_each_other() -> None:
    """Not even in functions. The package itself imports a name's module when it is asked for the name."""
    graph = {name: imports(name, ast.walk(tree)) for name, (_, tree) in MODULES.items() if "." in name}
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def is_type_variable(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "TypeVar"


def defined(tree: ast.Module) -> Iterator[str]:
    """Yields the public names that a module defines."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and not is_type_variable(node.value):
            for target in node.targets:
                yield from (
                    one.id for one in ast.walk(target) if isinstance(one, ast.Name) and one.id != "__all__"
                )
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


SAME_MEANING = {"load_pretrained"}
"""Public names that two modules define because one passes on what the other does."""


def test_a_public_name_is_defined_once() -> None:
    where = defaultdict(set)
    for module, (_, tree) in MODULES.items():
        shared = next(
            (names for package, names in PROTOCOLS.items() if module.startswith(f"{package}.")), set()
        )
        for name in set(defined(tree)) - shared:
            if not name.startswith("_"):
                where[name].add(module)
    assert {
        name: sorted(modules)
        for name, modules in where.items()
        if len(modules) > 1 and name not in SAME_MEANING
    } == {}


def test_a_module_name_is_used_once() -> None:
    where = defaultdict(set)
    for module, (path, _) in MODULES.items():
        if path.stem != "__init__" and room(module) != "cli":
            where[path.stem].add(module)
    assert {name for name, modules in where.items() if len(modules) > 1} == set()


def functions() -> Iterator[tuple[str, int]]:
    """Yields every function with its number of lines, without those of its docstring."""
    for module, (_, tree) in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if ast.get_docstring(node, clean=False) is not None:
                    lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
                yield f"{module}.{node.name}", lines


def test_a_function_fits_on_a_screen() -> None:
    assert {name for name, lines in functions() if lines > 60} == set()


def test_a_file_is_one_idea() -> None:
    lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path, _ in MODULES.values()
    }
    assert {name for name, count in lines.items() if count > 300} == set()
    assert lines["models/resnet.py"] <= 150


def test_lines_are_short() -> None:
    long = {
        f"{path.relative_to(PACKAGE)}:{number}"
        for path, _ in MODULES.values()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 110
    }
    assert long == set()


def test_types_are_concrete() -> None:
    uses = [
        node
        for _, tree in MODULES.values()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "Any")
    ]
    assert len(uses) < 100
