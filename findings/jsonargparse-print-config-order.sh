#!/usr/bin/env bash
# Expected: --print_config prints the configuration that the whole command line gives, wherever it
#   stands; and a required number that a YAML file sets to null is refused.
# Found: placed before --config FILE, it prints while that file is read and exits: without the
#   defaults, and without any option that comes after it. `width: null` for `width: int` is refused on
#   the command line and taken from a file. A key that stands twice in a file is taken without a word,
#   the last one wins.
# Matters: the printed file looks whole, is saved as the record of a run, and trains another model.
#   Partita moves --print_config to the end, and refuses nulls and twins by name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'jsonargparse[signatures]==4.53.0'
cat > "$folder/train.py" <<'PYTHON'
from jsonargparse import ArgumentParser


class Model:
    def __init__(self, width: int = 8, depth: int = 2) -> None:
        pass


parser = ArgumentParser()
parser.add_argument("--config", action="config")
parser.add_class_arguments(Model, "model")
print("taken:", parser.parse_args().model)
PYTHON
cd "$folder"
echo 'model: {width: 16}' > wide.yaml
echo 'model: {width: null}' > null.yaml
printf 'model: {width: 16}\nmodel: {depth: 4}\n' > twice.yaml
run() { echo "\$ train.py $*"; venv/bin/python train.py "$@" 2>&1 | sed 's/^/    /' || true; }
run --config wide.yaml --model.depth 3 --print_config
run --print_config --config wide.yaml --model.depth 3
run --model.width null
run --config null.yaml
run --config twice.yaml
