"""Answers and what they are worth: generation, the task's metrics, diversity, quality-diversity fronts."""

from lmirl_jax.evaluation.comparison import verdict
from lmirl_jax.evaluation.diversity import distinct_n, self_bleu
from lmirl_jax.evaluation.evaluator import Evaluator, measure
from lmirl_jax.evaluation.front import Cell, table
from lmirl_jax.evaluation.generation import Answers, Generator
from lmirl_jax.evaluation.pareto import pareto_hull

__all__ = [
    "Answers",
    "Cell",
    "Evaluator",
    "Generator",
    "distinct_n",
    "measure",
    "pareto_hull",
    "self_bleu",
    "table",
    "verdict",
]
