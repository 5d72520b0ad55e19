"""`lmirl filter`: a training set of the best answers that `lmirl score` has scored."""

from lmirl_jax import configuration
from lmirl_jax.arguments import Path
from lmirl_jax.cli.configure import check_without_run, configure_without_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.rewards import FilterConfig, filter_scored

PATHS = ("SCORED", "OUTPUT_PATH")


def main(flags: Flags) -> int:
    configure_without_run(flags, "gin/runs/filter.gin", *PATHS)
    check_without_run(flags)
    paths = {name: configuration.macro(name, hint=Path) for name in PATHS}
    config = configuration.with_configuration(FilterConfig)()
    print(filter_scored(paths["SCORED"], paths["OUTPUT_PATH"], config))
    return 0
