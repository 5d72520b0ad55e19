"""A run's config.gin with random damage: it loads, or is refused in one line; the configuration before it stays."""

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmirl_jax import configuration
from lmirl_jax.types import UserError

# A fixed budget in CI; more by hand, as in LMIRL_FUZZ_EXAMPLES=20000.
fuzzed = settings(
    max_examples=int(os.environ.get("LMIRL_FUZZ_EXAMPLES", "150")),
    deadline=None,
    derandomize="LMIRL_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
WHOLE = """from __gin__ import dynamic_registration
from lmirl_jax import objectives
from lmirl_jax import training

# Macros:
LEARNING_RATE = 0.001
LENGTHS = {'inputs': 8, "targets": 8}
STEPS = 12

# Parameters for training.adamw:
training.adamw.learning_rate = %LEARNING_RATE
training.adamw.clip_norm = None
scope/training.adamw.b1 = 0.5
training.Offline.objective = @objectives.iqlearn
training.CheckpointConfig.period = %STEPS
"""
TOKENS = [
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    '"""',
    "=",
    "%",
    "@",
    "/",
    ".",
    ",",
    ":",
    "#",
    "\\",
    "\n",
    "    ",
    "\t",
    "\x00",
]
TOKENS += [
    "import ",
    "from ",
    "include 'a.gin'",
    "None",
    "1e999",
    "9" * 5000,
    "-",
    "@gin.REQUIRED",
    "%gin.REQUIRED",
    "é",
    "\u2028",
]
TOKENS += [
    "[" * 300,
    "import no_such_module\n",
    "training.adamw.no_such = 1\n",
    "lambda: 1",
    "__import__('os')",
    "\ufeff",
]
DAMAGE = st.lists(
    st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 8), st.sampled_from(TOKENS) | st.text(max_size=3)),
    max_size=4,
)


@fuzzed
@given(DAMAGE)
def test_a_damaged_configuration_loads_or_is_refused_in_one_line(tmp_path_factory, damages):
    text = WHOLE
    for place, removed, token in damages:
        text = text[:place] + token + text[place + removed :]
    path = tmp_path_factory.mktemp("run") / "config.gin"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with configuration.restore_afterwards():
        try:
            configuration.load([str(path)])
        except UserError as error:
            assert len(str(error).splitlines()) == 1, repr(str(error))
        else:
            written = configuration.config_text()
            configuration.load([configuration.GinText("written", written)])
            assert configuration.config_text() == written
