#!/bin/sh
# Print the Python to make a virtual environment with, for an Airflow line (3.3, 3.0, 2.11).
# PYTHON=/path/to/python3 in the environment overrides the choice. Fails with one plain sentence.
set -eu

airflow=$1
case $airflow in
3.3) known="3.12 3.11 3.13" named="3.11, 3.12 or 3.13" ;;
*) known="3.11 3.12" named="3.11 or 3.12" ;; # Airflow 2.11 and 3.0 do not install on 3.13
esac
needed="Airflow $airflow with this package needs Python $named"
install="install one (Debian and Ubuntu: sudo apt install python3.11 python3.11-venv; macOS: brew install python@3.12), or name one with PYTHON=/path/to/python3."

fail() {
    printf 'Error: %s\n' "$1" >&2
    exit 1
}

# Sets $version, $missing (modules, "-" for none) and $path; false if $1 does not run, such as the
# empty shim of a version manager.
look_at() {
    found=$("$1" -c '
import sys
missing = []
for name in ("venv", "ensurepip", "ssl", "sqlite3", "ctypes"):
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
print("%d.%d" % sys.version_info[:2], ",".join(missing) or "-", sys.executable)
' 2>/dev/null) || return 1
    version=${found%% *}
    found=${found#* }
    missing=${found%% *}
    path=${found#* }
}

is_known() {
    case " $known " in
    *" $version "*) return 0 ;;
    *) return 1 ;;
    esac
}

# Prints what keeps this Python from making a virtual environment that Airflow runs in, if anything.
problem() {
    case $missing in
    -) ;;
    *venv* | *ensurepip*)
        echo "$path (Python $version) cannot make virtual environments because its venv module is incomplete: install it (Debian and Ubuntu: sudo apt install python$version-venv), or name another Python with PYTHON=/path/to/python3." ;;
    *)
        echo "$path (Python $version) was built without $missing: install a complete Python (Debian and Ubuntu: sudo apt install python$version python$version-venv), or name another one with PYTHON=/path/to/python3." ;;
    esac
}

if [ -n "${PYTHON:-}" ]; then
    look_at "$PYTHON" || fail "PYTHON=$PYTHON does not run: name a Python $named."
    is_known || fail "$needed, and PYTHON=$PYTHON is Python $version: $install"
    complaint=$(problem)
    [ -z "$complaint" ] || fail "$complaint"
    printf '%s\n' "$path"
    exit 0
fi

complaint='' others=''
for candidate in $(printf 'python%s ' $known) python3 python; do
    command -v "$candidate" >/dev/null 2>&1 && look_at "$candidate" || continue
    if ! is_known; then
        case " $others " in
        *" $version "*) ;;
        *) others="$others${others:+, }$version" ;;
        esac
    elif [ "$missing" = - ]; then
        printf '%s\n' "$path"
        exit 0
    elif [ -z "$complaint" ]; then
        complaint=$(problem)
    fi
done
[ -z "$complaint" ] || fail "$complaint"
[ -z "$others" ] || fail "$needed, and only Python $others was found: $install"
fail "$needed, and no Python was found: $install"
