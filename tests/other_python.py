"""Scripts in another Python, such as one with torch: one process runs them all, because their imports take the longest.

python other_python.py      reads a script and its arguments, a line of JSON, and answers with a line; until the input ends

This file runs where our library is not installed.
"""

import contextlib
import io
import json
import os
import pathlib
import runpy
import subprocess
import sys
import traceback


class OtherPython:
    """A process of another Python, which starts with the first script.

    Args:
        python: the path of the program.
    """

    def __init__(self, python: str):
        self.python = python
        self._process: subprocess.Popen | None = None

    def run(self, script: pathlib.Path | str, *arguments: object) -> str:
        """Runs a file, or the text of a program; returns what it prints.

        Raises:
            AssertionError: the script fails; with its traceback.
        """
        if self._process is None:
            self._process = self._start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        kind = "file" if isinstance(script, pathlib.Path) else "text"
        stdin.write(json.dumps({kind: str(script), "arguments": list(map(str, arguments))}) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"{self.python} ended with code {self._process.wait()}"
        answer = json.loads(line)
        assert answer["error"] is None, answer["error"]
        return answer["printed"]

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.communicate(timeout=60)

    def _start(self) -> subprocess.Popen:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([self.python, "-P", __file__], text=True, env=environment, **pipes)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What compiled libraries print does not come between the answers.
    for line in sys.stdin:
        asked, printed, error = json.loads(line), io.StringIO(), None
        try:
            with contextlib.redirect_stdout(printed):
                _run(asked)
        except BaseException:
            error = traceback.format_exc()
        print(json.dumps({"printed": printed.getvalue(), "error": error}), file=answers, flush=True)


def _run(asked: dict) -> None:
    file = asked.get("file")
    sys.argv = [file or "-c", *asked["arguments"]]
    if file is None:
        exec(compile(asked["text"], "<script>", "exec"), {"__name__": "__main__"})
        return
    if os.path.dirname(file) not in sys.path:
        sys.path.insert(0, os.path.dirname(file))
    runpy.run_path(file, run_name="__main__")


if __name__ == "__main__":
    _serve()
