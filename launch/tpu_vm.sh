#!/usr/bin/env bash
# Runs one lmirl command on every worker of a TPU VM or pod slice: copies or clones the checkout, installs, starts.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: launch/tpu_vm.sh --name=NAME --zone=ZONE [flags] train --gin_file=... --gin.MODEL_DIR="'gs://bucket/run'" ...

  --name=NAME        the TPU VM or pod slice, as `gcloud compute tpus tpu-vm list` shows it
  --zone=ZONE        its zone
  --project=PROJECT  its project, where it is not gcloud's own
  --repo=URL         clone this repository on every worker; without it, this checkout's files are copied there
  --ref=REF          the branch, tag or commit of --repo (main)
  --folder=FOLDER    where the checkout goes, in the home folder of every worker (lmirl_jax)
  --dry_run          print the commands and run nothing

What follows the flags is a command of lmirl with its own flags. MODEL_DIR has to be a place that every worker reaches,
such as a bucket. A second call only copies what changed and installs nothing where the pins are the same.
TEXT
}

die() {
    printf '%s\n' "tpu_vm.sh: $1" >&2
    exit "${2:-1}"
}

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
name='' zone='' project='' repo='' ref='' folder=lmirl_jax dry_run=''
if (($# == 0)); then
    usage
    exit 2
fi
while (($#)); do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --dry_run) dry_run=1 ;;
    --name=* | --zone=* | --project=* | --repo=* | --ref=* | --folder=*)
        [[ -n ${1#*=} ]] || die "$1 has no value: write $1VALUE" 2
        flag=${1%%=*}
        printf -v "${flag#--}" '%s' "${1#*=}"
        ;;
    --name | --zone | --project | --repo | --ref | --folder)
        (($# > 1)) || die "$1 needs a value: $1=VALUE" 2
        printf -v "${1#--}" '%s' "$2"
        shift
        ;;
    -*) die "unknown flag '$1' before the command: flags here are --name --zone --project --repo --ref --folder --dry_run" 2 ;;
    *) break ;;
    esac
    shift
done
[[ -n $name ]] || die "--name is missing: --name=NAME as 'gcloud compute tpus tpu-vm list' shows it" 2
[[ -n $zone ]] || die "--zone is missing: --zone=ZONE, such as --zone=us-central2-b" 2
(($#)) || die "a command of lmirl is missing: end with train --gin_file=... and so on" 2
[[ -z $ref || -n $repo ]] || die "--ref=$ref goes with --repo=URL: this checkout is copied as it is" 2
[[ $folder =~ ^[A-Za-z0-9_.][A-Za-z0-9_./-]*$ ]] || die "--folder=$folder: use letters, digits and ._-/ only" 2

where=("--zone=$zone" --worker=all)
if [[ -n $project ]]; then where+=("--project=$project"); fi

# Prints words as one line of shell that the shell reads as exactly these words.
quoted() {
    local word line=
    for word in "$@"; do
        if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
    done
    printf '%s' "${line:1}"
}

run() {
    if [[ -n $dry_run ]]; then
        quoted "$@"
        printf '\n'
    else
        "$@" || die "this failed: $(quoted "$@")"
    fi
}

on_workers() { run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --command "$1"; }

fetch() {
    if [[ -n $repo ]]; then
        on_workers "set -e; test -d $folder/.git || git clone --quiet ${repo@Q} $folder; cd $folder; \
git fetch --quiet --tags origin ${ref:-main}; git checkout --quiet --detach FETCH_HEAD"
        return
    fi
    local archive
    if [[ -n $dry_run ]]; then
        archive=/tmp/lmirl_jax.tar.gz
    else
        archive=$(mktemp --suffix=.tar.gz)
        # shellcheck disable=SC2064  # The trap must hold the present name.
        trap "rm -f -- ${archive@Q}" EXIT
    fi
    run tar --create --gzip --file "$archive" --directory "$root" --exclude=__pycache__ \
        setup.py pyproject.toml constraints.txt LICENSE gin lmirl_jax tasks launch
    run gcloud compute tpus tpu-vm scp "$archive" "$name:lmirl_jax.tar.gz" "${where[@]}"
    on_workers "mkdir -p $folder && tar --extract --gzip --file lmirl_jax.tar.gz --directory $folder"
}

# The image of a TPU VM may have Python 3.10 alone: then Python 3.11 is installed.
python="python3 -c 'import ensurepip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
python3.11 -c 'import ensurepip' 2>/dev/null || \
(sudo apt-get -qq update && sudo apt-get -qq install --yes python3.11 python3.11-venv)"

# Whether a command runs over several processes: it then declares the flag --coordinator_address.
runs_over_processes() {
    python3 -I -B - "$root" "$1" <<'PYTHON' || die "python3 cannot read the commands of $root: install Python 3.9 or newer"
import sys

sys.path.insert(0, sys.argv[1])
from lmirl_jax.cli.commands import COMMANDS

command = COMMANDS.get(sys.argv[2])
print("yes" if command is not None and "coordinator_address" in command.flags else "no")
PYTHON
}

answer=$(runs_over_processes "$1")
# The workers of a slice find one another by themselves.
if [[ $answer == yes ]]; then set -- "$@" --coordinator_address=auto; fi

on_workers "$python"
fetch
# The same script as on any machine installs the pinned set, with the extra tpu.
on_workers "cd $folder && LMIRL_EXTRAS=tpu bash launch/local.sh $(quoted "$@")"
