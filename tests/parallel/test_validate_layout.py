"""A layout that cannot be is refused with layouts that can."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from nemo_cosmos.config import ParallelConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.parallel.layout import NetworkShape, validate_layout


@pytest.mark.parametrize(
    ("settings", "world", "batch", "message"),
    [
        ({"tensor": 3}, 12, 12, r"tensor=3 does not divide the network's 32 attention heads.*Valid near it: parallel"),
        ({"context": 3}, 8, 8, r"8 processes are not divisible.*Valid near it: parallel.context=(2|4)"),
        ({"pipeline": 8}, 8, 8, r"pipeline=8 does not divide the network's 28 layers.*Valid near it: parallel"),
        ({}, 8, 3, r"global_batch=3 is not divisible.*use a multiple of 8.*Valid near it: .*1 replica\)"),
        ({"tensor": 8, "context": 8, "context_backend": "all_to_all"}, 64, 1, r"all_to_all needs.*Valid near it"),
    ],
)
def test_an_invalid_layout_names_valid_ones(settings: dict[str, Any], world: int, batch: int, message: str) -> None:
    parallel, shape = ParallelConfig(**settings), NetworkShape(28, 32)
    with pytest.raises(InputError, match=message) as caught:
        validate_layout(parallel, shape, world_size=world, global_batch=batch)
    suggestions = str(caught.value).split("Valid near it: ")[1].split("; ")
    assert suggestions
    for suggestion in suggestions:
        sizes = {key: int(value) for key, value in re.findall(r"parallel\.(\w+)=(\d+)", suggestion)}
        again = replace(parallel, **{"tensor": 1, "pipeline": 1, "context": 1, **sizes})
        validate_layout(again, shape, world_size=world, global_batch=batch)
