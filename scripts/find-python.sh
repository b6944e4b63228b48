#!/bin/sh
# Print the Python to make a virtual environment with: scripts/find-python.sh AIRFLOW [VERSION]
#
#   scripts/find-python.sh 3.3         any Python that is tested with Airflow 3.3
#   scripts/find-python.sh 3.3 3.13    Python 3.13, if it is tested with Airflow 3.3
#   scripts/find-python.sh none        any Python that the documentation can be built with
#
# Looks on PATH first, then among pyenv's versions. PYTHON=/path/to/python3 in the environment
# overrides the choice, but not a VERSION that it does not have. Fails with one plain sentence.
set -eu

fail() {
    printf 'Error: %s\n' "$1" >&2
    exit 1
}

airflow=$1 wanted=${2:-}
# In the order of preference.
case $airflow in
2.11 | 3.0) known="3.11 3.12" named="3.11 or 3.12" ;; # neither installs on 3.13
*) known="3.12 3.11 3.13" named="3.11, 3.12 or 3.13" ;;
esac
case $airflow in
none) needed="The documentation needs Python $named" ;;
*) needed="Airflow $airflow with this package needs Python $named" ;;
esac
if [ -n "$wanted" ]; then
    case " $known " in
    *" $wanted "*) known=$wanted named=$wanted needed="Python $wanted is needed" ;;
    *) fail "$needed, not $wanted." ;;
    esac
fi
if [ -n "$wanted" ]; then
    install="install it (Debian and Ubuntu: sudo apt install python$wanted python$wanted-venv; macOS: brew install python@$wanted; pyenv install $wanted), or name it with PYTHON=/path/to/python$wanted."
else
    install="install one (Debian and Ubuntu: sudo apt install python3.11 python3.11-venv; macOS: brew install python@3.12; pyenv install 3.12), or name one with PYTHON=/path/to/python3."
fi

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
    if is_known; then
        complaint=$(problem)
        [ -z "$complaint" ] || fail "$complaint"
        printf '%s\n' "$path"
        exit 0
    fi
    [ -n "$wanted" ] || fail "$needed, and PYTHON=$PYTHON is Python $version: $install"
fi

# Prints the paths of all candidates: those on PATH, then pyenv's versions.
candidates() {
    for name in $(printf 'python%s ' $known) python3 python; do
        command -v "$name" || true
    done
    for version in $known; do
        for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python"$version"; do
            [ ! -x "$path" ] || printf '%s\n' "$path"
        done
    done
}

complaint='' others=''
while read -r candidate; do
    look_at "$candidate" || continue
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
done <<END
$(candidates)
END
[ -z "$complaint" ] || fail "$complaint"
[ -z "$others" ] || fail "$needed, and only Python $others was found: $install"
fail "$needed, and no Python was found: $install"
