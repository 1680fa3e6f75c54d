"""What a callback of the Trainer changes, by its code: some have no effect where a model takes its own steps."""

import dis
from collections.abc import Iterable
from inspect import isfunction, unwrap

from pytorch_lightning import Callback
from pytorch_lightning.utilities.exceptions import MisconfigurationException

AUTOMATIC = {
    "accumulate_grad_batches",
    "lr_scheduler_configs",
    "_skip_backward",
}  # read in automatic optimisation alone


def effects(callback: Callback) -> set[str]:
    """The attributes that the methods of a callback assign, and the modules of the Lightning functions that they call.

    Those functions count like methods. Nothing is executed.
    """
    found: set[str] = set()
    kinds = [kind for kind in type(callback).__mro__ if kind not in Callback.__mro__]
    functions = [unwrap(value) for kind in kinds for value in vars(kind).values() if isfunction(value)]
    for function in functions:  # which grows
        for instruction in dis.get_instructions(function):
            if instruction.opname == "STORE_ATTR":
                found.add(instruction.argval)
            elif instruction.opname == "LOAD_GLOBAL":
                called = unwrap(function.__globals__.get(instruction.argval, None))
                if isfunction(called) and called.__module__.startswith("pytorch_lightning."):
                    found.add(called.__module__)
                    functions += [called] if called not in functions else []
    return found


def check_callbacks(callbacks: Iterable[Callback]) -> None:
    """See that none of them needs automatic optimisation.

    Raises:
        MisconfigurationException: one of them does.
    """
    for callback in callbacks:
        if changed := AUTOMATIC & effects(callback):
            raise MisconfigurationException(
                f"{type(callback).__name__}: sets {', '.join(sorted(changed))} of the Trainer, without effect: "
                "the model takes its optimiser steps itself (manual optimization); leave this callback out"
            )
