"""The start of a command: the processor's settings, and Ctrl-C during the imports. And a package without Lightning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vae.start import starting

PROJECT = Path(__file__).parents[1]

WITHOUT_LIGHTNING = """
import sys
sys.modules |= dict.fromkeys(("pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics", "jsonargparse"))
import torch
from torch.utils.data import DataLoader
from vae import VAE
from vae.evaluation import evaluate_bound
from vae.marginal import importance_sampling, quadrature

torch.manual_seed(0)
images = (torch.rand(200, 1, 1, 1) > 0.5).float().expand(200, 1, 4, 4).contiguous()
vae = VAE((1, 4, 4), latent_dim=2, hidden_dims=16)
optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
for epoch in range(20):
    for x in DataLoader(images, batch_size=20, shuffle=True):
        loss = -vae.elbo(x).elbo.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
index = torch.arange(20)
print(evaluate_bound(vae, images[:20], index)["elbo"].mean().item())
print(quadrature(vae, images[:20], index).log_marginal.mean().item())
print(importance_sampling(vae, images[:20], index, 2_000).log_marginal.mean().item())
"""


@pytest.fixture
def denormals():
    yield
    torch.set_flush_denormal(False)


def test_numbers_too_small_for_a_normal_float_count_as_0(denormals, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    with starting():
        pass
    assert torch.tensor(1e-40).mul(1).item() == 0
    assert torch.tensor(1e-40, dtype=torch.float64).mul(1).item() == 1e-40
    assert os.environ["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize(("theirs", "expected"), [({}, "10000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)])
def test_threads_wait_for_a_short_time_unless_the_user_wants_otherwise(denormals, monkeypatch, theirs, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with starting():
        pass
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_an_interrupt_of_the_imports_ends_with_its_status(denormals):
    with pytest.raises(SystemExit) as end, starting():
        raise KeyboardInterrupt
    assert end.value.code == 130


@pytest.mark.slow  # imports for six seconds; who imports whom is in test_layout
def test_the_model_its_objectives_and_estimators_need_no_lightning():
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIGHTNING], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    elbo, integral, estimate = map(float, done.stdout.split())
    # Half of the images are black, half are white: no model can give them more than log 1/2.
    assert -2 < elbo < integral < -0.65
    assert abs(integral - estimate) < 0.05
