"""What the Trainer restores of a checkpoint is built of its numbers."""

from copy import deepcopy

import pytest
import torch

from vae import LitVAE
from vae.callbacks.restoring import built_optimizer_state
from vae.optimization import OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_an_optimiser_is_restored_whole_or_refused(name):
    lit = LitVAE(image_shape=(1, 4, 4), hidden_dims=3, optimizer=name)
    optimizer = lit.optimizer(lit.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        lit.vae.elbo(torch.rand(5, 1, 4, 4)).elbo.mean().neg().backward()
        optimizer.step()
    saved = optimizer.state_dict()
    built = built_optimizer_state(deepcopy(saved), lit)
    assert built["param_groups"] == saved["param_groups"]
    torch.testing.assert_close(built["state"], saved["state"], rtol=0, atol=0)
    sized = [key for key, value in saved["state"].get(0, {}).items() if torch.is_tensor(value) and value.ndim]
    for key in sized:
        other = deepcopy(saved)
        other["state"][0][key] = torch.zeros(99)
        with pytest.raises(RuntimeError):
            built_optimizer_state(other, lit)
