"""Statistics of arrays: bootstrap and Wilson intervals, permutation tests, and rank correlations of answers to prompts."""
