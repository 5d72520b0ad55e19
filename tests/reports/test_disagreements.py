from lmirl_jax.reports.disagreements import misjudged_answers, pairs, ranked_prompts


def answers_of(scored_answer, *values):
    """Answers (example, return, metric), in that order."""
    return [
        scored_answer(f"{i}", example=example, candidate=i, total=total, metrics={"m": metric})
        for i, (example, total, metric) in enumerate(values)
    ]


def test_pairs_by_hand(scored_answer):
    own = answers_of(
        scored_answer,
        (0, 5.0, 0.0),
        (0, 4.0, 1.0),
        (0, 1.0, 1.0),
        (1, 3.0, 0.0),
        (1, 2.0, 1.0),
        (2, 2.0, 1.0),
        (2, 1.0, 0.0),
    )
    worst = pairs(own, "m", 2, agreeing=False)
    assert [(p.higher.targets, p.lower.targets) for p in worst] == [
        ("0", "2"),
        ("3", "4"),
    ]  # By 4 nats, by 1.
    best = pairs(own, "m", 9, agreeing=True)
    assert [(p.higher.targets, p.lower.targets) for p in best] == [("5", "6")]


def test_a_constant_metric_has_no_pairs_and_nothing_is_misjudged(scored_answer):
    own = answers_of(scored_answer, (0, 5.0, 1.0), (0, 4.0, 1.0))
    assert pairs(own, "m", 2, agreeing=True) == [] and pairs(own, "m", 2, agreeing=False) == []
    assert misjudged_answers(own, "m", 2, overrated=True) == []


def test_misjudged_answers_are_of_different_prompts(scored_answer):
    own = answers_of(scored_answer, (0, 9.0, 0.0), (0, 8.0, 0.0), (1, 7.0, 0.0), (2, 1.0, 1.0), (3, 2.0, 1.0))
    assert [a.targets for a in misjudged_answers(own, "m", 2, overrated=True)] == ["0", "2"]
    assert [a.targets for a in misjudged_answers(own, "m", 5, overrated=False)] == ["3", "4"]


def test_prompts_are_the_worst_the_middle_one_and_the_best(scored_answer):
    own = answers_of(
        scored_answer,
        *((0, float(i), float(i)) for i in range(4)),
        *((1, float(i), float(-i)) for i in range(4)),
        *((2, float(i), float(i % 2)) for i in range(4)),
        *((3, float(i), 1.0) for i in range(4)),
    )
    chosen = ranked_prompts(own, "m", 3)
    assert [ranked.answers[0][0].example for ranked in chosen] == [1, 2, 0]
    assert [a.total for a, _ in chosen[0].answers] == [3, 2, 1, 0]


def test_equal_answers_are_ranked_once(scored_answer):
    same = [scored_answer("a", candidate=i, total=1.0) for i in range(3)] + [
        scored_answer("b", candidate=3, total=2.0)
    ]
    (ranked,) = ranked_prompts(same, None, 3)
    assert [(a.targets, times) for a, times in ranked.answers] == [
        ("b", 1),
        ("a", 3),
    ] and ranked.correlation is None
