"""Every experiment as a recipe of NeMo-Run, read from its file in `conf/experiment`.

::

    import nemo_run as run
    from nemo_cosmos import recipes

    recipe = recipes.video2world_7b_example_hdvila(num_nodes=1, gpus_per_node=8, **{"trainer.max_steps": 1000})
    recipe.config.optimizer.lr = 1e-5
    run.run(recipe, executor=run.LocalExecutor(ntasks_per_node=8, launcher="torchrun"))

`dir(recipes)` lists them. NeMo-Run, of the extra `launch`, is imported when a recipe is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nemo_cosmos.compose import experiment_names
from nemo_cosmos.recipes.roots import ROOTS


def __getattr__(name: str) -> Callable[..., Any]:
    for root in ROOTS:
        if name in experiment_names(root):
            from nemo_cosmos.recipes.factory import recipe_factory

            return recipe_factory(name, root)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; `nemo-cosmos experiments` lists the recipes")


def __dir__() -> list[str]:
    return sorted(name for root in ROOTS for name in experiment_names(root))
