# Sourced by scripts/demo and scripts/test: makes .venv in the repository's root and installs tinynet into it, once.
# Needs Python 3.11 or later with its venv module, nothing else. Sets $root and $python; defines set_up.
# shellcheck shell=sh

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
venv=$root/.venv
python=$venv/bin/python

# Whatever environment the caller is in stays out of this one.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH PIP_PREFIX PIP_PYTHON PIP_ROOT PIP_TARGET
export PIP_USER=0
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '%s: %s\n' "scripts/${0##*/}" "$*"; }
fail() {
    say "$@" >&2
    exit 1
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    without_venv=
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        is_recent "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            return
        fi
        without_venv=$candidate
    done
    [ -z "$without_venv" ] ||
        fail "$without_venv has no venv module; install it (Debian, Ubuntu: apt install python3-venv) and try again"
    fail "found no Python 3.11 or later (tried python3, python3.14 … python3.11, python); install one and try again"
}

make_venv() {
    if [ -e "$venv/made-by-tinynet" ]; then
        rm -rf "$venv"
    elif [ -e "$venv" ]; then
        fail "$venv is there and was not made by these scripts; move it away and try again"
    fi
    find_python
    say "making $venv with $("$candidate" --version) ($(command -v "$candidate"))"
    mkdir "$venv" && : >"$venv/made-by-tinynet" && : >"$venv/unfinished" || exit 1
    "$candidate" -m venv "$venv" || fail "could not make $venv"
    rm "$venv/unfinished"
}

# set_up EXTRA: have tinynet-grad[EXTRA] in .venv. The stamp says for what it was installed last; `unfinished` says that an
# install was cut off, after which a package may be there in part.
set_up() {
    stamp=$venv/installed-$1
    wanted=$(printf '%s\n' "$root" && cat "$root/pyproject.toml") || exit 1
    if [ ! -e "$venv/made-by-tinynet" ] || [ -e "$venv/unfinished" ] || ! is_recent "$python"; then
        make_venv
    elif [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    say "installing tinynet-grad[$1] into $venv (once; the first time takes minutes)"
    [ -t 1 ] && quiet= || quiet=--quiet
    : >"$venv/unfinished"
    "$python" -m pip install $quiet --disable-pip-version-check --no-input --editable "$root[$1]"
    status=$?
    [ $status -gt 128 ] || rm "$venv/unfinished"
    [ $status -eq 0 ] || fail "pip could not install tinynet-grad[$1]; see above, and try again"
    printf '%s\n' "$wanted" >"$stamp"
}
