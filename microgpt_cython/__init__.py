"""The package microgpt by a name that nothing hides.

In a folder with a microgpt.py, `import microgpt` finds that file, which may be the very script that runs. This package finds the
installed microgpt, which stands beside it, and is the same: `microgpt_cython.Value` is `microgpt.Value`, `microgpt_cython.nn` is
`microgpt.nn`, `python -m microgpt_cython.train` is the training command. After its import, `import microgpt` is the package, too.
"""

import sys
import types
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any


def load_microgpt() -> None:
    """Import the microgpt that stands beside this package, unless it is there. ImportError if another one is."""
    beside = str(Path(__file__).parent.parent)
    loaded = sys.modules.get("microgpt")
    spec = PathFinder.find_spec("microgpt", [beside])
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        raise ImportError(f"there is no package microgpt in {beside}, where microgpt_cython is: run `pip install .` again")
    if loaded is None:
        module = module_from_spec(spec)
        sys.modules["microgpt"] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules["microgpt"]
            raise
    elif (file := getattr(loaded, "__file__", None)) != spec.origin and "microgpt._tape" not in sys.modules:
        raise ImportError(
            f"another module is loaded as microgpt, from {file or 'memory'}: rename it, two modules cannot have one name"
        )


class Alias(MetaPathFinder, InspectLoader):
    """Finds microgpt_cython.NAME, which is microgpt.NAME."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module of microgpt under its other name."""
        if not fullname.startswith(f"{__name__}."):
            return None
        spec = find_spec(real_name(fullname))
        if spec is None:
            return None
        is_package = spec.submodule_search_locations is not None
        return spec_from_loader(fullname, self, origin=spec.origin, is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """Return the module of microgpt itself."""
        module = import_module(real_name(spec.name))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Leave the module as it is: it has been executed. Of what the import has set, take back the spec."""
        alias = module.__spec__
        module.__spec__ = None if alias is None else alias.loader_state

    def get_code(self, fullname: str) -> types.CodeType | None:
        """Return the code of a module, which `python -m` runs."""
        spec = find_spec(real_name(fullname))
        return spec.loader.get_code(spec.name) if spec is not None and isinstance(spec.loader, InspectLoader) else None

    def get_source(self, fullname: str) -> str | None:
        """Return the source of a module."""
        spec = find_spec(real_name(fullname))
        return spec.loader.get_source(spec.name) if spec is not None and isinstance(spec.loader, InspectLoader) else None


def real_name(fullname: str) -> str:
    """Return the name of a module of this package in microgpt."""
    return f"microgpt{fullname.removeprefix(__name__)}"


load_microgpt()
sys.meta_path.insert(0, Alias())

from microgpt import *  # noqa: E402
from microgpt import __all__ as __all__  # noqa: E402


def __getattr__(name: str) -> Any:
    return getattr(sys.modules["microgpt"], name)
