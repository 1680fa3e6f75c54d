"""The paper: "Auto-Encoding Variational Bayes", Kingma & Welling, arXiv 1312.6114.

Nothing here knows how a model is trained. All that is returned stays per picture, [B], in nats.
"""

from collections.abc import Iterable
from math import log, prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from vae.distributions import LIKELIHOODS, DiagonalGaussian
from vae.networks import NETWORKS

SAMPLES_AT_ONCE = 16  # importance samples that are held in memory together, whatever their number


class Bound(NamedTuple):
    """The evidence lower bound of each picture, [B], in nats: elbo = reconstruction - kl."""

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor


class Evidence(NamedTuple):
    """The estimate of log p(x) of each picture, [B], in nats, and its standard error from sampling."""

    log_marginal: Tensor
    mc_error: Tensor


class VAE(nn.Module):
    """The variational auto-encoder with a Gaussian prior and a diagonal Gaussian posterior (Section 3, Appendix C).

    Args:
        image_shape: channels, height and width of a picture.
        latent_dim: number of latent variables, Z.
        hidden_dims: width of each hidden layer of the encoder, one number or several; the decoder has them in reverse.
        activation: relu or tanh, after each hidden layer.
        likelihood: p(x|z), bernoulli or gaussian.
        network: mlp, the paper's fully connected layers.

    Raises:
        ValueError: a size below 1, or a name that is not there (the message lists those that are).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 2,
        hidden_dims: int | tuple[int, ...] = (500,),
        activation: str = "relu",
        likelihood: str = "bernoulli",
        network: str = "mlp",
    ):
        super().__init__()
        hidden_dims = (hidden_dims,) if isinstance(hidden_dims, int) else tuple(hidden_dims)
        if latent_dim < 1:
            raise ValueError(f"latent_dim: expected a whole number of at least 1, got {latent_dim}")
        if not hidden_dims or min(hidden_dims) < 1:
            raise ValueError(f"hidden_dims: expected one or more whole numbers of at least 1, got {list(hidden_dims)}")
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim
        trunk = NETWORKS[network]
        self.encoder = trunk(prod(image_shape), hidden_dims, activation)
        self.posterior = DiagonalGaussian(self.encoder.out_features, latent_dim)
        self.decoder = trunk(latent_dim, hidden_dims[::-1], activation)
        self.likelihood = LIKELIHOODS[likelihood](self.decoder.out_features, self.image_shape)
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)

    @property
    def prior(self) -> Independent:
        """p(z) = N(0, I): event_shape [Z]."""
        return Independent(Normal(self.origin, torch.ones_like(self.origin), validate_args=False), 1)

    def encode(self, x: Tensor) -> Independent:
        """q(z|x): pictures [B, C, H, W] -> batch_shape [B], event_shape [Z]."""
        return self.posterior(self.encoder(x.flatten(1)))

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z): latents [..., Z] -> batch_shape [...], event_shape [C, H, W]."""
        return self.likelihood(self.decoder(z))

    def elbo(self, x: Tensor, num_samples: int = 1, eps: Tensor | None = None) -> Bound:
        """The bound of equation 10, with the analytic KL of Appendix B.

        Args:
            x: pictures [B, C, H, W], values in [0, 1].
            num_samples: L, the samples of z for each picture.
            eps: the noise of g(eps, x), [L, B, Z], in place of a fresh draw.
        """
        q_z = self.encode(x)
        eps = self._noise(num_samples, x) if eps is None else eps
        reconstruction = self.decode(reparameterize(q_z, eps)).log_prob(x).mean(0)
        kl = kl_divergence(q_z, self.prior)
        return Bound(reconstruction - kl, reconstruction, kl)

    def log_weights(self, x: Tensor, q_z: Distribution, eps: Tensor) -> Tensor:
        """Log w = log p(x|z) + log p(z) - log q(z|x) at z = g(eps, x): [K, B] for noise [K, B, Z]."""
        z = reparameterize(q_z, eps)
        return self.decode(z).log_prob(x) + self.prior.log_prob(z) - q_z.log_prob(z)

    def evidence(self, x: Tensor, num_samples: int = 100, eps: Tensor | Iterable[Tensor] | None = None) -> Evidence:
        """Log p(x) by importance sampling from q(z|x): log of the mean of w over K samples (arXiv 1509.00519, eq. 8).

        A lower bound of log p(x) in expectation, which rises with K. The samples are taken a few at a time, so that
        memory does not grow with K. The error is that of the delta method, sd(w) / (sqrt(K) mean(w)).

        Args:
            x: pictures [B, C, H, W], values in [0, 1].
            num_samples: K, the samples for each picture.
            eps: the noise in place of a fresh draw, [K, B, Z] or pieces [k, B, Z] of it.
        """
        q_z = self.encode(x)
        if eps is None:
            eps = (self._noise(k, x) for k in pieces(num_samples))
        elif isinstance(eps, Tensor):
            eps = eps.split(SAMPLES_AT_ONCE)
        num_samples, log_sum, log_sum_of_squares = 0, x.new_tensor(-torch.inf), x.new_tensor(-torch.inf)
        for piece in eps:
            log_w = self.log_weights(x, q_z, piece)
            num_samples += len(log_w)
            log_sum = log_sum.logaddexp(log_w.logsumexp(0))
            log_sum_of_squares = log_sum_of_squares.logaddexp((2 * log_w).logsumexp(0))
        relative_variance = (log_sum_of_squares - 2 * log_sum).exp() - 1 / num_samples
        return Evidence(log_sum - log(num_samples), relative_variance.clamp(min=0).sqrt())

    def log_marginal(self, x: Tensor, num_samples: int = 100, eps: Tensor | Iterable[Tensor] | None = None) -> Tensor:
        """The estimate of log p(x) alone, [B], in nats: see `evidence`."""
        return self.evidence(x, num_samples, eps).log_marginal

    def sample(self, n: int) -> Tensor:
        """Pictures for n draws from p(z): [n, C, H, W], values in [0, 1]."""
        return self.decode(self.prior.sample((n,))).mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """The picture at the posterior's mean: [B, C, H, W] -> [B, C, H, W], values in [0, 1]."""
        return self.decode(self.encode(x).mean).mean

    def _noise(self, num_samples: int, x: Tensor) -> Tensor:
        return torch.randn(num_samples, len(x), self.latent_dim, device=x.device)


def reparameterize(q_z: Distribution, eps: Tensor) -> Tensor:
    """Z = g(eps, x) = mu + sigma * eps (Section 2.4): noise [K, B, Z] -> latents [K, B, Z]."""
    return q_z.mean + q_z.stddev * eps


def pieces(num_samples: int) -> list[int]:
    """The sizes of the pieces in which that many samples are taken."""
    whole, rest = divmod(num_samples, SAMPLES_AT_ONCE)
    return [SAMPLES_AT_ONCE] * whole + [rest] * (rest > 0)
