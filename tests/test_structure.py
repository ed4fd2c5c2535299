"""What the parts of this project may know of each other."""

import ast
import graphlib
import sys
from pathlib import Path

from tests.conftest import ROOT

PARTS = ("command_line.py", "deploy", "evaluate", "export", "handler", "predict", "search", "serve", "ui")
MOST_LINES = 250


def modules() -> dict[str, Path]:
    """The modules of this project by the names that they are imported by; those of handler/ have none before theirs."""
    found = {}
    for part in PARTS:
        for file in [ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py")):
            relative = file.relative_to(ROOT).with_suffix("").parts
            if relative[0] == "handler" and relative != ("handler", "__init__"):
                relative = relative[1:]
            found[".".join(relative).removesuffix(".__init__")] = file
    return found


MODULES = modules()


def imports(file: Path) -> set[str]:
    """The modules that `file` imports, in functions too; `a.b` of `from a import b` where that is a module here, else `a`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


RAY = {name for name in MODULES if name.startswith("deploy.ray.")}
IMPORTS = {name: imports(file) for name, file in MODULES.items()}


def packages(name: str) -> set[str]:
    return {imported.partition(".")[0] for imported in IMPORTS[name]}


def test_only_the_two_adapters_know_torchserve():
    assert {name for name in MODULES if "ts" in packages(name)} == {"vit_handler", "vit_torchserve"}


def test_the_core_needs_torch_numpy_pillow_and_yaml_alone():
    core = [name for name in MODULES if name.partition(".")[0] == "vit_core"]
    assert len(core) > 10
    needed = set().union(*map(packages, core)) - sys.stdlib_module_names
    assert needed == {"vit_core", "torch", "numpy", "PIL", "yaml"}


def test_the_adapters_know_nothing_of_the_export_step_or_of_the_commands():
    for name in ("vit_handler", "vit_torchserve"):  # TorchServe itself needs psutil
        assert packages(name) - sys.stdlib_module_names <= {
            "psutil",
            "torch",
            "ts",
            "vit_core",
            "vit_in_flight",
            "vit_torchserve",
        }


def test_ray_is_needed_by_its_own_parts_alone():
    assert {name for name in MODULES if "ray" in packages(name)} <= RAY | {"predict.ray_data"}
    assert {"deploy.ray.front", "deploy.ray.model"} <= {name for name in RAY if "ray" in packages(name)}


def test_ray_serve_knows_neither_torchserve_nor_the_export_step():
    served = [name for name in MODULES if name.startswith("deploy.ray")]
    needed = set().union(*(IMPORTS[name] for name in served))
    assert {name for name in needed if name in MODULES and not name.startswith(("deploy.ray", "vit_core"))} <= {
        "command_line",
        "handler",
        "serve.archive",
        "serve.environment",
    }


def test_no_module_imports_itself_by_way_of_others():
    own = {name: {imported for imported in found if imported in MODULES} for name, found in IMPORTS.items()}
    assert sum(map(len, own.values())) > 100
    graphlib.TopologicalSorter(own).prepare()  # raises CycleError, which names the circle


def test_no_file_is_long():
    """Whoever works on a part reads it as a whole."""
    hidden = set(ROOT.rglob(".*/**/*.py"))
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in {*ROOT.rglob("*.py")} - hidden}
    assert len(lines) > 100
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
