"""microgpt_cython: the package by a name that a script called microgpt.py does not hide, and the same objects."""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from process import python

import microgpt
import microgpt_cython

ROOT = Path(__file__).parent.parent
FOREIGN = "Value = 'of another module'\n"


SCRIPT = """
from microgpt_cython import GPT, Value, nn
from microgpt_cython.nn import MLP
import microgpt_cython.data
import microgpt_cython.reference
import microgpt, microgpt.nn, microgpt.reference
assert microgpt.Value is Value and microgpt.GPT is GPT
assert microgpt.nn is nn and nn.MLP is MLP and microgpt_cython.reference is microgpt.reference
assert nn.__spec__.name == nn.__name__ == "microgpt.nn"
x = Value(3.0)
(x * x).backward()
print(x.grad, len(microgpt_cython.data.load_names()))
"""


@pytest.mark.parametrize("name", ["microgpt.py", "other.py"])
def test_a_script_runs_in_a_folder_that_hides_microgpt(name: str, tmp_path: Path) -> None:
    (tmp_path / "microgpt.py").write_text(FOREIGN)
    assert "import" in python("-c", "from microgpt import GPT", cwd=tmp_path, status=1)  # it does hide it
    (tmp_path / name).write_text(SCRIPT)
    assert python(name, cwd=tmp_path) == "6.0 32868\n"


def test_a_folder_called_microgpt_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "microgpt").mkdir()
    (tmp_path / "microgpt" / "__init__.py").write_text(FOREIGN)
    (tmp_path / "script.py").write_text(SCRIPT)
    assert python("script.py", cwd=tmp_path) == "6.0 32868\n"


def test_the_commands_run_in_a_folder_that_hides_microgpt(tmp_path: Path) -> None:
    (tmp_path / "microgpt.py").write_text(FOREIGN)
    out = python("-m", "microgpt_cython.train", "--steps", "1", "--samples", "1", "--quiet", "--save", "m", cwd=tmp_path)
    assert out.startswith("num docs: 32868\n")
    assert len(python("-m", "microgpt_cython.sample", "m", "--count", "3", cwd=tmp_path).splitlines()) == 3
    assert python("-m", "microgpt_cython", "--version", cwd=tmp_path) == f"microgpt-cython {microgpt.__version__}\n"
    assert "No module named microgpt_cython.nothing" in python("-m", "microgpt_cython.nothing", cwd=tmp_path, status=1)


def test_another_module_that_is_loaded_already_is_named(tmp_path: Path) -> None:
    (tmp_path / "microgpt.py").write_text(FOREIGN)
    error = python("-c", "import microgpt, microgpt_cython", cwd=tmp_path, status=1)
    assert error == (
        f"ImportError: another module is loaded as microgpt, from {tmp_path / 'microgpt.py'}: "
        "rename it, two modules cannot have one name"
    )


def test_microgpt_may_be_imported_before_or_after(tmp_path: Path) -> None:
    for names in (
        "microgpt, microgpt.nn, microgpt_cython, microgpt_cython.nn",
        "microgpt_cython, microgpt_cython.nn, microgpt.nn",
    ):
        code = f"import {names}; print(microgpt_cython.Value is microgpt.Value, microgpt_cython.nn is microgpt.nn)"
        assert python("-c", code, cwd=tmp_path) == "True True\n"


def test_a_checkout_without_the_engine_uses_the_installed_one(tmp_path: Path) -> None:
    checkout, work = tmp_path / "checkout", tmp_path / "work"
    for package in ("microgpt", "microgpt_cython"):
        source = Path(sys.modules[package].__file__ or "").parent
        shutil.copytree(source, checkout / package, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    shutil.copytree(Path(microgpt.__file__).parent, tmp_path / "installed" / "microgpt")
    work.mkdir()
    (work / "microgpt.py").write_text(SCRIPT + "print(microgpt.__file__)\nimport microgpt._tape\nprint(microgpt._tape.__file__)")
    env_path = Path(os.pathsep.join([str(checkout), str(tmp_path / "installed")]))
    lines = python("microgpt.py", cwd=work, path=env_path).splitlines()
    assert lines[0] == "6.0 32868"
    assert Path(lines[1]).is_relative_to(checkout)
    assert not Path(lines[2]).is_relative_to(checkout)


def test_microgpt_cython_without_microgpt_beside_it_says_so(tmp_path: Path) -> None:
    shutil.copytree(Path(microgpt_cython.__file__).parent, tmp_path / "microgpt_cython")
    error = python("-c", "import microgpt_cython", cwd=tmp_path, status=1)
    assert error.startswith(f"ImportError: there is no package microgpt in {tmp_path}, where microgpt_cython is")


def test_every_name_is_there_and_the_same_object() -> None:
    assert microgpt_cython.__all__ is microgpt.__all__
    assert all(getattr(microgpt_cython, name) is getattr(microgpt, name) for name in microgpt.__all__)
    assert microgpt_cython.__version__ == microgpt.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = microgpt_cython.nothing
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'microgpt_cython\.nothing'"):
        importlib.import_module("microgpt_cython.nothing")
    assert pickle.loads(pickle.dumps(microgpt_cython.Value)) is microgpt.Value


def test_type_checkers_see_the_same_names(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "typed.py").write_text(
        "import microgpt\nfrom microgpt_cython import Value, nn\nfrom microgpt_cython.nn import MLP\n"
        "from microgpt_cython.reference import GPT\nfrom microgpt_cython.data import load_names\n"
        "v: microgpt.Value = Value(1.0)\nm: MLP = nn.MLP(2, [1])\nreveal_type(load_names())\nw: int = Value(1.0)\n"
    )
    packages = Path(microgpt_cython.__file__).parent.parent  # of an editable install mypy has to be told
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", os.devnull, "typed.py"]
    env = {**os.environ, "MYPYPATH": str(packages)} if packages == ROOT else None
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120)
    errors = [line for line in result.stdout.splitlines() if line.startswith("typed.py")]
    assert [line.partition(": ")[2] for line in errors] == [
        'note: Revealed type is "list[str]"',
        'error: Incompatible types in assignment (expression has type "Value", variable has type "int")  [assignment]',
    ]
