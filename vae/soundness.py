"""How a training fails without an error of its own: its loss is no number, or its posterior has collapsed."""

import warnings

NOT_FINITE = (
    "The loss is not finite in epoch {epoch}, from step {step} on. {kept}\n"
    "Try a smaller --model.learning_rate, --model.gradient_clip_val 1, or another --model.likelihood, in a new run."
)
COLLAPSE = (
    "no latent variable is active, the posterior has collapsed: its mean is the same for all validation images. "
    "Train longer; with the objective elbo, try --model.beta_warmup_epochs 10 or a smaller --model.beta."
)


class NotFinite(Exception):
    """The loss became infinite or no number."""

    def __init__(self, epoch: int, step: int, is_saved: bool):
        kept = "The checkpoints hold what was before." if is_saved else "No checkpoint was written."
        super().__init__(NOT_FINITE.format(epoch=epoch, step=step, kept=kept))


class PosteriorCollapse(UserWarning):
    """The posterior is the same for all images."""


def warn_of_collapse(active_units: float | None) -> None:
    """Warn where the last validation found no active latent variable; None: there was no validation."""
    if active_units == 0:
        warnings.warn(COLLAPSE, PosteriorCollapse, stacklevel=1)
