"""Token rewards against a float64 computation from dense logits."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lmirl_jax.rewards.tokens import token_rewards
from tests.training.fakes import TINY, make_batch


def test_rewards_agree_with_dense_logits_in_float64():
    batch = jax.tree.map(jnp.asarray, make_batch(3, 6))
    model = TINY.build(jax.random.key(0))
    graph, state = nnx.split(model)
    found = token_rewards(graph, nnx.to_pure_dict(state), batch)
    hidden = np.asarray(model.hidden(batch), np.float64)
    logits = hidden @ np.asarray(model.unembedding().kernel, np.float64)
    v = np.log(np.exp(logits).sum(-1))
    for row, rewards in enumerate(found):
        size = int(batch.weights[row].sum())
        assert len(rewards) == size
        for t, reward in enumerate(rewards):
            q = logits[row, t, int(batch.decoder_target_tokens[row, t])]
            if t < size - 1:
                np.testing.assert_allclose(reward, q - v[row, t + 1], atol=1e-4)
            elif int(batch.decoder_target_tokens[row, t]) == 1:
                np.testing.assert_allclose(reward, q, atol=1e-4)
            else:
                assert reward is None  # cut off: what would come next is not known
