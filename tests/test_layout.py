"""The layout of DESIGN: who imports whom. Imports inside functions count too."""

import ast
from functools import cache
from pathlib import Path

import pytest
from processes import PROJECT

SCRIPTS = ("train", "test", "visualizations")
LAYERS = [
    SCRIPTS,
    ("vae.cli",),
    ("vae.callbacks", "vae.runs"),
    ("vae.figures", "vae.lit_vae"),
    ("vae.evaluation", "vae.objectives"),
    ("vae.marginal",),
    ("vae.model",),
    ("vae.likelihoods", "vae.networks"),
]
FORBIDDEN = {
    "vae": ("datamodules", *SCRIPTS),
    "datamodules": ("vae", *SCRIPTS),
    "vae.model": ("pytorch_lightning", "lightning_fabric", "torch.optim", "matplotlib"),
    "vae.objectives": ("pytorch_lightning", "torch.optim", "matplotlib"),
    **dict.fromkeys(("vae.evaluation", "vae.marginal", "vae.hmc"), ("pytorch_lightning", "matplotlib")),
    "vae.networks": ("pytorch_lightning", "torch.distributions", "vae.distributions", "vae.likelihoods"),
    "vae.likelihoods": ("pytorch_lightning", "vae.networks"),
    "vae.distributions": ("pytorch_lightning", "vae.networks"),
    "vae.lit_vae": ("matplotlib", "tensorboard"),
    "vae.metrics": ("matplotlib", "torch.distributions"),
    "vae.callbacks": ("matplotlib", "torch.distributions"),
    "vae.figures": ("os", "pathlib", "pytorch_lightning", "tensorboard"),
    "vae.runs": ("pytorch_lightning.Trainer", "matplotlib", "vae.figures"),
    "vae.cli": ("matplotlib", "torch.distributions"),
    **dict.fromkeys(SCRIPTS, ("matplotlib", "torch.distributions", "torch.nn")),
}


@cache
def modules():
    """The project's modules by name: the path of each."""
    paths = [Path(f"{script}.py") for script in SCRIPTS]
    paths += [path.relative_to(PROJECT) for part in ("vae", "datamodules") for path in (PROJECT / part).rglob("*.py")]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def imports(module):
    """What a module imports, as it says so: modules, and names in modules."""
    found = set()
    for node in ast.walk(ast.parse((PROJECT / modules()[module]).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def imported(module):
    """The project's modules that a module imports: of a name in a package, the package."""
    names = imports(module)
    return {name if name in modules() else name.rpartition(".")[0] for name in names} & modules().keys()


def reached(module):
    """The project's modules that are imported with a module, however indirectly; itself only in a circle."""
    found, new = set(), imported(module)
    while new:
        found |= new
        new = set().union(*(imported(name) for name in new)) - found
    return found


def is_in(name, package):
    return name == package or name.startswith(f"{package}.")


def test_no_module_imports_itself_in_a_circle():
    assert [module for module in modules() if module in reached(module)] == []


@pytest.mark.parametrize("level", range(len(LAYERS)))
def test_imports_run_one_way(level):
    above = [name for layer in LAYERS[:level] for name in layer]
    for module in modules():
        is_command = module.endswith(".__main__")  # an entry point, as the scripts are
        if any(is_in(module, name) for name in LAYERS[level]) and not is_command:
            assert [name for name in reached(module) if any(is_in(name, other) for other in above)] == [], module


@pytest.mark.parametrize("package", FORBIDDEN)
def test_what_a_place_never_holds(package):
    inside = [module for module in modules() if is_in(module, package)]
    assert inside
    for module in inside:
        assert [name for name in imports(module) if any(is_in(name, other) for other in FORBIDDEN[package])] == [], (
            module
        )


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_entry_point_is_short(script):
    assert len((PROJECT / f"{script}.py").read_text().splitlines()) < 60
