"""Networks without arrays, of any recipe."""

import dataclasses

from lmirl_jax.models.abstract import parameter_count, parameter_shapes
from tests.training.fakes import TINY


@dataclasses.dataclass
class WithAList:
    """A recipe that cannot be hashed, as a user may write it."""

    words: list[str]

    def build(self, key):
        return TINY.build(key)


def test_a_recipe_with_a_list_is_traced_too():
    config = WithAList(["a"])
    assert parameter_shapes(config) == parameter_shapes(TINY)
    assert parameter_count(config) == parameter_count(TINY) > 0
