"""Prints whether a command of lmirl runs over several processes, yes or no: it then declares the flag --coordinator_address.

Launchers ask on machines where nothing is installed: python3 -I -B launch/over_processes.py train
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lmirl_jax.cli.commands import COMMANDS

command = COMMANDS.get(sys.argv[1])
print("yes" if command is not None and "coordinator_address" in command.flags else "no")
