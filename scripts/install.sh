#!/usr/bin/env bash
# Create the virtual environment $VENV with exactly the packages of requirements.lock, and this repository
# installed editable so that notebooks find speceyes_lib from any folder. Called by `make env`.
# An environment that holds the library of another checkout is refused; with --check nothing else is done.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
REQUIRED='>=3.11.5,<3.14'

installed=$(ls "$VENV"/lib*/python*/site-packages/speceyes-*.dist-info/direct_url.json 2>/dev/null | head -n 1) || true
owner=$([ -z "$installed" ] || sed -n 's|.*"url": *"file://\([^"]*\)".*|\1|p' "$installed")
owner=$(printf '%b' "${owner//%/\\x}") # a blank is written %20
if [ -d "$owner" ] && [ "$(cd "$owner" && pwd -P)" != "$(pwd -P)" ]; then
    echo "$VENV belongs to the checkout $owner: what runs here would be its library. Remove $VENV (if it is a link," \
        "only the link goes: rm $VENV), or name another place: make VENV=.venv-here ..." >&2
    exit 2
fi
[ "${1:-}" != --check ] || exit 0

usable() { "$1" -c 'import sys; sys.exit(not (3, 11, 5) <= sys.version_info < (3, 14))' 2>/dev/null; }

if [ -n "${PYTHON:-}" ] && ! usable "$PYTHON"; then
    echo "PYTHON=$PYTHON is not a Python $REQUIRED. Name one that is, for example PYTHON=python3.12." >&2
    exit 2
fi

if command -v uv >/dev/null 2>&1; then
    echo "installing the environment with uv"
    [ -x "$VENV/bin/python" ] || uv venv --quiet --python "${PYTHON:-$REQUIRED}" "$VENV"
    # compiled now, once, as pip does: every kernel that starts would otherwise do it again where nothing may be kept
    uv pip install --quiet --compile-bytecode --python "$VENV/bin/python" --no-deps -r requirements.lock -e .
else
    echo "installing the environment with pip (uv is faster)"
    if [ ! -x "$VENV/bin/python" ]; then
        for candidate in ${PYTHON:-python3 python3.12 python3.13 python3.11}; do
            usable "$candidate" && break
            candidate=
        done
        if [ -z "$candidate" ]; then
            echo "No Python $REQUIRED found. Install one, or name it: PYTHON=/path/to/python3 make env" >&2
            exit 2
        fi
        "$candidate" -m venv "$VENV"
    fi
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$VENV/bin/python" -m ensurepip >/dev/null
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r requirements.lock -e .
fi
