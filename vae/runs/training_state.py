"""Whether the state of training in an untrusted checkpoint has the form that the Trainer restores."""

import re
from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from vae.lit_vae import LitVAE


def check_training_state(checkpoint: Mapping[str, Any], lit: LitVAE, fresh: Mapping[str, Any]) -> None:
    """See that what the Trainer restores is of the form that it writes itself.

    Raises:
        Exception: of any type, if it is not.
    """
    callbacks = {key: state for key, state in checkpoint["callbacks"].items() if fresh["callbacks"].get(key)}
    best = [state["best_model_score"] for state in callbacks.values() if "best_model_score" in state]
    fits = (
        {"epoch", "global_step"} <= checkpoint.keys()
        and isinstance(checkpoint["lr_schedulers"], list)
        and re.fullmatch(r"\d+(\.\d+)*((rc|\.?dev|\.post)\d+)?", checkpoint["pytorch-lightning_version"])
        and has_form(checkpoint["loops"], fresh["loops"])
        and has_form(callbacks, {key: fresh["callbacks"][key] for key in callbacks})
        and all(score is None or (isinstance(score, Tensor) and score.ndim == 0) for score in best)
        and all(isinstance(size, int) and size >= 0 for size in checkpoint.get("log", {}).values())
        and optimizer_state_matches(checkpoint["optimizer_states"], lit)
    )
    if not fits:
        raise ValueError("the state of training is not of the form that the Trainer writes")


def has_form(found: Any, expected: Any) -> bool:
    """Whether a nested value has the keys and the types of another; where that has None, any type will do."""
    if isinstance(expected, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and has_form(found[key], value) for key, value in expected.items()
        )
    if isinstance(expected, int | float):
        return isinstance(found, int | float)
    return expected is None or isinstance(found, type(expected))


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
