#!/usr/bin/env bash
# Runs one lmirl command on every worker of a TPU VM or pod slice: creates it, copies or clones the checkout, installs, starts,
# starts again after a preemption, and collects the results.
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
  --accelerator_type=TYPE  create it where it does not exist, such as v5litepod-256, v4-128, v5p-512 or v6e-256
  --version=VERSION  the software of the new one, where it is not the usual one of its type
  --spot             the new one may be preempted
  --queued           ask for the new one by a queued resource of the same name, and wait until it is there
  --restarts=N       start the command again up to N times, after a preemption or where it saved and ended with code 75 (0)
  --collect=FOLDER   after the end, copy MODEL_DIR from its bucket into FOLDER, all but the checkpoints
  --dry_run          print the commands and run nothing

Output of the workers is shown here as it comes. What follows the flags is a command of lmirl with its own flags.
MODEL_DIR has to be a place that every worker reaches,
such as a bucket. A second call only copies what changed and installs nothing where the pins are the same.
TEXT
}

die() {
    printf '%s\n' "tpu_vm.sh: $1" >&2
    exit "${2:-1}"
}

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
name='' zone='' project='' repo='' ref='' folder=lmirl_jax dry_run=''
accelerator_type='' version='' spot='' queued='' restarts=0 collect=''
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
    --dry_run | --spot | --queued) printf -v "${1#--}" 1 ;;
    --name=* | --zone=* | --project=* | --repo=* | --ref=* | --folder=* | --accelerator_type=* | --version=* | --restarts=* | --collect=*)
        [[ -n ${1#*=} ]] || die "$1 has no value: write $1VALUE" 2
        flag=${1%%=*}
        printf -v "${flag#--}" '%s' "${1#*=}"
        ;;
    --name | --zone | --project | --repo | --ref | --folder | --accelerator_type | --version | --restarts | --collect)
        (($# > 1)) || die "$1 needs a value: $1=VALUE" 2
        printf -v "${1#--}" '%s' "$2"
        shift
        ;;
    -*) die "unknown flag '$1' before the command: --help lists the flags" 2 ;;
    *) break ;;
    esac
    shift
done
[[ -n $name ]] || die "--name is missing: --name=NAME as 'gcloud compute tpus tpu-vm list' shows it" 2
[[ -n $zone ]] || die "--zone is missing: --zone=ZONE, such as --zone=us-central2-b" 2
(($#)) || die "a command of lmirl is missing: end with train --gin_file=... and so on" 2
[[ -z $ref || -n $repo ]] || die "--ref=$ref goes with --repo=URL: this checkout is copied as it is" 2
[[ $folder =~ ^[A-Za-z0-9_.][A-Za-z0-9_./-]*$ ]] || die "--folder=$folder: use letters, digits and ._-/ only" 2

[[ $restarts =~ ^[0-9]+$ ]] || die "--restarts=$restarts is no number of times" 2
[[ -n $accelerator_type || -z $version$spot$queued ]] || die "--version, --spot and --queued go with --accelerator_type=TYPE" 2

# The software that Cloud TPU's documentation names for each type.
usual_version() {
    case $1 in
    v2-* | v3-* | v4-*) printf 'tpu-ubuntu2204-base' ;;
    v5litepod-*) printf 'v2-alpha-tpuv5-lite' ;;
    v5p-*) printf 'v2-alpha-tpuv5' ;;
    v6e-*) printf 'v2-alpha-tpuv6e' ;;
    *) die "--accelerator_type=$1 has no usual software here: add --version=VERSION" 2 ;;
    esac
}

