"""`python -m lmirl_jax <command>` is `lmirl <command>`."""

import sys

from lmirl_jax.cli import run

if __name__ == "__main__":
    sys.exit(run())
