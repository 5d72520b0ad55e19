"""Online against offline IQLearn on a chain whose actions are noisy, with and without a way back onto it.

    launch/local.sh python benchmarks/recovery_chain.py [--out=benchmarks/results/recovery_chain.json] [--seeds=10]

States lie on a line of 10. On it 2 of 4 actions advance, and the other 2 lead off it, to a state beside each position. There
1 action leads back (recovery) and the other 3 end the episode in failure; without recovery all 4 do. Success is the end of
the line. The environment replaces 1 action in 10 by a uniform one; what was intended is what is recorded, of the expert and
of the learner. The expert takes either advancing action and always recovers; it shows 5 episodes, so that most states beside
the line are in none of them. Policy: logits [states, actions], from 0; 1,500 updates of Adam; online 16 fresh episodes of
the policy an update. Success of the last policy is computed exactly. All forms have the same demonstrations, so that
differences are paired by seed. First the study itself, then what becomes of it with one setting changed.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
import scipy.stats
from provenance import provenance

from lmirl_jax import objectives, soft_q

LENGTH, ACTIONS, HORIZON = 10, 4, 20
NOISE, LEARNING_RATE = 0.1, 0.05
SUCCESS, FAILURE, STATES = 2 * LENGTH, 2 * LENGTH + 1, 2 * LENGTH + 2
LINE, BESIDE = np.arange(0, SUCCESS, 2), np.arange(1, SUCCESS, 2)


@dataclasses.dataclass(frozen=True)
class Chain:
    """The environment: state 2p is position p on the line, 2p + 1 beside it; the last two states are success and failure.

    The first `advancing` actions advance, action 0 recovers. With `astray_ends` False an action that does not recover stays
    beside the line until the horizon instead of failing.
    """

    recovery: bool = True
    advancing: int = 2
    astray_ends: bool = True

    def next_states(self) -> np.ndarray:
        """The next state after each action, [states, actions]; the two ends lead to themselves."""
        table = np.repeat(np.arange(STATES)[:, None], ACTIONS, axis=1)
        table[LINE] = LINE[:, None] + 1
        table[LINE, : self.advancing] = LINE[:, None] + 2
        if self.astray_ends:
            table[BESIDE] = FAILURE
        if self.recovery:
            table[BESIDE, 0] = LINE
        return table.astype(np.int32)

    def expert_logits(self) -> np.ndarray:
        """Uniform over the good actions of each state, [states, actions]."""
        good = np.where(np.arange(STATES) % 2 == 0, self.advancing, 1)[:, None]
        return np.where(np.arange(ACTIONS) < good, 0.0, -1e9).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Training:
    """A form of training: MLE at td_weight 0, offline IQLearn at alpha 0."""

    td_weight: float = 0.1
    alpha: float = 0.0
    rescale: bool = True
    discount: float = 1.0
    demonstrations: int = 5
    samples: int = 16
    updates: int = 1500


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Case:
    """A chain and a form as arrays, so that all share one compilation; weights are of expert tokens, of sampled ones."""

    next_states: Any
    expert_logits: Any
    discount: Any
    td_weight: Any
    mle_weights: Any
    penalty_weights: Any


def case_of(chain: Chain, training: Training) -> Case:
    weights = objectives.online_weights(jnp.array([0.0, 1.0]), alpha=training.alpha, rescale=training.rescale)
    td_weight = weights.td_factor * training.td_weight
    arrays = (chain.next_states(), chain.expert_logits(), training.discount, td_weight)
    return Case(*map(jnp.asarray, arrays), weights.mle_weight, weights.penalty_weight)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Episodes:
    """States and intended actions, [episodes, horizon], with weights, discounts and TD masks as batches have them."""

    states: Any
    actions: Any
    weights: Any
    discounts: Any
    td_weights: Any


def run_episodes(case: Case, logits, draws) -> Episodes:
    """Acts by softmax(logits) from the start of the line; an episode that reaches the horizon is truncated, not ended.

    The draws are uniform in [0, 1), [horizon, 2, episodes]: of the action, and of whether and by what it is replaced.
    """
    below = jnp.cumsum(jax.nn.softmax(logits), axis=-1)[:, :-1]

    def step(states, draws):
        choice, noise = draws
        actions = jnp.sum(choice[:, None] > below[states], axis=-1, dtype=jnp.int32)
        replaced = jnp.where(noise < NOISE, (noise * (ACTIONS / NOISE)).astype(jnp.int32), actions)
        return case.next_states[states, replaced], (states, actions)

    start = jnp.zeros(draws.shape[-1], jnp.int32)
    last, (states, actions) = jax.lax.scan(step, start, draws)
    states, actions = states.T, actions.T
    real = states < SUCCESS
    ends = jnp.concatenate([states[:, 1:], last[:, None]], axis=1) >= SUCCESS
    cut = jnp.broadcast_to(jnp.arange(HORIZON) == HORIZON - 1, real.shape) & ~ends
    discounts = case.discount * (real & ~ends & ~cut)
    return Episodes(states, actions, real.astype(float), discounts, (real & ~cut).astype(float))


def success_probability(next_states, logits):
    """The probability of reaching the end of the line within the horizon, exactly."""
    done = (1 - NOISE) * jax.nn.softmax(logits) + NOISE / ACTIONS
    moves = jnp.einsum("sa,sat->st", done, jax.nn.one_hot(next_states, STATES))
    return jnp.linalg.matrix_power(moves, HORIZON)[0, SUCCESS]


def loss(logits, case: Case, expert: Episodes, sampled: Episodes):
    """IQLearn on expert and on sampled tokens, each by their own count."""
    total = 0.0
    for kind, episodes in enumerate((expert, sampled)):
        per_token = objectives.iqlearn(
            soft_q.from_logits(logits[episodes.states], episodes.actions),
            episodes.discounts,
            td_weight=case.td_weight * episodes.td_weights,
            mle_weight=case.mle_weights[kind],
            penalty_weight=case.penalty_weights[kind],
        )
        total += jnp.sum(episodes.weights * per_token) / jnp.sum(episodes.weights)
    return total


@jax.jit
def train(case: Case, expert_draws, sampled_draws):
    """Trains all seeds; returns for each its logits, their success, and the states in its demonstrations.

    Draws are as `run_episodes` has them, [seeds, ...] of the expert, [seeds, updates, ...] of the policy's own samples.
    """
    optimizer = optax.adam(LEARNING_RATE)

    def one(expert_draws, sampled_draws):
        expert = run_episodes(case, case.expert_logits, expert_draws)

        def update(state, draws):
            logits, moments = state
            slope = jax.grad(loss)(logits, case, expert, run_episodes(case, logits, draws))
            change, moments = optimizer.update(slope, moments)
            return (optax.apply_updates(logits, change), moments), None

        logits = jnp.zeros((STATES, ACTIONS))
        (logits, _), _ = jax.lax.scan(update, (logits, optimizer.init(logits)), sampled_draws)
        shown = jnp.zeros(STATES, bool).at[expert.states].set(True)
        return logits, success_probability(case.next_states, logits), shown

    return jax.vmap(one)(expert_draws, sampled_draws)


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def study(chain: Chain, training: Training, seeds: int = 10) -> dict[str, np.ndarray]:
    """Returns the success of each seed, and over all seeds the recovery in states without demonstrations, and soft values."""
    expert_draws = uniform(0, seeds, HORIZON, 2, training.demonstrations)
    sampled_draws = uniform(1, seeds, training.updates, HORIZON, 2, training.samples)
    logits, success, shown = map(np.asarray, train(case_of(chain, training), expert_draws, sampled_draws))
    unseen = ~shown[:, BESIDE]
    values = scipy.special.logsumexp(logits, axis=-1)
    recovery = np.exp(logits[..., 0] - values)[:, BESIDE]
    return {
        "success": success.astype(np.float64),
        "recovery_unseen": np.mean(recovery[unseen]),
        "value_on_line": np.mean(values[:, LINE]),
        "value_beside_unseen": np.mean(values[:, BESIDE][unseen]),
    }


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """The mean of paired differences and its 95% t interval."""
    half = scipy.stats.sem(differences) * scipy.stats.t.ppf(0.975, len(differences) - 1)
    return differences.mean(), differences.mean() - half, differences.mean() + half


def compare(chain: Chain, training: Training, seeds: int = 10) -> dict:
    """MLE, offline and online IQLearn on one chain, with the interval of online less offline."""
    offline = dataclasses.replace(training, alpha=0.0)
    forms = {"mle": dataclasses.replace(offline, td_weight=0.0), "offline": offline, "online": training}
    found = {name: study(chain, form, seeds) for name, form in forms.items()}
    mean, low, high = interval(found["online"]["success"] - found["offline"]["success"])
    rows = {name: {key: round(float(np.mean(x)), 4) for key, x in row.items()} for name, row in found.items()}
    return rows | {"online_less_offline": [round(float(x), 4) for x in (mean, low, high)]}


def variations() -> list[tuple[dict, dict]]:
    """The variations of the chain and of the training, beginning with the study itself."""
    pairs = itertools.product((0.01, 0.1, 0.5, 1.0), (0.1, 0.2, 0.5))
    trainings = [
        {},
        *({"td_weight": weight, "alpha": alpha} for weight, alpha in pairs if (weight, alpha) != (0.1, 0.1)),
        *({"rescale": False, "alpha": alpha} for alpha in (0.1, 0.5)),
        *({"discount": discount} for discount in (0.0, 0.5, 0.9, 0.95)),
        *({"demonstrations": number} for number in (2, 10, 20)),
    ]
    chains = [{"advancing": 1}, {"advancing": 3}, {"astray_ends": False}]
    return [({}, training) for training in trainings] + [(chain, {}) for chain in chains]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file; without it the result is printed")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    results = []
    for chain, training in variations():
        settings = Training(**{"alpha": 0.1} | training)
        found = {
            name: compare(Chain(recovery=name == "with_recovery", **chain), settings, options.seeds)
            for name in ("with_recovery", "without_recovery")
        }
        results.append({"changed": chain | training} | found)
        print(chain | training, *(row["online_less_offline"] for row in found.values()), file=sys.stderr)
    head = provenance(options) | {
        "training": dataclasses.asdict(Training(alpha=0.1)),
    }
    text = json.dumps(head | {"results": results}, indent=2) + "\n"
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
