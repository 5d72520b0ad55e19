"""Given rewards through `lmirl train`: the bandit's optimum, and what becomes of rewards that nothing uses."""

import json

import numpy as np
import pytest
import scipy.optimize

from lmirl_jax import cli

EXPERT = np.array([0.7, 0.2, 0.1])
SETTINGS = [
    "--gin_file=gin/runs/finetune.gin",
    "--gin_file=gin/models/t5_1_1/tiny.gin",
    "--gin.MIXTURE_OR_TASK_NAME=None",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 2, 'targets': 2}",
    "--gin.models.T5Config.emb_dim=32",
    "--gin.models.T5Config.mlp_dim=64",
    "--gin.DROPOUT_RATE=0.0",
    "--gin.EVALUATIONS=[]",
    "--gin.BATCH_SIZE=8",
    "--gin.WARMUP_STEPS=10",
]


def write_bandit(path, rewards):
    """One prompt, three answers of one letter, as often as their weights say; five rows of weight 0 fill a batch."""
    actions = [
        {"inputs": "x", "targets": letter, "weight": 10 * share, "reward": float(reward)}
        for letter, share, reward in zip("abc", EXPERT, rewards, strict=True)
    ]
    idle = [{"inputs": "x", "targets": "a", "weight": 0.0, "reward": 0.0}] * 5
    path.write_text("".join(json.dumps(row) + "\n" for row in actions + idle))


def optimum(td_weight, rewards):
    """The policy of the letter at the stationary point, worked out by hand.

    An answer is a letter and its EOS. EOS is certain, so that Q(EOS) = v(EOS). With u = pi / pi_E of the letter, the
    occupancy ratio of both tokens is u, so that at gamma 1

        1 - 2 td_weight (Q(a) - v(EOS)) = u   and   1 - 2 td_weight (v(EOS) - g(a)) = u

    Their sum is pi(a) = pi_E(a) (1 - td_weight (Q(a) - g(a))), the bandit of one step at half the weight.
    """

    def residual(q):
        policy = np.exp(q) / np.exp(q).sum()
        return policy - EXPERT * (1 - td_weight * (q - rewards))

    q = scipy.optimize.root(residual, np.log(EXPERT), tol=1e-12).x
    assert np.abs(residual(q)).max() < 1e-10
    return np.exp(q) / np.exp(q).sum()


def test_the_hand_made_optimum_without_rewards_is_the_documented_one():
    """DESIGN's table of the bandit, whose lambda is half of this weight."""
    for weight, policy in {0.2: (0.64765, 0.22698, 0.12536), 2.0: (0.47255, 0.30723, 0.22022)}.items():
        np.testing.assert_allclose(optimum(weight, np.zeros(3)), policy, atol=1e-5)


@pytest.mark.slow
def test_the_bandits_optimum(tmp_path):
    rewards = (0.0, 1.0, -0.5)
    data, run, scores = tmp_path / "bandit.jsonl", tmp_path / "run", tmp_path / "scores.jsonl"
    write_bandit(data, rewards)
    train = [
        *SETTINGS,
        "--gin_file=gin/objectives/iqlearn.gin",
        f"--gin.DATA='{data}'",
        "--gin.TD_WEIGHT=1.0",
        "--gin.SHUFFLE_TRAIN_EXAMPLES=False",  # Every batch has all rows; Grain shuffles so few of them slowly.
    ]
    steps = [
        "--gin.TRAIN_STEPS=300",
        "--gin.LOG_PERIOD=100",
        "--gin.LEARNING_RATE=3e-3",
        "--gin.CHECKPOINT_PERIOD=10000",
    ]
    assert cli.main(["train", *train, *steps, f"--gin.MODEL_DIR='{run}'"]) == 0
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"inputs": "x", "targets": letter}) + "\n" for letter in "abc"))
    score = [f"--gin.CHECKPOINT_PATH='{run}'", f"--gin.DATA='{answers}'", f"--gin.OUTPUT_PATH='{scores}'"]
    assert cli.main(["score", "--gin_file=gin/runs/score.gin", *score]) == 0
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    policy = optimum(1.0, np.array(rewards))
    np.testing.assert_allclose(np.exp([row["log_prob"][0] for row in rows]), policy, atol=0.01)


def test_an_objective_that_uses_no_rewards_says_so(tmp_path, capfd):
    data = tmp_path / "bandit.jsonl"
    write_bandit(data, (0.0, 1.0, -0.5))
    train = [*SETTINGS, "--gin_file=gin/objectives/mle.gin", f"--gin.DATA='{data}'", "--gin.TRAIN_STEPS=1"]
    assert cli.main(["train", *train, f"--gin.MODEL_DIR='{tmp_path / 'run'}'"]) == 0
    line = "WARNING: the data give rewards, and OBJECTIVE=mle does not use them"
    assert capfd.readouterr().err.splitlines().count(line) == 1


def test_online_iqlearn_refuses_rewards(tmp_path, capfd):
    data = tmp_path / "bandit.jsonl"
    write_bandit(data, (0.0, 1.0, -0.5))
    online = ["--gin_file=gin/runs/online_iqlearn.gin", *SETTINGS[1:]]
    train = [*online, f"--gin.DATA='{data}'", "--gin.TRAIN_STEPS=1", f"--gin.MODEL_DIR='{tmp_path / 'run'}'"]
    assert cli.main(["train", *train]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("lmirl: online.OnlineIQLearn: the data give rewards")
    assert not (tmp_path / "run").exists()


def test_a_policy_gradient_says_that_it_does_not_use_them(tmp_path, capfd):
    data = tmp_path / "bandit.jsonl"
    write_bandit(data, (0.0, 1.0, -0.5))
    gail = ["--gin_file=gin/runs/gail.gin", *SETTINGS[1:]]
    train = [*gail, f"--gin.DATA='{data}'", "--gin.TRAIN_STEPS=1", f"--gin.MODEL_DIR='{tmp_path / 'run'}'"]
    assert cli.main(["train", *train]) == 0
    line = "WARNING: the data give rewards, and LEARNER=@online.PolicyGradient() does not use them"
    assert capfd.readouterr().err.splitlines().count(line) == 1
