"""A walk over everything that gin files can set: each wrong value is refused in one line, or accepted for a stated reason.

The table below says what each argument may be, a second time and by hand: it is held against the annotations of the library.
"""

import math

import gin

from lmirl_jax import configuration, training

WRONG = [None, "a", "", True, -1, 0, 1.5, math.nan, math.inf, 1e39, [], {}, training.adamw]
# Of these values, the ones that an argument of each kind takes, and why.
KINDS = {
    "count": [],  # 1 or more of something
    "whole": [0],  # 0 or more of something
    "seed": [0],
    "positive": [1.5],
    "non-negative": [0, 1.5],
    "share": [0],  # from 0 to 1
    "positive share": [],  # above 0 and at most 1
    "share below 1": [0],
    "share below 1/2": [0],
    "number or schedule": [0, 1.5],
    "switch": [True],
    "text": ["a"],
    "label": ["a", ""],  # the empty one stands for no label
    "path": ["a"],  # whether something is there shows when it is read
    "choice": [],  # one of a few texts
    "lengths": [],
    "axis": [-1],  # of the mesh: -1 is what the others leave
    "numbers": [],  # a list of one or more
    "texts": ["a"],  # one or a list of one or more
    "functions": [{}],  # by name; none of them tests nothing
    "function": [training.adamw],  # any, with arguments that are seen at its first call
    "function of arrays": [],
    "objects": [[]],  # a list; none of them is nothing to do
    "object": [],  # what a configurable with brackets makes
    "caller": [],  # given by whoever calls the function: never set
}
# Of each configurable what its arguments may be, in their order; '?' marks those that may be None.
TABLE = {
    "cli.eval_script.evaluate": "caller object object object? object numbers path?",
    "cli.infer_script.infer": "caller object object object object non-negative path? object function?",
    "cli.report_plan.ReportConfig": "text? text? functions? function? seed",
    "cli.report_plan.RewardingRun": "caller caller caller object object object lengths share object? object function "
    "non-negative",
    "cli.reranking.Reranking": "switch? path? share? share",
    "cli.score_script.score": "caller caller object object object lengths share function function path? path? switch",
    "cli.sweep_plan.Policy": "caller caller caller object object object? object object",
    "cli.sweep_plan.SweepConfig": "numbers numbers text texts? text? whole positive?",
    "data.TrainDataset": "object count lengths text share seed switch switch path?",
    "data.get_task": "text? path? path? path?",
    "data.pairs": "object lengths path? text count? switch",
    "data.prompts": "function path? object lengths count? switch",
    "data.validation_dataset": "object lengths text count? share switch",
    "data.vocab_size": "object",
    "evaluation.Evaluator": "object? object non-negative label path",
}


def reached() -> dict[str, object]:
    """Every configurable of the library that a bundled gin file names, by its selector."""
    found = {}
    for name in configuration.bundled_files():
        configuration.load([name], complete=False)
        selectors = {selector for _, selector in gin.config._CONFIG}
        selectors |= {reference.selector for reference in gin.config.iterate_references(gin.config._CONFIG)}
        for selector in selectors:
            configurable = gin.config._REGISTRY.get_match(selector)
            if configurable.wrapped.__module__.startswith("lmirl_jax."):
                found[configurable.selector.removeprefix("lmirl_jax.")] = configurable.wrapped
    return found
