#!/usr/bin/env bash
# Runs lmirl on this machine from a fresh checkout: makes .venv beside setup.py the first time, then runs the command.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/local.sh <command of lmirl> ...         any command: quickstart, train, eval, infer, score, report, --help
       launch/local.sh --processes=2 [--devices=4] train ...
                                                      that many CPU processes, each with so many devices (4)
       launch/local.sh --devices=8 train ...          one CPU process with 8 devices
       launch/local.sh test [arguments of pytest]     the tests of this checkout (-m 'not slow' for the quick ones, -m 'not e2e' for
                                                      those that start no processes)
       launch/local.sh python ...                     Python in the environment

The first call installs the pinned dependencies into .venv of this checkout (about two minutes, 4 GB). It needs Python
3.11 to 3.13: the one named by $PYTHON, or the first that it finds. LMIRL_EXTRAS=tpu (or cuda, wandb, parity) installs
that extra too.
TEXT
}

say() { printf '%s\n' "local.sh: $*" >&2; }
die() {
    say "$1"
    exit "${2:-1}"
}

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
venv=$root/.venv
python=$venv/bin/python
extras=test${LMIRL_EXTRAS:+,$LMIRL_EXTRAS}
stamp=$venv/.lmirl_installed # Holds the digest of what is installed; it is written last.
in_progress=$venv/.lmirl_installing # This file exists while an installation runs, or after one was interrupted.

# A Python from 3.11 to 3.13 that can make environments.
is_usable() {
    "$1" -I -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        is_usable "$PYTHON" || die "PYTHON=$PYTHON is no Python 3.11 to 3.13 with the modules venv and ensurepip: name another"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11; do
        if is_usable "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "no Python 3.11 to 3.13 with venv: install one (Debian: apt-get install python3 python3-venv) or set PYTHON"
}

# Prints a digest of what an installation depends on: its place (an editable one holds it), the extras, Python and the files.
installation_digest() {
    {
        printf '%s\n' "$root" "$extras"
        "$python" -I -S -c 'import sys; print(sys.version)'
        cat -- "$root/setup.py" "$root/constraints.txt"
    } | sha256sum | cut -d ' ' -f 1
}

is_installed() {
    [[ -f $stamp && -x $python ]] && [[ $(<"$stamp") == "$(installation_digest)" ]]
}

install() {
    local base existing=
    if [[ -e $in_progress || (-e $venv && ! -x $python) ]]; then
        rm -rf -- "$venv" # An installation was interrupted: pip would take its packages for complete ones.
    fi
    if [[ -e $venv ]]; then
        existing=1 # The user made it, or we did for other pins: pip changes what differs and keeps the rest.
        rm -f -- "$stamp"
        : >"$in_progress"
    else
        base=$(find_python)
        mkdir -- "$venv"
        : >"$in_progress"
        "$base" -m venv -- "$venv" >&2 || die "$base cannot make $venv"
    fi
    say "installing lmirl_jax and its dependencies into $venv, once: this takes about two minutes"
    # -I ignores PYTHONPATH, whose modules are not installed packages. The call is made in the folder: a path may have spaces.
    if ! (cd -- "$root" && PIP_USER=0 "$python" -I -m pip install -qq --disable-pip-version-check --no-input \
        --constraint constraints.txt --editable ".[$extras]" </dev/null >&2); then
        if [[ -n $existing ]]; then rm -f -- "$in_progress"; fi
        die "the installation failed: see the lines above; the next call tries again"
    fi
    installation_digest >"$stamp"
    rm -f -- "$in_progress"
}

ensure_installed() {
    is_installed && return
    if ! command -v flock >/dev/null; then
        install
        return
    fi
    # Where two calls run at once, the second waits and then finds the work done. The lock is on a file that always exists.
    exec 9<"$root/setup.py"
    if ! flock --nonblock 9; then
        say "waiting for another installation in $venv"
        flock 9
    fi
    is_installed || install
    exec 9<&-
}

