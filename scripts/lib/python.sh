# shellcheck shell=bash
# A Python with the tests' packages, in .cache/venv. Sourced by scripts/test and scripts/bench after docker.sh, whose
# say, die and apt_install it uses.

# The machine's Python: the first of these that is 3.11 or newer.
find_python() {
    local candidate
    for candidate in python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            PYTHON=$(command -v "$candidate")
            return
        fi
    done
    apt_install python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "Python 3.11 or newer is needed, and this system's python3 is older"
    PYTHON=$(command -v python3)
}

# ensure_venv FOLDER: VENV is a virtual environment with exactly FOLDER/tests/requirements.lock. One made from another
# lock file or another Python is thrown away; one that is right costs nothing.
ensure_venv() {
    local root=$1 key have
    find_python
    VENV=$root/.cache/venv
    key=$({ "$PYTHON" -VV && sha256sum <"$root/tests/requirements.lock"; } | sha256sum | cut -c 1-32)
    have=$(cat "$VENV/.key" 2>/dev/null || true)
    [[ $have != "$key" ]] || return 0
    if ! "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1; then apt_install python3-venv; fi
    say "making .cache/venv from tests/requirements.lock"
    rm -rf "$VENV"
    mkdir -p "$root/.cache"
    quietly "$PYTHON" -m venv "$VENV" || die "$PYTHON cannot make a virtual environment"
    quietly "$VENV/bin/python" -m pip install --quiet --no-deps --require-hashes -r "$root/tests/requirements.lock" ||
        die "pip could not install the tests' packages: is the network up?"
    printf '%s\n' "$key" >"$VENV/.key"
}
