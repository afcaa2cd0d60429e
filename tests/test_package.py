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
from process import python

import microgpt
from microgpt import _functions, _graph, _matrix, _tape, _value, _vector, reference

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("module", [_functions, _graph, _matrix, _tape, _value, _vector])
def test_the_engine_is_compiled(module: object) -> None:
    assert isinstance(module.__loader__, importlib.machinery.ExtensionFileLoader)


def test_import_pulls_in_the_standard_library_only(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import microgpt; print(*(set(sys.modules) - before))"
    names = {name.partition(".")[0] for name in python("-c", code, cwd=tmp_path).split()}
    # cython_runtime and _cython_...: bookkeeping of the compiled modules, made in memory
    foreign = {name for name in names if name not in sys.stdlib_module_names and "cython" not in name}
    assert foreign == {"microgpt"}


def loaded_by(code: str) -> set[str]:
    """The modules that a bare Python has after `code`, beside its own."""
    folder = Path(_tape.__file__ or "").parent.parent  # without `site`, which may import much on its own
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    bare = f"import sys; sys.path = [{str(folder)!r}, *sys.path, *{dependencies}]; before = set(sys.modules)\n{code}\n"
    command = [sys.executable, "-I", "-S", "-c", bare + "print(*(set(sys.modules) - before), file=sys.stderr)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr.split())


SLOW = {"email", "hashlib", "json", "logging", "multiprocessing", "pathlib", "safetensors", "subprocess", "tqdm", "urllib"}


def test_import_loads_nothing_that_takes_longer_than_the_engine() -> None:
    loaded = loaded_by("import microgpt")
    assert {"microgpt._value", "microgpt._functions"} <= loaded
    assert not loaded & (SLOW | {"argparse", "ast", "dataclasses", "inspect", "random", "re", "typing", "microgpt.model"})
    assert {"dataclasses", "inspect", "microgpt.model"} <= loaded_by("from microgpt import GPT")


def test_training_without_bar_log_or_file_loads_none_of_what_they_need() -> None:
    loaded = loaded_by("from microgpt.train import main; main(['--steps', '1', '--samples', '1'])")
    assert {"argparse", "microgpt.trainer"} <= loaded
    assert not loaded & (SLOW | {"microgpt.checkpoint", "microgpt.plot", "microgpt.resume"})
    assert "json" in loaded_by(f"from microgpt.train import main; main(['--steps', '1', '--log', {os.devnull!r}])")


def test_names_that_are_imported_later_are_attributes_from_the_start(tmp_path: Path) -> None:
    code = "import microgpt; print(microgpt.{0}.__name__, '{0}' in dir(microgpt), microgpt.{0} is microgpt.{0})"
    for name in ("GPT", "GPTConfig", "Adam", "CharTokenizer", "generate"):
        assert python("-c", code.format(name), cwd=tmp_path) == f"{name} True True\n"
    for name in ("checkpoint", "files", "model", "optim", "plot", "ranges", "resume", "sampler", "tokenizer"):
        assert python("-c", code.format(name), cwd=tmp_path) == f"microgpt.{name} True True\n"
    assert python("-c", "from microgpt import *; print(GPT, Adam)", cwd=tmp_path).startswith("<class 'microgpt.model.GPT'>")


def test_public_names_are_there_and_the_twin_has_them() -> None:
    assert all(hasattr(microgpt, name) for name in microgpt.__all__)
    assert all(hasattr(reference, name) for name in reference.__all__)
    engine_only = {"CharTokenizer", "GPTConfig", "Matrix", "Program", "Rows", "Vector", "no_grad", "program", "record"}
    shared = set(microgpt.__all__) - engine_only
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


def package_without_engine(folder: Path, *others: str) -> Path:
    """A copy of the package without compiled modules, but for `others`; returns its folder."""
    source = Path(_tape.__file__ or "").parent
    shutil.copytree(source, folder / "microgpt", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    for other in others:
        shutil.copy(source / other, folder / "microgpt" / other)
    return folder / "microgpt"


def import_error(folder: Path) -> str:
    """The last line of what the import of the package in `folder` says, with no other one on the path."""
    code = f"import sys; sys.path = [{str(folder)!r}, *(p for p in sys.path if 'site-packages' not in p)]; import microgpt"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=folder, timeout=60)
    assert result.returncode == 1
    return result.stderr.splitlines()[-1]


ENGINE = Path(_tape.__file__ or "").name


def test_an_engine_that_is_not_there_is_to_be_installed(tmp_path: Path) -> None:
    package_without_engine(tmp_path)
    assert import_error(tmp_path) == "ImportError: the compiled engine of microgpt is not installed: run `pip install .` first"


def test_an_engine_of_another_python_is_named(tmp_path: Path) -> None:
    other = package_without_engine(tmp_path) / "_tape.cpython-27-other.so"
    shutil.copy(Path(_tape.__file__ or ""), other)
    assert import_error(tmp_path) == (
        f"ImportError: the compiled engine of microgpt is for another Python, {other}, and not for this one, whose files end in "
        f"{importlib.machinery.EXTENSION_SUFFIXES[0]}: run `pip install .` first"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="each loader has words of its own")
@pytest.mark.parametrize(("size", "words"), [(0, "file too short"), (100, "cannot read file data"), (-1, "invalid ELF header")])
def test_an_engine_that_does_not_load_says_the_loaders_words(size: int, words: str, tmp_path: Path) -> None:
    engine = package_without_engine(tmp_path, ENGINE) / ENGINE
    content = engine.read_bytes()
    engine.write_bytes(content[:size] if size >= 0 else b"x" * 64 + content[64:])
    assert import_error(tmp_path) == f"ImportError: {engine}: {words}"


def test_a_damaged_engine_is_not_passed_over_for_the_installed_one(tmp_path: Path) -> None:
    damaged, good = tmp_path / "damaged", tmp_path / "good"
    damaged.mkdir()
    (package_without_engine(damaged, ENGINE) / ENGINE).write_bytes(b"")
    shutil.copytree(Path(_tape.__file__ or "").parent, good / "microgpt")
    code = f"import sys; sys.path[:0] = [{str(damaged)!r}, {str(good)!r}]; import microgpt"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert str(damaged / "microgpt" / ENGINE) in result.stderr


def test_a_subinterpreter_is_told_that_it_cannot_have_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("_xxsubinterpreters", reason="made otherwise in this Python")
    inside = "try:\n    import microgpt\nexcept ImportError as error:\n    print(error)"
    code = (
        "import microgpt, sys, _xxsubinterpreters as i; j = i.create(isolated=False)\n"
        f"i.run_string(j, 'import sys; sys.path = ' + repr(sys.path)); i.run_string(j, {inside!r})"
    )
    assert "interpreter" in python("-c", code, cwd=tmp_path)


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