# The value of MODEL_DIR among the command's flags, without its quotes.
model_dir() {
    local word found=
    for word in "$@"; do
        if [[ $word == --gin.MODEL_DIR=* ]]; then found=${word#*=}; fi
    done
    found=${found#[\'\"]}
    printf '%s' "${found%[\'\"]}"
}

if [[ -n $accelerator_type && -z $version ]]; then version=$(usual_version "$accelerator_type"); fi
results=$(model_dir "$@")
[[ -z $collect || $results == gs://* ]] || die "--collect=$collect needs --gin.MODEL_DIR=\"'gs://...'\" in the command, not '$results'" 2
place=("--zone=$zone")
if [[ -n $project ]]; then place+=("--project=$project"); fi
where=("${place[@]}" --worker=all)

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

tpu=(gcloud compute tpus tpu-vm)
queue=(gcloud compute tpus queued-resources)
state_of() { "$@" describe "$name" "${place[@]}" '--format=value(state)' 2>/dev/null || true; }

# The command that creates the TPU VM, one word a line.
creation() {
    if [[ -n $queued ]]; then
        printf '%s\n' "${queue[@]}" create "$name" "--node-id=$name" "--runtime-version=$version"
    else
        printf '%s\n' "${tpu[@]}" create "$name" "--version=$version"
    fi
    printf '%s\n' "--accelerator-type=$accelerator_type" "${place[@]}" ${spot:+--spot}
}

wait_for_queue() {
    local state
    while :; do
        state=$(state_of "${queue[@]}")
        # The state of a queued resource is a structure, which gcloud prints as state=ACTIVE and so on.
        case $state in
        *ACTIVE*) return ;;
        *FAILED* | *SUSPEND*) die "the queued resource $name is ${state:-gone}: delete it and ask again" ;;
        esac
        printf '%s\n' "tpu_vm.sh: waiting for the queued resource $name (${state:-unknown})" >&2
        sleep "${LMIRL_POLL_SECONDS:-30}"
    done
}

# Makes sure that there is a TPU VM, with one that is gone or preempted made anew.
create() {
    [[ -n $accelerator_type ]] || return 0
    local command state
    mapfile -t command < <(creation)
    if [[ -n $dry_run ]]; then
        printf '%s || %s\n' "$(quoted "${tpu[@]}" describe "$name" "${place[@]}")" "$(quoted "${command[@]}")"
        return
    fi
    state=$(state_of "${tpu[@]}")
    if [[ $state == READY ]]; then return; fi
    if [[ -n $state && $state != CREATING ]]; then delete; fi
    run "${command[@]}"
    if [[ -n $queued ]]; then wait_for_queue; fi
}

delete() {
    if [[ -n $queued ]]; then
        run "${queue[@]}" delete "$name" "${place[@]}" --force --quiet
    else
        run "${tpu[@]}" delete "$name" "${place[@]}" --quiet
    fi
}

# The exit code of the command, as the workers return it.
start() {
    local started=("${tpu[@]}" ssh "$name" "${where[@]}" --command
        "cd $folder && LMIRL_EXTRAS=tpu bash launch/local.sh $(quoted "$@")")
    if [[ -n $dry_run ]]; then run "${started[@]}"; else "${started[@]}"; fi
}

attempt() {
    create
    on_workers "$python"
    fetch
    # The same script as on any machine installs the pinned set, with the extra tpu.
    start "$@"
}

answer=$(python3 -I -B "$root/launch/over_processes.py" "$1") ||
    die "python3 cannot read the commands of $root: install Python 3.9 or newer"
# The workers of a slice find one another by themselves.
if [[ $answer == yes ]]; then set -- "$@" --coordinator_address=auto; fi

for ((again = 0; ; again++)); do
    code=0
    (attempt "$@") || code=$?
    if ((code == 0)); then break; fi
    state=$(state_of "${tpu[@]}")
    # Another exit code on a machine that is well is an error, which would come again.
    if ((code != 75)) && [[ $state == READY ]]; then exit "$code"; fi
    if ((again >= restarts)); then
        die "the command ended with code $code and the TPU VM is ${state:-gone}; --restarts=N starts it again" "$code"
    fi
    [[ $state == READY || -n $accelerator_type ]] || die "the TPU VM is ${state:-gone}: --accelerator_type=TYPE creates it again" "$code"
    printf '%s\n' "tpu_vm.sh: start $((again + 1)) of $restarts after the first, as the TPU VM is ${state:-gone}" >&2
done
if [[ -n $collect ]]; then
    run gcloud storage rsync --recursive '--exclude=^checkpoints/' "$results" "$collect"
fi
