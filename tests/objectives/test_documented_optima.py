"""Every number in docs/objectives.md: each loss is minimised, and the page read."""

import ast
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import objectives
from tests.objectives.bandit import DIVERGENCES, expected, optimum, total_variation_optimum


def rows(page: str, *header: str) -> list[list[str]]:
    """The cells of the table whose header holds these words."""
    tables = [part.splitlines() for part in page.split("\n\n") if part.startswith("|")]
    (table,) = (table for table in tables if all(word in table[0] for word in header))
    lines = [line.replace(r"\|", "/")[1:-1].split("|") for line in table[2:]]
    return [[cell.strip() for cell in line] for line in lines]


@pytest.fixture(scope="module")
def page(repository) -> str:
    return (repository / "docs" / "objectives.md").read_text(encoding="utf-8")


def numbers(cell: str) -> list[float]:
    return [float(word) for word in cell.split()]


def policy_of(name: str, **options) -> np.ndarray:
    """The policy at which the loss of an objective or a divergence ends."""
    fields = {"temperature": options.pop("temperature", None), "with_entropy": True, "with_sum": True}
    if name == "total_variation":
        return np.asarray(jax.nn.softmax(jnp.asarray(total_variation_optimum(options["td_weight"]))))
    if name == "dft":  # Its value has another minimum: it is its gradient that is followed.
        gradient = jax.grad(expected(objectives.dft))
        descent = jax.lax.scan(lambda x, _: (x - 5.0 * gradient(x), None), jnp.zeros(3), length=5000)[0]
        return np.asarray(jax.nn.softmax(descent))
    if name in DIVERGENCES:
        options |= {"phi": DIVERGENCES[name]}
    if name in DIVERGENCES or name == "iqlearn":
        return np.asarray(
            jax.nn.softmax(
                optimum(lambda out: objectives.iqlearn(out, jnp.zeros_like(out.q), **options), **fields)[0]
            )
        )
    if "label_smoothing" in options:
        options["vocab_size"] = 3
    objective = getattr(objectives, name)
    return np.asarray(jax.nn.softmax(optimum(lambda out: objective(out, **options), **fields)[0]))


def check(cell: str, policy: np.ndarray) -> None:
    np.testing.assert_allclose(numbers(cell), policy, atol=5.1e-4)


def test_the_page_speaks_of_what_there_is(page, repository):
    tables = rows(page, "phi(x)") + rows(page, "option") + rows(page, "function")
    named = {row[0].strip("`") for row in tables}
    assert len(named) > 10 and named <= set(objectives.__all__)
    files = {path.name for path in (repository / "gin" / "objectives").glob("*.gin")}
    mentioned = set(re.findall(r"`(\w+\.gin)`", page))
    assert len(mentioned) > 10 and mentioned <= files


def test_optima_by_lambda(page):
    with jax.enable_x64(True):
        for name, _, _, *cells in rows(page, "phi(x)", "lambda = 0.5"):
            for weight, cell in zip((0.1, 0.5, 1.0), cells, strict=True):
                name = name.strip("`")
                option = "entropy_weight" if name == "entropy_regularised_mle" else "td_weight"
                check(cell, policy_of(name, **{option: weight}))


def test_optima_by_option(page):
    with jax.enable_x64(True):
        for name, option, _, cell in rows(page, "option"):
            key, _, value = option.strip("`").partition("=")
            check(cell, policy_of(name.strip("`"), **({key: ast.literal_eval(value)} if key else {})))


def test_optima_with_rewards(page):
    with jax.enable_x64(True):
        rewards = jnp.array([[0.0], [1.0], [0.0]])
        table = rows(page, "likelihood on")
        for likelihood, (_, *cells) in zip((1.0, rewards), table, strict=True):
            for weight, cell in zip((0.1, 1.0, 10.0), cells[:3], strict=True):
                found = policy_of("iqlearn", td_weight=weight, mle_weight=likelihood, rewards=rewards)
                check(cell, found)
            check(cells[3], np.asarray(jax.nn.softmax(rewards[:, 0])))
