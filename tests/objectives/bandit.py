"""What the tests of objectives share: random sequences, and the one-step bandit with its optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from lmirl_jax import objectives, soft_q

EXPERT = (0.7, 0.2, 0.1)

DIVERGENCES = {
    name: getattr(objectives, name)
    for name in (
        "chi_squared",
        "hellinger",
        "reverse_kl",
        "forward_kl",
        "jensen_shannon",
        "total_variation",
    )
}


def random_case(seed: int, length: int = 5, vocab: int = 7):
    keys = jax.random.split(jax.random.key(seed), 2)
    logits = 3 * jax.random.normal(keys[0], (2, length, vocab), jnp.result_type(float))
    return logits, jax.random.randint(keys[1], (2, length), 0, vocab)


def ended(length: int, gamma: float, rows: int = 2):
    return jnp.full((rows, length), gamma).at[:, -1].set(0.0)


def minimise(loss, logits):
    """The stationary point of a smooth loss of logits, to about 1e-9."""
    gradient = jax.jit(jax.value_and_grad(loss))

    def both(flat):
        value, slope = gradient(jnp.reshape(flat, logits.shape))
        return float(value), np.asarray(slope).ravel()

    out = scipy.optimize.minimize(
        both, np.asarray(logits).ravel(), jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    return jnp.asarray(out.x).reshape(logits.shape), out.fun


def expected(per_token, expert=EXPERT, **fields):
    """The bandit's loss as a function of its logits: one sequence of one token a word, weighted by the expert."""
    words = len(expert)

    def loss(logits):
        out = soft_q.from_logits(
            jnp.broadcast_to(logits, (words, 1, words)), jnp.arange(words)[:, None], **fields
        )
        return jnp.sum(jnp.asarray(expert) * per_token(out)[:, 0])

    return loss


def optimum(per_token, expert=EXPERT, **fields):
    """Logits and loss at the bandit's optimum, float64."""
    start = jnp.log(jnp.maximum(jnp.asarray(expert), 1e-4))
    return minimise(expected(per_token, expert, **fields), start)


def total_variation_optimum(td_weight):
    """By hand, for it has kinks: the rewards cut to +-1 / (8 lambda), and twice the expert's probability at most."""
    cut = 1 / (8 * td_weight)
    log_expert = np.log(EXPERT)
    if (
        2 * cut >= log_expert.max() - log_expert.min()
    ):  # All fits in; v is free within a range, here its middle.
        return log_expert - (log_expert.max() + log_expert.min()) / 2
    first = 0.8 / (1 + np.exp(-2 * cut))
    policy = np.array([first, 0.8 - first, 0.2])
    return np.log(policy) + cut - np.log(first)
