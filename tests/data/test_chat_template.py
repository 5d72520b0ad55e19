"""Chat templates: what they render, what they may not do, and where they are found; test_chat_parity has transformers."""

import copy
import json
import subprocess
import sys

import pytest

from lmirl_jax.data.chat_template import ChatTemplate, find_template
from lmirl_jax.data.tokenizer_files import read_files
from lmirl_jax.types import UserError
from tests.data import chat_templates
from tests.data.chat_templates import say


def render(source, messages=None, **options):
    template = ChatTemplate(source, {"bos_token": "<s>", "additional": "?"}, "chat_template.jinja")
    return template.render(say("é <b>") if messages is None else messages, **options)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # Blocks take their line's space and its end with them.
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{{ bos_token }}{{ messages[0]['content'] | tojson }}", '<s>"é <b>"'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=True) }}", '{\n "a": [\n  2\n ],\n "b": 1\n}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        (
            "{% for i in [1, 2] %}{% generation %}{{ i }}{% endgeneration %}{{ loop.index }}{% endfor %}",
            "1122",
        ),
        (
            "{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n * 2 }}{{ '=' * 3 }}{{ 2 ** 3 }}",
            "4===8",
        ),
        (
            "{{ dict(a=1)['a'] }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}",
            "1TrueTrueFalse",
        ),
        ("{{ strftime_now('%Y') | length }}{{ additional is defined }}", "4False"),
    ],
)
def test_the_dialect(source, expected):
    assert render(source) == expected


def test_values_of_none_are_left_out():
    messages = [{"role": "user", "content": "a", "name": None}]
    assert render("{{ messages[0].name is defined }}", messages) == "False"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (
            "a\n\n{{ raise_exception('no\nsystem') }}",
            r"jinja, line 3 refuses the conversation \(no system\): write its",
        ),
        ("a\n{{ messages.append(1) }}", r"jinja, line 2 fails \(SecurityError: access to attribute 'append'"),
        ("{{ ''.__class__.__mro__ }}", r"line 1 fails \(SecurityError: access to attribute '__class__'"),
        ("{% set ns = namespace() %}\n{% set ns.__x = 1 %}", r"line 2 fails \(SecurityError: the name '__x'"),
        ("{{ namespace(_x=1) }}", r"line 1 fails \(SecurityError: the name '_x'"),
        ("{% import 'os' as os %}", r"line 1 fails \(TypeError: no loader"),
        (
            "{{ messages[0].name.first }}",
            r"line 1 fails \(UndefinedError: 'dict object' has no attribute 'name'",
        ),
        ("{{ 1 + messages[0].content }}", r"line 1 fails \(TypeError: unsupported operand"),
        (
            "{% for %}",
            r"chat_template.jinja, line 1: TemplateSyntaxError: Expected an expression.*CHAT = False",
        ),
    ],
)
def test_errors_name_the_line_of_the_template(source, error):
    with pytest.raises(UserError, match=error) as raised:
        render(source)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "loops of more than",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError: it calls itself without end"),
        ("{{ 'a' * 10000000 }}", "a sequence of more than 1000000 elements"),
        ("{{ 10 ** 10 ** 10 }}", "is too large"),
    ],
)
def test_what_would_never_end_is_stopped(source, error):
    with pytest.raises(UserError, match=error):
        render(source)


def test_each_rendering_has_all_of_its_steps():
    template = ChatTemplate("{% for i in range(600000) %}{% endfor %}ok", {}, "t")
    assert [template.render([]), copy.deepcopy(template).render([]), template.render([])] == ["ok"] * 3


def test_a_role_is_taken_if_the_template_names_it():
    template = ChatTemplate(chat_templates.QWEN, {}, "t")
    assert template.names_role("tool") and not template.names_role("tools")


def test_the_places_of_a_template_in_their_order(hf_bytes, tmp_path):
    folder = tmp_path
    (folder / "tokenizer.json").write_bytes((hf_bytes / "tokenizer.json").read_bytes())
    assert find_template(read_files(folder)) is None
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "older"}))
    assert find_template(read_files(folder)).source == "older"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "{{ eos_token }}", "eos_token": "<e>"})
    )
    assert find_template(read_files(folder)).render([]) == "<e>"
    named = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert find_template(read_files(folder)).source == "d"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named[:1]}))
    with pytest.raises(UserError, match=r"none of the templates \(rag\) is named 'default'"):
        find_template(read_files(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": 3}))
    with pytest.raises(UserError, match=r"tokenizer_config.json, chat_template is int, not a string"):
        find_template(read_files(folder))
    (folder / "chat_template.jinja").write_bytes(b"new\r\nest")
    assert find_template(read_files(folder)).source == "new\nest"
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template.jinja: not UTF-8"):
        find_template(read_files(folder))


@pytest.mark.e2e
def test_runs_without_a_template_do_without_jinja2():
    code = (
        "import sys; from lmirl_jax import data; data.vocabulary().encode_prompt('a'); "
        "from lmirl_jax.data import dataset, file_task; sys.exit('tokenizers' in sys.modules or 'jinja2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0
