"""Chat templates of strangers: any text is a template that renders, or is refused in one line, in bounded time and memory."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmirl_jax.data import chat_limits
from lmirl_jax.data.chat_template import ChatTemplate
from lmirl_jax.types import UserError
from tests.data.chat_templates import say

# A fixed budget in CI; more by hand, as in LMIRL_FUZZ_EXAMPLES=20000.
fuzzed = settings(
    max_examples=int(os.environ.get("LMIRL_FUZZ_EXAMPLES", "150")),
    deadline=None,
    derandomize="LMIRL_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ATOMS = [
    "messages",
    "loop",
    "self",
    "namespace",
    "range",
    "cycler",
    "dict",
    "raise_exception",
    "strftime_now",
    "ns",
    "''",
    "[]",
]
ATOMS += [
    "'a'",
    "0",
    "-1",
    "1.5",
    "999999999",
    "none",
    "{}",
    "('ab', 3)",
    "messages[0]",
    "'%99999999d'",
    "'{:99999999}'",
]
SUFFIXES = [
    ".__class__",
    ".mro",
    "|attr('__init__')",
    "|length",
    "|join(',')",
    "|list",
    "|tojson",
    "|center(9999999)",
    ".format(1)",
]
SUFFIXES += [
    "()",
    "(1)",
    "(9999999)",
    "[0]",
    "[::-1]",
    "|map('upper')",
    "|replace('a', 'aaaa')",
    ".content",
    " is defined",
    "|sort",
]
STATEMENTS = [
    "{% import 'os' as os %}",
    "{% include 'a' %}",
    "{% extends 'a' %}",
    "{% from 'a' import b %}",
    "{% break %}",
]
STATEMENTS += [
    "{% set ns = namespace(s='a') %}",
    "{% set ns.s = ns.s ~ ns.s %}",
    "{% block a %}{{ self.a() }}{% endblock %}",
]
STATEMENTS += [
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "#}",
    "{% raw %}",
    "{% endfor %}",
    "{% endif %}",
    "\x00",
    "\n",
    "{% else %}",
]


def expressions():
    atoms = st.sampled_from(ATOMS)
    suffixed = st.tuples(atoms, st.lists(st.sampled_from(SUFFIXES), max_size=3)).map(
        lambda pair: pair[0] + "".join(pair[1])
    )
    operator = st.sampled_from([" + ", " * ", " ** ", " ~ ", " % ", " // ", " == ", " in ", " and "])
    return st.tuples(suffixed, operator, suffixed).map("".join) | suffixed


def templates(depth=3):
    plain = expressions().map("{{{{ {} }}}}".format) | st.sampled_from(STATEMENTS) | st.text(max_size=4)
    if not depth:
        return plain
    inner = st.lists(templates(depth - 1), max_size=3).map("".join)
    loops = st.tuples(expressions(), inner).map(
        lambda pair: f"{{% for ns in {pair[0]} %}}{pair[1]}{{% endfor %}}"
    )
    macros = inner.map("{{% macro f(n) %}}{}{{{{ f(n) }}}}{{% endmacro %}}{{{{ f(1) }}}}".format)
    return plain | loops | macros


@fuzzed
@given(st.lists(templates(), max_size=4).map("".join))
def test_any_template_renders_or_is_refused_in_one_line(source):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_limits, "MAX_STEPS", 2000)
        try:
            text = ChatTemplate(source, {}, "template").render(say("a", "b"))
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 600
        else:
            text.encode()


LARGE = "a text of more than|with a number above|a format with a width|a list of more than|too large|too many digits"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{% for a in messages %}" * 12 + "{% endfor %}" * 12, "more than 20000 steps"),
        (
            "{% for i in 'a' * 20000 %}{% for j in 'a' * 20000 %}{% endfor %}{% endfor %}",
            "more than 20000 steps",
        ),
        (
            "{% for a in messages recursive %}{{ loop(a) }}{{ loop(messages) }}{% endfor %}",
            "more than 20000|without end",
        ),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
            "more than 20000 steps",
        ),
        (
            "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            LARGE,
        ),
        (
            "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            LARGE,
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            LARGE,
        ),
        (
            "{% set ns = namespace(s=10) %}{% for i in range(99) %}{% set ns.s = ns.s * ns.s %}{% endfor %}",
            LARGE,
        ),
        ("{% set a = ['a' * 20000] * 20000 %}{{ a }}", LARGE),
        ("{% set a = ['a' * 20000] * 20000 %}{{ a | join }}", LARGE),
        ("{{ ('a' * 20000) | replace('a', 'b' * 20000) }}", LARGE),
        ("{{ ('a' * 20000).replace('a', 'b' * 20000) }}", LARGE),
        ("{{ ('a' * 20000) | join('b' * 20000) }}", LARGE),
        ("{{ ('a' * 20000).join('b' * 20000) }}", LARGE),
        ("{{ ('a' * 20000).translate({97: 'b' * 20000}) }}", LARGE),
        ("{{ 'a' | center(10000000000) }}", LARGE),
        ("{{ 'a'.ljust(10000000000) }}", LARGE),
        ("{{ '\t'.expandtabs(10000000000) }}", LARGE),
        ("{{ (5).to_bytes(10000000000) }}", LARGE),
        ("{{ '%10000000000d' % 3 }}", LARGE),
        ("{{ '%*d' % (10000000000, 3) }}", LARGE),
        ("{{ '%10000000000d' | format(3) }}", LARGE),
        ("{{ '{:10000000000}'.format(3) }}", LARGE),
        ("{{ '{:{}}'.format(3, 10000000000) }}", LARGE),
        ("{{ ('\n' * 20000) | indent(20000) }}", LARGE),
        ("{{ messages | tojson(indent=10000000000) }}", LARGE),
        ("{{ [1] | batch(10000000000, 0) | list }}", LARGE),
        ("{{ [1] | slice(10000000000) | list }}", LARGE),
        ("{{ range(10000000000) | list }}", "steps in all"),
        ("{{ lipsum(n=1000000) }}", "'lipsum' is undefined"),
        ("{{ '\\ud800' }}", "half of a surrogate pair"),
    ],
)
def test_much_of_little_is_refused_before_it_is_made(source, error, monkeypatch):
    monkeypatch.setattr(chat_limits, "MAX_STEPS", 20_000)
    with pytest.raises(UserError, match=error) as caught:
        ChatTemplate(source, {}, "template").render(say("a", "b", "c"))
    assert len(str(caught.value).splitlines()) == 1
