"""The paper: "Auto-Encoding Variational Bayes", Kingma & Welling, arXiv 1312.6114.

Independent of how a model is trained. All values stay per image, [B], in nats.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import repeat
from math import log, prod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vae.choices import check_number, check_whole, choose, is_whole, register, takes
from vae.likelihoods import LIKELIHOODS, DiagonalGaussian, Likelihood, at_least_float32
from vae.networks import ACTIVATIONS, NETWORKS

NOISE_CHUNK = 128  # samples of each image whose noise is drawn together
DECODER_CHUNK = 2**19  # parameters of p(x|z) that are computed together: they stay in a CPU's cache
MAX_BATCH = 2**22  # pixel values of images that are encoded or decoded together; a network keeps several times that
GPU_DECODER_CHUNK = 2**26  # enough work for a GPU; each temporary tensor of a density takes 256 MB
PART_OPTIONS = ("activation", "channels", "min_scale", "scale", "learn_scale", "palette", "num_classes")


class ELBO(NamedTuple):
    """The evidence lower bound of each image, [B], in nats: elbo = reconstruction - kl."""

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor

    def weighted(self, beta: float) -> Tensor:
        """What is trained where the KL has another weight: reconstruction - beta * kl, [B]."""
        return self.reconstruction - beta * self.kl


class LabelsNeeded(ValueError):
    """A conditional model is asked without labels, or with others than one for each input."""


class VAE(nn.Module):
    """The variational auto-encoder with a Gaussian prior and a diagonal Gaussian posterior (Section 3, Appendix C).

    Args:
        image_shape: channels, height and width of an image.
        latent_dim: number of latent variables, Z.
        hidden_dims: width of each hidden layer of the encoder, one number or several.
        decoder_hidden_dims: the same of the decoder; by default the encoder's in reverse.
        activation: after each hidden layer.
        likelihood: p(x|z).
        network: mlp, the paper's fully connected layers, or conv, convolutions before and after them.
        channels: of the convolutions of a conv network, first to last.
        min_scale: the least standard deviation of a pixel that gaussian, or a learned scale of gaussian_fixed, may
            predict; 0.01 is two and a half of 255 grey levels.
        scale: the standard deviation of a pixel in gaussian_fixed.
        learn_scale: whether gaussian_fixed learns that scale.
        palette: the colours that categorical chooses among, 8-bit values; the data module gives them.
        init_std: draw all weights and biases from N(0, init_std^2), in place of torch's own initialisation. The paper
            (Section 5) draws from N(0, 0.01): 0.1 if that is a variance, as in the N(mu, sigma^2) of its other
            sections, 0.01 if it is a standard deviation. It does not say which.

        num_classes: the number of labels y of a conditional model, p(x|y), whose networks get them: see `given`.

    In place of a name, `likelihood` may be a class, and `network` two classes or modules: an encoder and a decoder.

    Raises:
        ValueError: a size that is no whole number of at least 1, a scale that is not above 0, or an unknown name (the
            message lists the known ones).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 2,
        hidden_dims: int | tuple[int, ...] = (500,),
        decoder_hidden_dims: int | tuple[int, ...] | None = None,
        activation: Literal[*ACTIVATIONS] = "relu",
        likelihood: "Literal[*LIKELIHOODS]" = "bernoulli",  # quoted: names may be added until it is read
        network: "Literal[*NETWORKS]" = "mlp",
        channels: int | tuple[int, ...] = (32, 64),
        min_scale: float = 0.01,
        scale: float = 0.1,
        learn_scale: bool = False,
        palette: tuple[tuple[int, ...], ...] | None = None,
        init_std: float | None = None,
        num_classes: int | None = None,
    ):
        super().__init__()
        self.image_shape = sizes_of("image_shape", image_shape)
        if len(self.image_shape) != 3:
            raise ValueError(f"image_shape: expected (channels, height, width), got {self.image_shape}")
        check_whole("latent_dim", latent_dim)
        check_number("scale", scale)
        check_number("min_scale", min_scale)
        if init_std is not None:
            check_number("init_std", init_std)
        hidden_dims = sizes_of("hidden_dims", hidden_dims)
        if decoder_hidden_dims is None:
            decoder_hidden_dims = hidden_dims[::-1]
        self.latent_dim = latent_dim
        options = {
            "image_shape": self.image_shape,
            "latent_dim": latent_dim,
            "activation": activation,
            "channels": sizes_of("channels", channels),
            "min_scale": min_scale,
            "scale": scale,
            "learn_scale": learn_scale,
            "palette": palette,
            "num_classes": num_classes,
        }
        choose("activation", activation, ACTIVATIONS)
        encoder, decoder = choose("network", network, NETWORKS) if isinstance(network, str) else network
        self.encoder = require(build(encoder, hidden_dims=hidden_dims, **options), "out_features")
        self.posterior = DiagonalGaussian(self.encoder.out_features, latent_dim)
        if num_classes is not None:
            check_whole("num_classes", num_classes)
            if not all(isinstance(part, nn.Module) or takes(part, "num_classes") for part in (encoder, decoder)):
                raise ValueError(f"num_classes: the network {network} takes no labels")
        self.num_classes = num_classes
        self.labels: Tensor | None = None  # those that `given` has set
        own_dims = sizes_of("decoder_hidden_dims", decoder_hidden_dims)
        self.decoder = require(build(decoder, hidden_dims=own_dims, **options), "output_layer")
        head = choose("likelihood", likelihood, LIKELIHOODS) if isinstance(likelihood, str) else likelihood
        self.likelihood = require(build(head, output_layer=self.decoder.output_layer, **options), "num_parameters")
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        if init_std is not None:
            for parameter in self.parameters():
                if parameter.ndim:  # all but a learned scale
                    nn.init.normal_(parameter, std=init_std)

    def given(self, labels: Tensor | None) -> "VAE":
        """The model of images with these labels: p(x|y) of a conditional model, with the same weights.

        Another model does without labels and is itself.

        Args:
            labels: whole numbers, [B], one for each image; or [], one for all of them.

        Raises:
            LabelsNeeded: a conditional model gets none.
        """
        if self.num_classes is None:
            return self
        if labels is None:
            raise LabelsNeeded("a conditional model needs the label of each image, got none")
        conditioned = copy(self)
        conditioned.labels = labels.to(self.prior_loc.device, torch.long)
        return conditioned

    @property
    def needs_labels(self) -> bool:
        """Whether it is a conditional model, and not yet that of given labels."""
        return self.num_classes is not None and self.labels is None

    def _condition(self, shape: torch.Size) -> tuple[Tensor, ...]:
        """What networks get beside inputs of that shape: in a conditional model their labels."""
        if self.num_classes is None:
            return ()
        if self.labels is None or self.labels.shape not in ((), shape[-1:]):
            found = "none" if self.labels is None else list(self.labels.shape)
            raise LabelsNeeded(f"a conditional model needs vae.given(labels), labels {list(shape[-1:])}, got {found}")
        return (self.labels.expand(shape).flatten(),)

    def batches(self, inputs: Tensor) -> Iterator[tuple["VAE", Tensor]]:
        """Images or codes of them, [N, ...], and their model: batches of 1,000 or of MAX_BATCH pixel values."""
        size = max(1, min(1_000, MAX_BATCH // prod(self.image_shape)))
        labels = repeat(self.labels) if self.labels is None or not self.labels.ndim else self.labels.split(size)
        for some, its_labels in zip(inputs.split(size), labels, strict=False):
            yield (self if its_labels is None else self.given(its_labels)), some

    @property
    def prior(self) -> Independent:
        """p(z) = N(0, I): event_shape [Z]."""
        loc = at_least_float32(self.prior_loc)
        return Independent(Normal(loc, torch.ones_like(loc), validate_args=False), 1)

    def encode(self, x: Tensor) -> Independent:
        """q(z|x): images [B, C, H, W] -> batch_shape [B], event_shape [Z].

        Raises:
            ValueError: `x` has another shape, or is not of type float32 or float64.
        """
        self.check_images(x)
        return self.posterior(self.encoder(x.to(self.prior_loc.dtype), *self._condition(x.shape[:1])))

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z): latents [..., Z] -> batch_shape [...], event_shape [C, H, W].

        Raises:
            ValueError: `z` has another last dimension.
        """
        if not isinstance(z, Tensor) or z.shape[-1:] != (self.latent_dim,):
            raise ValueError(f"latents: expected a tensor [..., {self.latent_dim}], got {shape_of(z)}")
        inputs = z.reshape(-1, self.latent_dim).to(self.prior_loc.dtype)
        features = self.decoder(inputs, *self._condition(z.shape[:-1]))
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
            q_z: the posterior q(z|x), if it is known.

        Raises:
            ValueError: as `encode` and `reparameterize`; or values outside of the likelihood's `value_range`. These are
                not looked for if `eps` is given, as in training: a GPU would have to wait for the answer.
        """
        self.check_images(x, values=eps is None)
        q_z = q_z or self.encode(x)
        z = reparameterize(q_z, self._noise(num_samples, q_z) if eps is None else eps)
        reconstruction = self._log_likelihood(x, z).mean(0)
        kl = self.kl_per_dimension(q_z).sum(-1) if analytic_kl else (q_z.log_prob(z) - self.prior.log_prob(z)).mean(0)
        return ELBO(reconstruction - kl, reconstruction, kl)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z): [K, B] for latents [K, B, Z]. However large K is, a few samples are decoded at a time."""
        chunk = DECODER_CHUNK if x.device.type == "cpu" else GPU_DECODER_CHUNK
        at_once = max(1, chunk // (x.shape[0] * self.likelihood.num_parameters))
        if torch.compiler.is_exporting():  # the program would depend on how many there are
            at_once = z.shape[0]
        return torch.cat([self.decode(some).log_prob(x) for some in z.split(at_once)])

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z): [K, B] for images [B, C, H, W] and latents [K, B, Z], in nats."""
        return self._log_likelihood(x, z) + self.prior.log_prob(z)

    def log_weights(self, x: Tensor, q_z: Distribution, z: Tensor) -> Tensor:
        """log w = log p(x, z) - log q(z|x): [K, B] for latents [K, B, Z], in nats.

        Its mean over K is the bound, its logsumexp - log K the importance-weighted one.
        """
        return self.log_joint(x, z) - q_z.log_prob(z)

    @torch.no_grad()
    def log_marginal(self, x: Tensor, num_samples: int = 100, eps: Tensor | Iterable[Tensor] | None = None) -> Tensor:
        """log p(x) by importance sampling from q(z|x), [B], nats: log (1/K) sum w (arXiv 1509.00519, equation 8).

        A lower bound in expectation, which rises with K; `vae.marginal` has estimators that know their errors. Without
        gradients. Of each sample only log w is kept.

        Args:
            x: images [B, C, H, W], values in [0, 1].
            num_samples: K, the samples for each image.
            eps: the noise in place of a fresh draw, [K, B, Z] or chunks [k, B, Z] of it.

        Raises:
            ValueError: as `encode` and `reparameterize`; values outside of the likelihood's `value_range`; K below 1.
        """
        check_whole("num_samples", num_samples)
        self.check_images(x, values=True)
        q_z = self.encode(x)
        if eps is None:
            eps = (self._noise(len(some), q_z) for some in torch.arange(num_samples).split(NOISE_CHUNK))
        elif isinstance(eps, Tensor):
            eps = [eps]
        log_w = torch.cat([self.log_weights(x, q_z, reparameterize(q_z, chunk)) for chunk in eps])  # [K, B]
        exact = log_w if log_w.device.type == "mps" else log_w.double()  # MPS has no float64
        return (exact.logsumexp(0) - log(len(log_w))).to(log_w.dtype)

    def sample(self, n: int) -> Tensor:
        """The image of p(x|z), its mean or mode, for n draws from p(z): [n, C, H, W] in [0, 1]; without gradients.

        Raises:
            ValueError: n is no whole number of at least 1.
        """
        check_whole("n", n)
        return self.generate(self.prior.sample((n,)))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The image at the posterior's mean: [B, C, H, W] -> [B, C, H, W], values in [0, 1]; without gradients.

        Raises:
            ValueError: as `encode`, or values outside of the likelihood's `value_range`.
        """
        self.check_images(x, values=True)
        return self.generate(self.encode(x).mean)

    def kl_per_dimension(self, q_z: Independent) -> Tensor:
        """The terms of Appendix B's sum over latent variables, KL(q(z_j|x) || p(z_j)): [B, Z], nats."""
        mean, scale = q_z.base_dist.loc, q_z.base_dist.scale
        return 0.5 * (mean.square() + scale.square() - 1) - scale.log()

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """The image of p(x|z), its mean, or the mode of a categorical one: [..., Z] -> [..., C, H, W].

        Without gradients; raises as `decode`.
        """
        return self.likelihood.image(self.decode(z)).contiguous()

    def _noise(self, num_samples: int, q_z: Independent) -> Tensor:
        check_whole("num_samples", num_samples)
        return torch.randn(num_samples, *q_z.mean.shape, dtype=q_z.mean.dtype, device=q_z.mean.device)

    def check_images(self, x: Tensor, values: bool = False) -> None:
        """Check number, shape and type, which costs nothing; and the values, for which a GPU must be waited for.

        Raises:
            ValueError: one of them is not as expected.
        """
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1:] != self.image_shape:
            shape = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images: expected a tensor [B, C, H, W], here [B, {shape}], got {shape_of(x)}")
        if x.shape[0] == 0:  # `len` would fix the size of an exported batch
            raise ValueError("images: expected one or more, got none")
        if x.dtype not in (torch.float32, torch.float64):
            reason = "half precision does not hold 256 levels" if x.is_floating_point() else "divide uint8 by 255"
            raise ValueError(f"images: expected float32 or float64, got {x.dtype}; {reason}")
        if values:
            (low, high), (lowest, highest) = x.aminmax(), self.likelihood.value_range
            if not is_true((lowest <= low) & (high <= highest)):  # also of NaN
                raise ValueError(
                    f"images: expected values in [{lowest:g}, {highest:g}], got {low:.4g} to {high:.4g}; "
                    "scale them, such as (x + 1) / 2 from [-1, 1]"
                )


