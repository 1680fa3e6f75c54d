"""The paper: "Auto-Encoding Variational Bayes", Kingma & Welling, arXiv 1312.6114.

Nothing here knows how a model is trained. All that is returned stays per image, [B], in nats.
"""

from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from itertools import pairwise
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from vae.likelihoods import LIKELIHOODS, DiagonalGaussian
from vae.networks import NETWORKS

NOISE_CHUNK = 32  # importance samples whose noise is rasterize together, whatever their number
DECODER_CHUNK = 2**19  # numbers that the decoder gives out together: they stay in a processor's cache


class ELBO(NamedTuple):
    """The evidence lower bound of each image, [B], in nats: elbo = reconstruction - kl."""

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor

    def weighted(self, beta: float) -> Tensor:
        """What is trained where the KL has another weight: reconstruction - beta * kl, [B]."""
        return self.reconstruction - beta * self.kl


class ImportanceEstimate(NamedTuple):
    """Estimates of log p(x) of each image, in nats.

    bounds: [M, B], the importance-weighted bound for each number of samples that was asked for.
    log_marginal: [B], the last of them.
    mc_error: [B], its standard error from sampling.
    """

    bounds: Tensor
    log_marginal: Tensor
    mc_error: Tensor


class VAE(nn.Module):
    """The variational auto-encoder with a Gaussian prior and a diagonal Gaussian posterior (Section 3, Appendix C).

    Args:
        image_shape: channels, height and width of an image.
        latent_dim: number of latent variables, Z.
        hidden_dims: width of each hidden layer of the encoder, one number or several.
        decoder_hidden_dims: the same of the decoder; by default the encoder's in reverse.
        activation: relu or tanh, after each hidden layer.
        likelihood: p(x|z): bernoulli, continuous_bernoulli, gaussian, gaussian_fixed, discretized_logistic or
            categorical.
        network: mlp, the paper's fully connected layers, or conv, convolutions before and after them.
        channels: of the convolutions of a conv network, first to last.
        min_scale: the least standard deviation of a pixel that gaussian, or a learned scale of gaussian_fixed, may
            predict; 0.01 is two and a half of 255 grey levels.
        scale: the standard deviation of a pixel in gaussian_fixed.
        learn_scale: whether gaussian_fixed learns that scale.
        palette: the colours that categorical chooses among, 8-bit values; the data module tells them.
        init_std: draw all weights and biases from N(0, init_std^2), as the paper does with a small one, in place of
            torch's own initialisation.

    Raises:
        ValueError: a size below 1, or a name that is not there (the message lists those that are).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 2,
        hidden_dims: int | tuple[int, ...] = (500,),
        decoder_hidden_dims: int | tuple[int, ...] | None = None,
        activation: str = "relu",
        likelihood: str = "bernoulli",
        network: str = "mlp",
        channels: int | tuple[int, ...] = (32, 64),
        min_scale: float = 0.01,
        scale: float = 0.1,
        learn_scale: bool = False,
        palette: tuple[tuple[int, ...], ...] | None = None,
        init_std: float | None = None,
    ):
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim: expected a whole number of at least 1, got {latent_dim}")
        for name, value in (("scale", scale), ("min_scale", min_scale), ("init_std", init_std)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}: expected a number above 0, got {value}")
        hidden_dims = widths("hidden_dims", hidden_dims)
        if decoder_hidden_dims is None:
            decoder_hidden_dims = hidden_dims[::-1]
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim
        options = {
            "image_shape": self.image_shape,
            "latent_dim": latent_dim,
            "activation": activation,
            "channels": widths("channels", channels),
            "min_scale": min_scale,
            "scale": scale,
            "learn_scale": learn_scale,
            "palette": palette,
        }
        encoder, decoder = NETWORKS[network]
        self.encoder = build(encoder, hidden_dims=hidden_dims, **options)
        self.posterior = DiagonalGaussian(self.encoder.out_features, latent_dim)
        self.decoder = build(decoder, hidden_dims=widths("decoder_hidden_dims", decoder_hidden_dims), **options)
        self.likelihood = build(LIKELIHOODS[likelihood], output_layer=self.decoder.output_layer, **options)
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        if init_std is not None:
            for parameter in self.parameters():
                if parameter.ndim:  # all but a learned scale
                    nn.init.normal_(parameter, std=init_std)

    @property
    def prior(self) -> Independent:
        """p(z) = N(0, I): event_shape [Z]."""
        return Independent(Normal(self.prior_loc, torch.ones_like(self.prior_loc), validate_args=False), 1)

    def encode(self, x: Tensor) -> Independent:
        """q(z|x): images [B, C, H, W] -> batch_shape [B], event_shape [Z]."""
        return self.posterior(self.encoder(x.to(self.prior_loc.dtype)))

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z): latents [..., Z] -> batch_shape [...], event_shape [C, H, W]."""
        features = self.decoder(z.reshape(-1, self.latent_dim).to(self.prior_loc.dtype))
        return self.likelihood(features.reshape(z.shape[:-1] + features.shape[1:]))

    def elbo(
        self,
        x: Tensor,
        num_samples: int = 1,
        eps: Tensor | None = None,
        analytic_kl: bool = True,
        q_z: Independent | None = None,
    ) -> ELBO:
        """The bound of equation 10, with the analytic KL of Appendix B; or estimator A of equation 6, without it.

        Args:
            x: images [B, C, H, W], values in [0, 1].
            num_samples: L, the samples of z for each image.
            eps: the noise of g(eps, x), [L, B, Z], in place of a fresh draw.
            analytic_kl: whether the KL is taken in closed form rather than from the same samples.
            q_z: the posterior q(z|x), where it is at hand.
        """
        q_z = q_z or self.encode(x)
        z = reparameterize(q_z, self._noise(num_samples, x) if eps is None else eps)
        reconstruction = self.decode(z).log_prob(x).mean(0)
        kl = kl_divergence(q_z, self.prior) if analytic_kl else (q_z.log_prob(z) - self.prior.log_prob(z)).mean(0)
        return ELBO(reconstruction - kl, reconstruction, kl)

    def log_weights(self, x: Tensor, q_z: Distribution, z: Tensor) -> Tensor:
        """log w = log p(x|z) + log p(z) - log q(z|x): [K, B] for latents [K, B, Z].

        Its mean over K is the bound, its logsumexp less log K the importance-weighted one. The images are decoded a
        few samples at a time, however many there are.
        """
        at_once = max(1, DECODER_CHUNK // (len(x) * self.likelihood.num_parameters))
        log_p_x = torch.cat([self.decode(some).log_prob(x) for some in z.split(at_once)])
        return log_p_x + self.prior.log_prob(z) - q_z.log_prob(z)

    def importance_bound(
        self, x: Tensor, num_samples: int = 1, eps: Tensor | None = None, doubly_reparameterized: bool = False
    ) -> Tensor:
        """The importance-weighted bound with K samples, [B], to be trained (arXiv 1509.00519, equation 8).

        Args:
            x: images [B, C, H, W], values in [0, 1].
            num_samples: K, the samples of z for each image.
            eps: the noise, [K, B, Z], in place of a fresh draw.
            doubly_reparameterized: the same value with the encoder's gradient of arXiv 1810.04152, equation 8: the
                square of each sample's weight times its path derivative. Same mean, less variance.
        """
        q_z = self.encode(x)
        z = reparameterize(q_z, self._noise(num_samples, x) if eps is None else eps)
        if not doubly_reparameterized:
            return self.log_weights(x, q_z, z).logsumexp(0) - log(len(z))
        constant_q_z = Independent(Normal(q_z.mean.detach(), q_z.stddev.detach(), validate_args=False), 1)
        log_w = self.log_weights(x, constant_q_z, z)
        weight = log_w.detach().softmax(0)
        if z.requires_grad:
            z.register_hook(lambda gradient: weight.unsqueeze(-1) * gradient)
        surrogate = (weight * log_w).sum(0)
        return (log_w.logsumexp(0) - log(len(z))).detach() + surrogate - surrogate.detach()

    def importance_estimate(
        self,
        x: Tensor,
        num_samples: int | Sequence[int] = 100,
        eps: Tensor | Iterable[Tensor] | None = None,
        q_z: Independent | None = None,
    ) -> ImportanceEstimate:
        """log p(x) by importance sampling from q(z|x): log of the mean of w over K samples (arXiv 1509.00519, eq. 8).

        A lower bound of log p(x) in expectation, which rises with K. The samples are taken a few at a time, so that
        memory does not grow with K. The error is that of the delta method, sd(w) / (sqrt(K) mean(w)).

        Args:
            x: images [B, C, H, W], values in [0, 1].
            num_samples: K, the samples for each image; or several K, rising, whose bounds come from one pass.
            eps: the noise in place of a fresh draw, [K, B, Z] or chunks [k, B, Z] of it.
            q_z: the posterior q(z|x), where it is at hand.

        Raises:
            ValueError: the numbers of samples are below 1 or do not rise, or the last is not that of the noise.
        """
        counts = [num_samples] if isinstance(num_samples, int) else list(num_samples)
        if counts[0] < 1 or any(low >= high for low, high in pairwise(counts)):
            raise ValueError(f"num_samples: expected a number of at least 1, or rising ones, got {num_samples}")
        if eps is None:
            eps = (self._noise(k, x) for k in chunk_sizes(counts[-1]))
        elif isinstance(eps, Tensor):
            eps = [eps]
        q_z = q_z or self.encode(x)
        done, bounds = 0, []
        log_sum = log_sum_of_squares = torch.full_like(x[:, 0, 0, 0], -torch.inf)
        for piece in eps:
            log_w = self.log_weights(x, q_z, reparameterize(q_z, piece))
            for k in counts[:-1]:
                if done < k <= done + len(log_w):
                    bounds.append(log_sum.logaddexp(log_w[: k - done].logsumexp(0)) - log(k))
            done += len(log_w)
            log_sum = log_sum.logaddexp(log_w.logsumexp(0))
            log_sum_of_squares = log_sum_of_squares.logaddexp((2 * log_w).logsumexp(0))
        if len(counts) > 1 and counts[-1] != done:
            raise ValueError(f"num_samples: expected {done}, the noise's, as the last one, got {num_samples}")
        unbiased = done / (done - 1) if done > 1 else torch.nan  # one sample tells nothing of its error
        relative_variance = ((log_sum_of_squares - 2 * log_sum).exp() - 1 / done) * unbiased
        log_marginal = log_sum - log(done)
        return ImportanceEstimate(
            torch.stack([*bounds, log_marginal]), log_marginal, relative_variance.clamp(min=0).sqrt()
        )

    def log_marginal(self, x: Tensor, num_samples: int = 100, eps: Tensor | Iterable[Tensor] | None = None) -> Tensor:
        """The estimate of log p(x) alone, [B], in nats: see `importance_estimate`."""
        return self.importance_estimate(x, num_samples, eps).log_marginal

    def sample(self, n: int) -> Tensor:
        """ImageDataset for n draws from p(z): [n, C, H, W], values in [0, 1]."""
        return self.generate(self.prior.sample((n,)))

    def reconstruct(self, x: Tensor) -> Tensor:
        """The image at the posterior's mean: [B, C, H, W] -> [B, C, H, W], values in [0, 1]."""
        return self.generate(self.encode(x).mean)

    def kl_per_dimension(self, q_z: Independent) -> Tensor:
        """The terms of Appendix B's sum over latent variables: [B, Z], nats."""
        return kl_divergence(q_z.base_dist, self.prior.base_dist)

    def generate(self, z: Tensor) -> Tensor:
        """The image of p(x|z): its mean, or the mode of a categorical one; [..., Z] -> [..., C, H, W]."""
        return self.likelihood.image(self.decode(z)).contiguous()

    def _noise(self, num_samples: int, x: Tensor) -> Tensor:
        return torch.randn(num_samples, len(x), self.latent_dim, device=x.device)


def reparameterize(q_z: Distribution, eps: Tensor) -> Tensor:
    """z = g(eps, x) = mu + sigma * eps (Section 2.4): noise [K, B, Z] -> latents [K, B, Z]."""
    return q_z.mean + q_z.stddev * eps


def chunk_sizes(num_samples: int) -> list[int]:
    """The sizes of the chunks in which that many samples are taken."""
    whole, rest = divmod(num_samples, NOISE_CHUNK)
    return [NOISE_CHUNK] * whole + [rest] * (rest > 0)


def widths(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    """One width or several, as a tuple.

    Raises:
        ValueError: there is none, or one below 1.
    """
    value = (value,) if isinstance(value, int) else tuple(value)
    if not value or min(value) < 1:
        raise ValueError(f"{name}: expected one or more whole numbers of at least 1, got {list(value)}")
    return value


def build(kind: Callable, **options: Any) -> nn.Module:
    """An object of that kind from those of the options that it takes."""
    return kind(**{name: options[name] for name in signature(kind).parameters})
