"""Any file as what `lmirl score` wrote: what it wrote is read back, and the rest is refused in one line."""

import dataclasses
import json
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmirl_jax.rewards import read_scored
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.rewards.scored_file import to_parquet
from lmirl_jax.types import UserError
from tests.rewards.test_scored_file import ANSWER

# A fixed budget in CI; more by hand, as in LMIRL_FUZZ_EXAMPLES=20000.
fuzzed = settings(
    max_examples=int(os.environ.get("LMIRL_FUZZ_EXAMPLES", "100")),
    deadline=None,
    derandomize="LMIRL_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
KEYS = [*ANSWER.to_row(), "messages"]


@st.composite
def changes(draw) -> dict:
    """What makes ANSWER another answer that `lmirl score` may write."""
    count, targets = draw(st.integers(0, 4)), draw(TEXT)

    def tuples(item):
        return tuple(draw(st.lists(item, min_size=count, max_size=count)))

    ends = st.integers(0, len(targets))
    messages = st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), min_size=1, max_size=3)
    return dict(
        example=draw(st.integers(0, 2**31)),
        inputs=draw(TEXT),
        targets=targets,
        reference=draw(st.none() | TEXT),
        id=draw(st.none() | TEXT),
        truncated=draw(st.booleans()),
        tokens=tuples(st.integers(0, 2**31 - 1)),
        pieces=tuples(TEXT),
        offsets=tuples(st.tuples(ends, ends).map(lambda pair: tuple(sorted(pair)))),
        reward=tuples(st.none() | NUMBER),
        reference_log_prob=tuples(NUMBER) if draw(st.booleans()) else None,
        centred_return=draw(st.none() | NUMBER),
        metrics=draw(st.dictionaries(TEXT, NUMBER, max_size=3)),
        messages=draw(st.none() | messages.map(tuple)),
        **{name: tuples(NUMBER) for name in ("q", "v", "log_prob", "entropy")},
    )


@fuzzed
@given(st.lists(changes(), min_size=1, max_size=3))
def test_what_was_written_is_read_back(tmp_path_factory, drawn):
    written = [dataclasses.replace(ANSWER, **each) for each in drawn]
    folder = tmp_path_factory.mktemp("scored")
    lines, columns = folder / "scored.jsonl", folder / "scored.parquet"
    lines.write_text("".join(json.dumps(answer.to_row()) + "\n" for answer in written), encoding="utf-8")
    to_parquet(lines, columns)
    assert list(read_scored(lines)) == list(read_scored(columns)) == written


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=6,
)


@fuzzed
@given(
    changes(), st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3), st.sampled_from(KEYS)
)
def test_other_values_are_refused_in_one_line_or_are_of_the_right_kind(tmp_path_factory, drawn, others, gone):
    """What is read can be written again, and is then the same."""
    path = tmp_path_factory.mktemp("scored") / "scored.jsonl"
    row = dataclasses.replace(ANSWER, **drawn).to_row() | others
    if len(others) == 3:
        row.pop(gone, None)
    path.write_text(json.dumps(row))
    try:
        (found,) = read_scored(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(path) in str(error)
    else:
        again = json.loads(json.dumps(found.to_row(), allow_nan=True))
        assert json.dumps(ScoredAnswer.from_row(again, "again").to_row()) == json.dumps(found.to_row())
        assert len(found.tokens) == len(found.q) == len(found.reward) == len(found.offsets)
