"""Evaluation of policies: answers, metrics of tasks, diversity, and quality-diversity fronts."""

from lmirl_jax.evaluation.answer_matches import chosen_letter, multiple_choice, number
from lmirl_jax.evaluation.comparison import verdict
from lmirl_jax.evaluation.corpus_metrics import (
    bleu,
    bleu_interval,
    bleu_signature,
    chrf,
    chrf_interval,
    chrf_signature,
    t5_bleu,
)
from lmirl_jax.evaluation.diversity import distinct_n, distinct_n_per_prompt, self_bleu, self_bleu_per_prompt
from lmirl_jax.evaluation.evaluator import Evaluator, measure
from lmirl_jax.evaluation.final_numbers import final_number
from lmirl_jax.evaluation.front import Cell, table
from lmirl_jax.evaluation.generation import Answers, Generator
from lmirl_jax.evaluation.metric_intervals import intervals, signatures
from lmirl_jax.evaluation.named_metrics import metric_functions
from lmirl_jax.evaluation.pareto import pareto_hull
from lmirl_jax.evaluation.text_metrics import by_prompt, exact_match, rouge, sentence_bleu, t5_rouge
from lmirl_jax.evaluation.token_prompts import TokenPrompts
from lmirl_jax.evaluation.voting import (
    maj_at_k,
    maj_at_k_per_prompt,
    majority,
    pass_at_k,
    pass_at_k_per_prompt,
    votes,
    weighted_maj_at_k,
    weighted_maj_at_k_per_prompt,
)
from lmirl_jax.statistics.bootstrap import bootstrap_interval
from lmirl_jax.statistics.proportions import mean_interval

__all__ = [
    "Answers",
    "Cell",
    "Evaluator",
    "Generator",
    "TokenPrompts",
    "bleu",
    "bleu_interval",
    "bleu_signature",
    "bootstrap_interval",
    "by_prompt",
    "chosen_letter",
    "chrf",
    "chrf_interval",
    "chrf_signature",
    "distinct_n",
    "distinct_n_per_prompt",
    "exact_match",
    "final_number",
    "intervals",
    "maj_at_k",
    "maj_at_k_per_prompt",
    "majority",
    "mean_interval",
    "measure",
    "metric_functions",
    "multiple_choice",
    "number",
    "pareto_hull",
    "pass_at_k",
    "pass_at_k_per_prompt",
    "rouge",
    "self_bleu",
    "self_bleu_per_prompt",
    "sentence_bleu",
    "signatures",
    "t5_bleu",
    "t5_rouge",
    "table",
    "verdict",
    "votes",
    "weighted_maj_at_k",
    "weighted_maj_at_k_per_prompt",
]