# Tests open pages in a browser, and skip where there is none. Continuous integration, which sets $CI, installs one.
ensure_browser() {
    local name
    for name in chromium chromium-browser google-chrome chrome; do
        if command -v "$name" >/dev/null; then return; fi
    done
    if [[ -z ${CI:-} ]] || ! command -v apt-get >/dev/null; then return; fi
    say "installing chromium for the tests that open pages"
    {
        timeout 120 apt-get -qq update &&
            DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq install -y --no-install-recommends chromium
    } </dev/null >/dev/null 2>&1 || say "chromium could not be installed: the tests that open pages are skipped"
}

# Tests compare with other libraries, and skip where these are not. Continuous integration installs them, each in a place of its
# own, because they conflict with what is tested, or bring versions of what it uses too.
ensure_beside() {
    local place=$root/$1 what=$2 given=$3 install=$4
    if [[ -n $given || -z ${CI:-} || -f $place/.lmirl_installed ]]; then return; fi
    say "installing $what into $place for the tests that compare with it"
    if (cd -- "$root" && "$python" -I -m venv --clear -- "$place" && "$install" "$place/bin/python") </dev/null >&2; then
        : >"$place/.lmirl_installed"
    else
        say "$what could not be installed: the tests that compare with it are skipped"
    fi
}

# Python compiles what it imports, which is a small part of what is installed.
pip_install() {
    PIP_USER=0 timeout 900 "$1" -I -m pip install -qq --disable-pip-version-check --no-input --no-compile "${@:2}"
}

install_transformers() { pip_install "$1" --requirement tests/interop/requirements.txt; }

# Beam, over the environment of the tests. It allows neither our protobuf, with which it runs all the same, nor our pins of a
# few more.
install_beam() {
    local folder='import sysconfig; print(sysconfig.get_path("purelib"))' pins=$root/.venv-beam/constraints.txt
    printf 'import site; site.addsitedir("%s")\n' "$("$python" -c "$folder")" >"$("$1" -c "$folder")/of_the_tests.pth" &&
        grep -v -E '^(beartype|pillow|protobuf|pyarrow|python-dateutil)==' constraints.txt >"$pins" &&
        pip_install "$1" --constraint "$pins" apache-beam==2.77.0 &&
        pip_install "$1" --constraint constraints.txt --no-deps protobuf
}

# The TPU compiler. In the environment of the tests themselves every process that starts JAX would look for TPUs.
install_libtpu() { pip_install "$1" --constraint constraints.txt --no-deps libtpu; }

number() {
    [[ ${1#*=} =~ ^[1-9][0-9]*$ ]] || die "$1: write a number, ${1%%=*}=4" 2
    printf '%s\n' "${1#*=}"
}

processes=
devices=
while (($#)); do
    case $1 in
    --processes=*) processes=$(number "$1") ;;
    --devices=*) devices=$(number "$1") ;;
    --processes | --devices)
        (($# > 1)) || die "$1 needs a number: $1=4" 2
        if [[ $1 == --processes ]]; then processes=$(number "$1=$2"); else devices=$(number "$1=$2"); fi
        shift
        ;;
    *) break ;;
    esac
    shift
done

if (($# == 0)); then
    usage
    exit 2
fi

if ((${processes:-1} > 1)); then
    if [[ $1 == test || $1 == python ]]; then die "--processes is for commands of lmirl, not for $1" 2; fi
    devices=${devices:-4}
fi
ensure_installed
if [[ -n $devices ]]; then
    export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices
fi
if ((${processes:-1} > 1)); then
    exec "$python" -P "$root/launch/processes.py" "$processes" "$@"
fi
case $1 in
test)
    shift
    ensure_browser &
    ensure_beside .venv-parity "torch and transformers" "${LMIRL_PARITY_PYTHON:-}" install_transformers &
    ensure_beside .venv-beam "Apache Beam" "${LMIRL_BEAM_PYTHON:-}" install_beam &
    ensure_beside .venv-libtpu "the TPU compiler" "${LMIRL_LIBTPU:-}" install_libtpu &
    wait
    cd -- "$root"
    exec "$python" -P -m pytest -c "$root/pyproject.toml" --rootdir "$root" "$@"
    ;;
python)
    shift
    exec "$python" "$@"
    ;;
*) exec "$python" -P -m lmirl_jax "$@" ;;
esac
