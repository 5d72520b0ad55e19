"""Starts one `lmirl` command as several processes of this machine and waits for all of them.

`launch/local.sh --processes=COUNT COMMAND ...` calls `processes.py COUNT COMMAND ...`. Process 0 has the terminal. The output
of the others goes to files; if one of them fails, the end of its file is printed. The first failure ends all processes, and its
exit code is that of the whole. A signal to this program is passed on; after a SIGTERM, a training run has time to save.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

GRACE_SECONDS = 5.0
# After a SIGTERM, a training run finishes its step and saves. A second signal does not wait for it.
SAVE_SECONDS = 600.0
# The exit code of a training run that a SIGTERM ended and that is saved.
SAVED = 75
PRINTED_LINES = 20


class Interrupted(BaseException):
    """Raised when a signal asks this process to end; its argument is the number of the signal."""


def free_port() -> int:
    """Returns a port of this machine that no program uses."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(count: int, command: list[str], logs: pathlib.Path) -> list[subprocess.Popen]:
    """Starts the command once for each process, with the flags that let the processes find one another."""
    address = f"localhost:{free_port()}"
    processes = []
    for index in range(count):
        flags = [f"--coordinator_address={address}", f"--process_count={count}", f"--process_index={index}"]
        arguments = [sys.executable, "-P", "-m", "lmirl_jax", *command, *flags]
        # Each process has its own group, so that Ctrl-C reaches only this launcher, which passes it on once.
        if index == 0:
            processes.append(subprocess.Popen(arguments, process_group=0))
            continue
        with (logs / f"process_{index}.log").open("wb") as log:
            files = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            processes.append(subprocess.Popen(arguments, process_group=0, **files))
    return processes


def wait(processes: list[subprocess.Popen]) -> int | None:
    """Returns the index of the first process that fails, or None once all are done."""
    while True:
        codes = [process.poll() for process in processes]
        for index, code in enumerate(codes):
            if code:
                return index
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.05)


def end(processes: list[subprocess.Popen], by: int = signal.SIGTERM, seconds: float = GRACE_SECONDS) -> None:
    """Ends the processes that still run: by a signal, and after a grace period by force, as one may wait for another for ever."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(by)
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_by_themselves(processes: list[subprocess.Popen]) -> None:
    """Waits for processes that are about to end, and after the time that saving may take ends them by force."""
    deadline = time.monotonic() + SAVE_SECONDS
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    end(processes)


def print_end(index: int, logs: pathlib.Path) -> None:
    """Prints the last lines of a process's output."""
    lines = (logs / f"process_{index}.log").read_text(errors="replace").splitlines()
    for line in lines[-PRINTED_LINES:]:
        print(f"process {index}: {line}", file=sys.stderr)


def interrupt(signal_number: int, frame) -> None:
    """Handles a signal: raises `Interrupted` in the main program."""
    raise Interrupted(signal_number)


def main(count: int, command: list[str]) -> int:
    """Runs the command in several processes; returns one exit code for all."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, interrupt)
    logs = pathlib.Path(tempfile.mkdtemp(prefix="lmirl_processes_"))
    processes: list[subprocess.Popen] = []
    try:
        processes += start(count, command, logs)
        failed = wait(processes)
    except Interrupted as error:
        try:
            seconds = SAVE_SECONDS if error.args[0] == signal.SIGTERM else GRACE_SECONDS
            end(processes, by=error.args[0], seconds=seconds)
        except Interrupted:
            end(processes, by=signal.SIGKILL)
        shutil.rmtree(logs)
        saved = bool(processes) and all(process.returncode == SAVED for process in processes)
        return SAVED if saved else 128 + error.args[0]
    if failed is not None and processes[failed].returncode == SAVED:
        # The others stop at the same step, and the first one writes the last files.
        end_by_themselves(processes)
        shutil.rmtree(logs)
        return SAVED
    end(processes)
    if failed is None:
        shutil.rmtree(logs)
        return 0
    if failed:
        print_end(failed, logs)
    print(
        f"process {failed} of {count} failed and ended the others; their output is in {logs}", file=sys.stderr
    )
    code = processes[failed].returncode
    return code if code > 0 else 128 - code


if __name__ == "__main__":
    if "--help" in sys.argv[3:] or "-h" in sys.argv[3:]:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "lmirl_jax", *sys.argv[2:]])
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
