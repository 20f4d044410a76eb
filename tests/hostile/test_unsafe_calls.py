"""No call in the package reads a form that can run code: the syntax tree of every file is walked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trimtab

SOURCES = sorted(Path(trimtab.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "pty"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.FullLoader", "yaml.UnsafeLoader",
    "os.system", "os.popen", "torch.load", "torch.hub.load", "pandas.read_pickle", "pd.read_pickle",
    "subprocess.getoutput", "subprocess.getstatusoutput", "numpy.fromfile", "tarfile.open", "zipfile.ZipFile",
    "shutil.unpack_archive", "importlib.util.spec_from_file_location", "runpy.run_path",
}  # fmt: skip
LOADERS_OF_MODELS = {
    "AutoConfig", "AutoTokenizer", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoProcessor",
}  # fmt: skip

# the program that its user names with --judge FILE.py, in a process of its own
ON_REQUEST = {"verifier_worker.py": "calls importlib.util.spec_from_file_location"}


def faults(tree: ast.AST) -> Iterator[str]:
    """What is unsafe in one file, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno}: imports {name}" for name in named if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {why}" for why in unsafe(node))


def unsafe(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    told = {one.arg: one.value for one in call.keywords}
    if name in BUILTINS or name in CALLS:
        yield f"calls {name}"
    for word in ("shell", "allow_pickle", "trust_remote_code"):
        value = told.get(word)
        if isinstance(value, ast.Constant) and value.value:
            yield f"{word}={value.value} in {name}"
    if told.get("weights_only") is not None and ast.unparse(told["weights_only"]) != "True":
        yield f"weights_only is not True in {name}"
    owner, _, method = name.rpartition(".")
    if method in {"from_pretrained", "from_config"} and owner in LOADERS_OF_MODELS:
        if "trust_remote_code" not in told and None not in told:
            yield f"{name} does not say trust_remote_code: the library would ask at the terminal"
        if owner.startswith("AutoModel") and method == "from_pretrained" and "use_safetensors" not in told:
            yield f"{name} would also read pickles"
    if name.rpartition(".")[2] == "Environment" and "autoescape" not in told and "Sandbox" not in name:
        yield "a template environment that does not escape"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_unsafe_call(path: Path) -> None:
    found = list(faults(ast.parse(path.read_text(encoding="utf-8"))))
    assert [fault for fault in found if fault.partition(": ")[2] != ON_REQUEST.get(path.name)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from joblib import load", "torch.load(p)", "yaml.load(t, L)", "eval(t)", "exec(t)",
        "np.load(p, allow_pickle=True)", "subprocess.run(w, shell=True)", "os.system(w)", "f(trust_remote_code=True)",
        "AutoTokenizer.from_pretrained(p)", "AutoModelForCausalLM.from_pretrained(p, trust_remote_code=False)",
        "torch_load(p, weights_only=False)", "Environment(loader=x)", "import marshal",
    ],
)  # fmt: skip
def test_the_walk_finds_each(line: str) -> None:
    assert list(faults(ast.parse(line))) != []