def shape_of(value: Any) -> list[int] | str:
    """What a message says of a value that is no tensor, or one of another shape."""
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__


def is_true(condition: Tensor) -> bool:
    """Whether it holds; where it has no value, in a program, under vmap or on the meta device, that it does."""
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition)
    except RuntimeError:
        return True


def reparameterize(q_z: Independent, eps: Tensor) -> Tensor:
    """z = g(eps, x) = mu + sigma * eps (Section 2.4): noise [K, B, Z] -> latents [K, B, Z].

    Raises:
        ValueError: the noise has another shape.
    """
    mean, scale = q_z.base_dist.loc, q_z.base_dist.scale  # q_z.stddev would be the root of the scale's square
    if not isinstance(eps, Tensor) or eps.ndim != 3 or eps.shape[1:] != mean.shape or eps.shape[0] == 0:
        expected = ", ".join(map(str, mean.shape))
        raise ValueError(f"eps: expected noise [K, B, Z], here [K, {expected}], got {shape_of(eps)}")
    return torch.addcmul(mean, scale, eps)


def sizes_of(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    """One size or several, as a tuple.

    Raises:
        ValueError: there is none, or one that is no whole number of at least 1.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values or not all(map(is_whole, values)):
        raise ValueError(f"{name}: expected one or more whole numbers of at least 1, got {list(values)}")
    return values


def build(kind: Callable, **options: Any) -> nn.Module:
    """An object of that kind from those of the options that it takes; a module is there already."""
    if isinstance(kind, nn.Module):
        return kind
    return kind(**{name: value for name, value in options.items() if takes(kind, name)})


def unused_options(network: str | None, likelihood: str | None) -> set[str]:
    """The options of `VAE` that the parts of these names do not take; of a name that is not registered, none."""
    if network not in NETWORKS or likelihood not in LIKELIHOODS:
        return set()
    parts = (*NETWORKS[network], LIKELIHOODS[likelihood])
    return {option for option in PART_OPTIONS if not any(takes(part, option) for part in parts)}


def require(part: nn.Module, attribute: str) -> nn.Module:
    """The part of a model, if it has what the other parts need of it.

    Raises:
        ValueError: it has not.
    """
    if not hasattr(part, attribute):
        raise ValueError(f"{type(part).__name__} has no {attribute}: see docs/own-parts.md")
    return part


def register_likelihood(name: str, likelihood: type[Likelihood]) -> None:
    """Make a likelihood available by name: in `VAE`, on the command line and in checkpoints.

    Args:
        likelihood: a subclass of `Likelihood`. It is built from those of its arguments that `VAE` has, and
            `output_layer`.

    Raises:
        ValueError: there is one of that name, or it is no likelihood.
    """
    if not (isinstance(likelihood, type) and issubclass(likelihood, Likelihood)):
        raise ValueError(f"likelihood {name!r}: expected a subclass of vae.likelihoods.Likelihood, got {likelihood}")
    if likelihood.log_prob_kind is Likelihood.log_prob_kind:
        raise ValueError(f"likelihood {name!r}: {likelihood.__name__} has no log_prob_kind: see docs/own-parts.md")
    register("likelihood", name, likelihood, LIKELIHOODS)


def register_network(name: str, encoder: Callable[..., nn.Module], decoder: Callable[..., nn.Module]) -> None:
    """Make a network available by name: in `VAE`, on the command line and in checkpoints.

    Args:
        encoder: a class of modules, images [B, C, H, W] -> features [B, out_features]. Encoder and decoder are built
            from those of their arguments that `VAE` has.
        decoder: one of modules, latents [B, Z] -> features; its `output_layer(n)` makes the layer that maps them to n
            parameters at each position, [..., n, H, W].

    Raises:
        ValueError: there is one of that name, or a part is no class.
    """
    if not (callable(encoder) and callable(decoder)):
        raise ValueError(f"network {name!r}: expected two classes of modules, got {encoder} and {decoder}")
    register("network", name, (encoder, decoder), NETWORKS)
