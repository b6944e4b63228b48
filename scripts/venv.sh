#!/bin/sh
# Make or renew a virtual environment: scripts/venv.sh DIR AIRFLOW EXTRA [PYTHON_VERSION]
#
#   scripts/venv.sh .venv 3.3 local               this package, editable, with its extra "local"
#   scripts/venv.sh .venv-py3.13 3.3 dev 3.13     the same with "dev", on Python 3.13 and no other
#   scripts/venv.sh .venv-docs none docs          what the extra "docs" names: no Airflow, not this package
#
# Answers at once when nothing has changed: a stamp keeps the checksum of pyproject.toml and of the
# constraints, and the place of this checkout. The extra "dev" includes "local".
set -eu

venv=$1 airflow=$2 extra=$3 version=${4:-}
cd "$(dirname "$0")/.."
case $airflow in
none) constraints=constraints/$extra.txt ;;
*) constraints=constraints/airflow-$airflow.txt ;;
esac
key="$(cat pyproject.toml "$constraints" | cksum) $(pwd)"

is_current() {
    [ "$(cat "$venv/.installed-$1" 2>/dev/null)" = "$key" ] && "$venv/bin/python" -c '' 2>/dev/null
}

if is_current dev || is_current "$extra"; then
    exit 0
fi

# Two targets of .ci/run may need the same environment. The lock ends with this script.
if command -v flock >/dev/null; then
    exec 9<scripts/venv.sh
    flock 9
    if is_current dev || is_current "$extra"; then
        exit 0
    fi
fi

# A virtual environment cannot be moved, and its Python may have gone since.
if [ "$(cat "$venv/.made-at" 2>/dev/null)" != "$(pwd)" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    python=$(sh scripts/find-python.sh "$airflow" $version)
    echo "Making $venv with $("$python" --version) ($python)"
    "$python" -m venv --clear --without-pip "$venv"
    pwd >"$venv/.made-at"
fi

if [ "$airflow" = none ]; then
    echo "Installing the packages of [$extra] into $venv"
    rm -f "$venv"/.installed-*
    "$venv/bin/python" -c '
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"][sys.argv[1]], sep="\n")
' "$extra" >"$venv/requirements.txt"
    "$venv/bin/python" scripts/install.py "$constraints" -r "$venv/requirements.txt"
    printf '%s' "$key" >"$venv/.installed-$extra"
    exit 0
fi

echo "Installing Airflow $airflow and this package [$extra] into $venv: a minute or two the first time"
rm -f "$venv"/.installed-*
"$venv/bin/python" scripts/install.py "$constraints" "apache-airflow==$airflow.*" --editable ".[$extra]"
# Compile the modules that are used: the tests' processes, which start together, would each compile
# them. With a home of its own, since Airflow writes its configuration there.
if ! AIRFLOW_HOME="$(pwd)/$venv/airflow" env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -W ignore -c '
import airflow.models.dagbag, airflow_jobs_provider.operators.jobs, airflow_jobs_provider.triggers.jobs
' >"$venv/.imported" 2>&1; then
    cat "$venv/.imported" >&2
    echo "Error: Airflow $airflow does not start in $venv; Python's own message is above." >&2
    exit 1
fi
# Likewise the tests, and what else they import. Six processes took a minute of processor time to
# compile it all; one takes ten seconds. A test that cannot be imported fails when the tests run.
case "$extra,${TEST_PROCESSES:-6}" in
*,1) ;;
dev*)
    env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m pytest --collect-only -q -p no:cacheprovider \
        --ignore=tests/end_to_end tests >/dev/null 2>&1 || :
    ;;
esac
printf '%s' "$key" >"$venv/.installed-$extra"
