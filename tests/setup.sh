# Sourced by tests/run and docs/quickstart, in the root of the repository, with $program
# set: makes .venv with the package in it, and sees to it that RabbitMQ is installed.
# shellcheck shell=sh

# neither an activated environment nor somebody's path may change what runs
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONSTARTUP PIP_USER PIP_TARGET PIP_PREFIX
unset CDPATH
root=$(pwd -P)

use_venv() { venv=$root/$1 stamp=$root/$1/installed; }
use_venv .venv

say() { printf '\n== %s\n' "$*"; }
fail() { printf '%s: %s\n' "$program" "$*" >&2; exit 1; }
may_install() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }
apt_install() {
    say "apt-get install $*"
    apt-get update -q &&
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"
    else set -- python3 python3.13 python3.12 python3.11; fi
    for python in "$@"; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
        then return; fi
    done
    fail "Python 3.11 or newer is needed, and '$1' is not; name one: PYTHON=/path/to/python3 $program"
}

# what an installation depends on: the project file, its place, the interpreter, and
# whether it holds the package alone or the development tools, too
wanted() {
    cksum < pyproject.toml
    echo "$root"
    "$python" -c 'import sys; print(sys.version, sys.base_prefix)'
    echo "$1"
}

is_set_up() {
    "$venv/bin/python" -c '' 2>/dev/null && [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted "$1")" ]
}

make_venv() {
    for place in "$root" "$venv"; do
        [ ! -e "$place" ] || [ -w "$place" ] ||
            fail "$place belongs to another user; run this as that user, or in a copy of your own"
    done
    say "make ${venv##*/} with $("$python" --version)"
    "$python" -m venv --clear "$venv" >/dev/null 2>&1 && return
    if may_install && apt_install python3-venv && "$python" -m venv --clear "$venv"
    then return; fi
    rm -rf "$venv" 2>/dev/null
    fail "$python cannot make virtual environments; on Debian, install this as root: apt-get install python3-venv"
}

install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# the package with its development tools
need_tools() {
    is_set_up tools && return
    make_venv
    say "install rmqarq and its development tools"
    install --upgrade pip
    install --group dev --editable .
    wanted tools > "$stamp"
}

# the package alone, if the tools are not there anyway
need_package() {
    if is_set_up package || is_set_up tools; then return; fi
    make_venv
    say "install rmqarq in it"
    install --editable .
    wanted package > "$stamp"
}

has_rabbitmq() {
    "$venv/bin/python" -c 'from tests.harness.broker import find_scripts as f; f()' 2>/dev/null
}

# the package may fail to start a node of its own, which nobody needs here
need_rabbitmq() {
    has_rabbitmq && return
    if may_install; then apt_install rabbitmq-server || true; fi
    has_rabbitmq && return
    fail "RabbitMQ is needed; on Debian, install it as root: apt-get install rabbitmq-server"
}
