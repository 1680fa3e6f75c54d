"""The optimiser of a training: chosen by name, with what is right for it, and made for the weights of a model."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer

from vae.choices import check_number, choose, takes

OptimizerName = Literal[  # those of torch.optim that take no closure, dense gradients, and biases
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"
]
OPTIMIZERS = {name: getattr(torch.optim, name) for name in get_args(OptimizerName)}
DECOUPLED_DECAY = ("AdamW", "Adafactor")


def choose_optimizer(
    name: str, learning_rate: float, weight_decay: float, weight_prior: bool, is_scheduled: bool
) -> type[Optimizer]:
    """The optimiser of that name, for which these hyper-parameters are right.

    Raises:
        ValueError: there is none; or a hyper-parameter is out of range, or has no effect on it or a wrong one.
    """
    check_number("learning_rate", learning_rate)
    check_number("weight_decay", weight_decay, positive=False)
    kind = choose("optimizer", name, OPTIMIZERS)
    if name == "Rprop" and is_scheduled:
        raise ValueError("lr_schedule: Rprop takes its learning rate at the first step alone; choose constant")
    if (weight_decay or weight_prior) and not takes(kind, "weight_decay"):
        raise ValueError(f"weight_decay: {name} has none; choose another optimizer, such as Adam")
    if weight_prior and name in DECOUPLED_DECAY:
        raise ValueError(f"weight_prior: the decay of {name} is not part of the gradient; choose another, such as Adam")
    return kind


def make_optimizer(
    kind: type[Optimizer], parameters: Iterable[nn.Parameter], learning_rate: float, decay: float, fused: bool
) -> Optimizer:
    """An optimiser of that kind.

    Args:
        decay: its weight decay, as a share of the weights.
        fused: whether one kernel updates all weights, where it has one: a sixth of a step's time on a CPU.

    Raises:
        MisconfigurationException: squares of gradients, and its eps, would be 0 in the weights' type.
    """
    parameters = [*parameters]
    for dtype in {parameter.dtype for parameter in parameters}:
        if not torch.tensor(1e-8, dtype=dtype):
            raise MisconfigurationException(
                f"weights in {dtype} do not train: squares of gradients, and the optimiser's eps, are 0 in it; "
                "choose the precision 16-mixed, bf16-true or 32-true"
            )
    options: dict[str, Any] = {"weight_decay": decay, "fused": fused}  # decay also where it is 0, no default of all
    return kind(parameters, lr=learning_rate, **{name: options[name] for name in options if takes(kind, name)})
