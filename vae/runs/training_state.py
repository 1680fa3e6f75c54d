"""The optimiser's state in an untrusted checkpoint."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor

from vae.lit_vae import LitVAE


def checked_optimizer_states(states: Any, lit: LitVAE) -> list[dict[str, Any]]:
    """The state of the optimiser, if it is of its kind and of the model's sizes.

    Raises:
        Exception: of any type, if it is not.
    """
    if not optimizer_state_matches(states, lit):
        raise ValueError("the state of the optimiser is not of the model's sizes")
    return states


def optimizer_state_matches(states: Any, lit: LitVAE) -> bool:
    """Whether the state of the optimiser is of its kind and of the model's sizes.

    The fused kernels would not ask. The options of the optimiser are tried on a single number.

    Raises:
        Exception: of any type, if it is of another kind.
    """
    one = torch.zeros(1, requires_grad=True)
    one.grad = torch.zeros(1)
    (state,) = states
    (group,) = state["param_groups"]
    optimizer, shapes = lit.optimizer([one]), [parameter.shape for parameter in lit.parameters()]
    optimizer.load_state_dict({"state": {}, "param_groups": [group | {"params": [0]}]})
    optimizer.step()
    if group["params"] != [*range(len(shapes))] or not state["state"].keys() <= {*group["params"]}:
        return False
    if "fused" not in signature(lit.optimizer).parameters:
        return True  # it may keep rows and columns, or a history
    expected = {name: value.shape for name, value in optimizer.state[one].items()}
    return all(
        values.keys() == expected.keys()
        and all(
            isinstance(value, Tensor)
            and value.shape == (shapes[place] if expected[name] else ())
            and value.is_contiguous()
            and not value.is_meta
            for name, value in values.items()
        )
        for place, values in state["state"].items()
    )
