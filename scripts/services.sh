#!/bin/sh
# Look for PostgreSQL and Redis, which "make test-distributed" and
# "make bench-airflow EXECUTOR=CeleryExecutor" start for themselves on loopback.
# With INSTALL=1 in the environment what is missing is installed from Debian's packages, as root.
set -eu

has_postgres() {
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

missing=
has_postgres || missing="$missing postgresql"
command -v redis-server >/dev/null || missing="$missing redis-server"
[ -n "$missing" ] || exit 0

if [ "${INSTALL:-}" != 1 ]; then
    echo "Error: missing on this machine:$missing. Install the system's packages, or let" >&2
    echo "'make test-distributed INSTALL=1' do so (Debian and Ubuntu, as root)." >&2
    exit 1
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Error: INSTALL=1 needs apt-get and root. Missing:$missing" >&2
    exit 1
fi
apt-get update -qq
# The tests start servers of their own: the packages' services are not started.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
# shellcheck disable=SC2086 - a list of packages
apt-get install -qq -y --no-install-recommends $missing
