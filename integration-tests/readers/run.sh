#!/usr/bin/env bash
# Runs the tests of other programs that read the state with its key: DuckDB, Polars and pyarrow, which it installs from PyPI
# into the target folder.
# `make test-readers` builds what they need first.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export REUNION_TARGET=${CARGO_TARGET_DIR:-$root/target}
python=${PYTHON:-python3}
venv=$REUNION_TARGET/readers/venv

if ! "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "the tests of other readers need Python 3.10 or newer with venv: apt-get install python3-venv," \
        "or name one, PYTHON=/path/of/python3 make test-readers" >&2
    exit 1
fi
# The list is put into the folder when all of it is installed.
if ! cmp --quiet "$here/requirements.txt" "$venv/requirements.txt"; then
    echo "installing DuckDB, Polars and pyarrow into $venv"
    "$python" -m venv --clear "$venv"
    if ! "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"; then
        echo "the tests of other readers need packages of PyPI, which pip could not install: see above" >&2
        exit 1
    fi
    cp "$here/requirements.txt" "$venv/"
fi
export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m unittest discover --verbose --start-directory "$here"
