"""The package as installed: what it imports, from where it runs, that its parts agree."""

from __future__ import annotations

import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import microgpt
from microgpt import _functions, _graph, _matrix, _tape, _value, _vector, reference

ROOT = Path(__file__).parent.parent


def python(*arguments: str, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=env, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("module", [_functions, _graph, _matrix, _tape, _value, _vector])
def test_the_engine_is_compiled(module: object) -> None:
    assert isinstance(module.__loader__, importlib.machinery.ExtensionFileLoader)


def test_import_pulls_in_the_standard_library_only(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import microgpt; print(*(set(sys.modules) - before))"
    names = {name.partition(".")[0] for name in python("-c", code, cwd=tmp_path).split()}
    # cython_runtime and _cython_...: bookkeeping of the compiled modules, made in memory
    foreign = {name for name in names if name not in sys.stdlib_module_names and "cython" not in name}
    assert foreign == {"microgpt"}


def test_public_names_are_there_and_the_twin_has_them() -> None:
    assert all(hasattr(microgpt, name) for name in microgpt.__all__)
    assert all(hasattr(reference, name) for name in reference.__all__)
    shared = set(microgpt.__all__) - {"CharTokenizer", "GPTConfig", "Matrix", "Rows", "Vector"}
    assert shared <= set(reference.__all__)


@pytest.mark.skipif(not (ROOT / "microgpt").is_dir(), reason="only in a checkout")
def test_a_checkout_that_hides_the_installed_package_runs_its_engine(tmp_path: Path) -> None:
    """The source folder on the path, without compiled modules: the installed ones serve."""
    shutil.copytree(ROOT / "microgpt", tmp_path / "microgpt", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    out = python("-m", "microgpt.train", "--steps", "1", "--samples", "1", "--quiet", cwd=tmp_path)
    assert out.startswith("num docs: 32868\n")
    here = python("-c", "import microgpt; print(microgpt.__file__)", cwd=tmp_path)
    assert Path(here.strip()).is_relative_to(tmp_path)


def test_the_twin_runs_where_there_is_no_engine(tmp_path: Path) -> None:
    """As on PyPy: no compiled module is looked for."""
    code = (
        "import sys, types; sys.implementation = types.SimpleNamespace(**{**vars(sys.implementation), 'name': 'other'})\n"
        "from microgpt.reference import Value; x = Value(3.0); (x * x).backward(); print(x.grad)\n"
        "print([name for name in sys.modules if name.startswith('microgpt._')])"
    )
    assert python("-c", code, cwd=tmp_path) == "6.0\n[]\n"


def test_version_is_that_of_the_distribution() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", microgpt.__version__)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {microgpt.__version__}" in changelog
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = microgpt.nothing


def test_every_public_function_has_a_docstring() -> None:
    for name in microgpt.__all__:
        assert getattr(microgpt, name).__doc__.splitlines()[0].endswith((".", ":")), name


def test_readme_examples_print_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = "".join(re.findall(r"```python\n(.*?)```", readme, re.S))
    exec(examples, {})
    shown = re.findall(r"^print\(.*\) +# (.*)$", examples, re.M)
    assert len(shown) == examples.count("print(") > 2
    assert capsys.readouterr().out.splitlines() == shown
