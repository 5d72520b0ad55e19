"""`lmirl filter`: a training set of the best answers that `lmirl score` has scored."""

from lmirl_jax import configuration
from lmirl_jax.cli.configure import check_without_run, configure_without_run
from lmirl_jax.cli.flags import Flags

PATHS = ("SCORED", "OUTPUT_PATH")


def main(flags: Flags) -> int:
    configure_without_run(flags, "gin/runs/filter.gin", *PATHS)
    check_without_run(flags)
    from lmirl_jax.rewards import FilterConfig, filter_scored
    from lmirl_jax.types import UserError

    paths = {name: configuration.macro(name) for name in PATHS}
    for name, path in paths.items():
        if not isinstance(path, str) or not path:
            raise UserError(f"{name}={path!r} is no path: name a file")
    config = configuration.configured(FilterConfig)()
    print(filter_scored(paths["SCORED"], paths["OUTPUT_PATH"], config))
    return 0
