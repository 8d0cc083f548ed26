#!/usr/bin/env bash
# Runs the tests of one folder that are in Python, `erp` or `readers`, with the packages of PyPI that its requirements.txt
# names, which it installs into the target folder. `make test-<folder>` builds what they need first.
set -eu

name=$1
root=$(cd "$(dirname "$0")/.." && pwd)
here=$root/integration-tests/$name
export REUNION_TARGET=${CARGO_TARGET_DIR:-$root/target}
python=${PYTHON:-python3}
venv=$REUNION_TARGET/$name/venv

if ! "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "the tests of integration-tests/$name need Python 3.10 or newer with venv: apt-get install python3-venv," \
        "or name one, PYTHON=/path/of/python3 make test-$name" >&2
    exit 1
fi
# The list is put into the folder when all of it is installed.
if ! cmp --quiet "$here/requirements.txt" "$venv/requirements.txt"; then
    echo "installing the packages of integration-tests/$name into $venv"
    "$python" -m venv --clear "$venv"
    if ! "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"; then
        echo "the tests of integration-tests/$name need packages of PyPI, which pip could not install: see above" >&2
        exit 1
    fi
    cp "$here/requirements.txt" "$venv/"
fi
export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m unittest discover --verbose --start-directory "$here"
