"""What importance-sampled evaluation costs: its share of the matrix product's rate, and pythae's `get_nll` beside it.

    pip install -r benchmarks/requirements.txt && python3 benchmarks/evaluation.py

Each figure is a ratio of two things that are run in turn; the median of several pairs, and their range.
"""

import sys

import torch
from pairs import PROJECT, report, seconds

sys.path.insert(0, str(PROJECT))

from vae import LitVAE  # noqa: E402
from vae.marginal import importance_sampling  # noqa: E402

PICTURES, SAMPLES, PAIRS = 200, 500, 7
DIMS = (784, 500, 20)
FLOPS_PER_SAMPLE = 2 * (DIMS[2] * DIMS[1] + DIMS[1] * DIMS[0])  # the decoder's two products


def matmul_rate() -> float:
    """Floating-point operations a second of float32 products of 2,000 x 2,000."""
    a = torch.rand(2_000, 2_000)
    return 3 * 2 * 2_000**3 / seconds(lambda: [a @ a for _ in range(3)])


def pythae_model() -> torch.nn.Module:
    """The same 784-500-20 network in pythae."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.trunk = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 500), torch.nn.ReLU())
            self.mean, self.log_var = torch.nn.Linear(500, 20), torch.nn.Linear(500, 20)

        def forward(self, x):
            features = self.trunk(x)
            return ModelOutput(embedding=self.mean(features), log_covariance=self.log_var(features))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.trunk = torch.nn.Sequential(
                torch.nn.Linear(20, 500), torch.nn.ReLU(), torch.nn.Linear(500, 784), torch.nn.Sigmoid()
            )

        def forward(self, z):
            return ModelOutput(reconstruction=self.trunk(z).reshape(-1, 1, 28, 28))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    return VAE(config, Encoder(), Decoder()).eval()


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    lit = LitVAE(image_shape=(1, 28, 28), latent_dim=DIMS[2], hidden_dims=DIMS[1]).eval()
    x, index = (torch.rand(PICTURES, 1, 28, 28) < 0.2).float(), torch.arange(PICTURES)

    def ours() -> None:
        for batch, places in zip(x.split(100), index.split(100), strict=True):
            importance_sampling(lit.vae, batch, places, SAMPLES)

    ours()
    work = PICTURES * SAMPLES * FLOPS_PER_SAMPLE
    report("evaluation: share of the matmul rate", [work / seconds(ours) / matmul_rate() for _ in range(PAIRS)])
    try:
        theirs = pythae_model()
    except ImportError:
        print("pythae is not installed: pip install -r benchmarks/requirements.txt")
        return

    def nll() -> None:
        theirs.get_nll(x, n_samples=SAMPLES, batch_size=100)

    nll()
    report("evaluation: times as fast as pythae's get_nll", [seconds(nll) / seconds(ours) for _ in range(PAIRS)])


if __name__ == "__main__":
    main()
