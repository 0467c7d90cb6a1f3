#!/bin/sh
# Writes the locks from pyproject.toml: `lock.sh` keeps pinned versions that still fit, `lock.sh --upgrade` takes the
# newest, `lock.sh --check` changes nothing and fails where a lock differs from what would be written.
set -eu
cd "$(dirname "$0")/.."

out=requirements
upgrade=""
case "${1:-}" in
--check)
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    cp requirements/*.txt "$out"
    ;;
--upgrade) upgrade=--upgrade ;;
"") ;;
*) echo "usage: lock.sh [--check | --upgrade]" >&2; exit 2 ;;
esac

compile() { # NAME ARGUMENTS…: from pyproject.toml, or from stdin, to requirements/NAME.txt
    name=$1
    shift
    "${UV:-uv}" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-annotate --no-header "$@" -o "$out/$name.txt" >/dev/null
}

# All extras first; the others take the same versions.
compile dev $upgrade --all-extras pyproject.toml
compile base -c "$out/dev.txt" pyproject.toml
compile demo -c "$out/dev.txt" --extra demo pyproject.toml
compile train -c "$out/dev.txt" --extra train pyproject.toml
compile datasets -c "$out/dev.txt" --extra datasets pyproject.toml
compile schemas -c "$out/dev.txt" --extra schemas pyproject.toml
# MLflow's server for docker-compose.yml, at the version of the client.
printf 'mlflow\n' | compile mlflow -c "$out/dev.txt" -
# What installs the rest: uv, and what builds this package and the sdists among the dependencies.
printf 'uv\nsetuptools>=77\n' | compile build $upgrade -

if [ "$out" != requirements ]; then
    diff -u requirements/dev.txt "$out/dev.txt" >&2 &&
        for lock in "$out"/*.txt; do cmp "requirements/$(basename "$lock")" "$lock" >&2; done ||
        { echo "requirements/ does not match pyproject.toml: run \`make lock\`" >&2; exit 1; }
fi
