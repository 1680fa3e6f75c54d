"""The page: template, style and scripts of this folder, filled with a model and images.

The description of both is JSON. Arrays (weights, images, codes) are one block of bytes, deflated and in base64; the
description says where each one is. Nothing here knows how the page looks or works.
"""

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae.colours import label_colours
from vae.distributions import colours_of
from vae.likelihoods import (
    MAX_LOG_SCALE,
    MAX_LOG_VAR,
    MIN_LOG_SCALE,
    MIN_LOG_VAR,
    Likelihood,
    LogitLikelihood,
    likelihood_name,
)
from vae.metrics import is_active
from vae.model import ELBO, VAE
from vae.networks import ChannelsFirst

MAX_PAGE_SIZE = 16_000_000  # bytes
MAX_IMAGES = 10_000
MAX_COLOURS = 512  # in a palette that one paints with
FOLDER = Path(__file__).parent
SCRIPTS = ("network.js", "map.js", "pad.js", "posterior.js", "explorer.js")
ONLY_RESHAPE = (nn.Flatten, nn.Unflatten, ChannelsFirst)


class NotExplorable(Exception):
    """The page cannot hold this model; the message says why."""


class Block:
    """Arrays in one block of bytes. `add` returns the place of an array: its type, first byte and length."""

    def __init__(self):
        self.content = bytearray()

    def add(self, values: Tensor) -> dict[str, Any]:
        """Append a tensor of float32, int16 or uint8."""
        self.content += bytes(-len(self.content) % 4)  # a typed array begins at a multiple of its numbers' size
        place = {"type": str(values.dtype).removeprefix("torch."), "start": len(self.content), "length": values.numel()}
        self.content += values.detach().cpu().contiguous().numpy().tobytes()
        return place

    def add_weight(self, weight: Tensor, half_size: bool) -> dict[str, Any]:
        """Append a weight in float32; or a matrix in 16 bits, each row in multiples of a step of its own.

        The error of a number is then at most 2^-16 of its row's largest, where float16 has 2^-11 of the number.
        """
        weight = weight.detach().float().cpu()
        if not half_size or weight.ndim < 2:
            return self.add(weight)
        rows = weight.flatten(1)
        steps = rows.abs().amax(1).clamp(min=1e-30) / 32_767
        return self.add((rows / steps.unsqueeze(1)).round().short()) | {"steps": self.add(steps)}

    def encode(self) -> str:
        """The block as text."""
        return base64.b64encode(zlib.compress(self.content)).decode()


@torch.no_grad()
def explorer_page(
    vae: VAE,
    images: Tensor,
    labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
    name: str = "Latent space",
    shown: str = "images",
) -> str:
    """The page for a model: one HTML file that needs no network.

    Weights are float32; where these would exceed MAX_PAGE_SIZE, matrices are kept in 16 bits, which moves a bound by up
    to 0.05 nats, and a density's by up to 1e-4 of its size. The page takes as many of the images as have space in it.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].
        labels: [N], places in `classes`, or None.
        classes: the labels' names, or None.
        name: of the data set.
        shown: what the images are, as the page says it, such as "test images".

    Raises:
        NotExplorable: the model is too large, or has a layer that network.js lacks.
    """
    images, labels = images[:MAX_IMAGES], None if labels is None else labels[:MAX_IMAGES]
    weights = Block()
    model = describe_model(vae, weights, half_size=False)
    if len(weights.encode()) > 0.9 * MAX_PAGE_SIZE:
        weights = Block()
        model = describe_model(vae, weights, half_size=True)
    model_size = len(weights.content)
    while True:
        data = describe_data(vae, images, labels, model["likelihood"].get("palette"), weights)
        colours = None if labels is None else label_colours(len(classes) if classes else int(labels.max()) + 1)
        texts = {"name": name, "shown": shown, "classes": classes and list(classes), "colours": colours}
        page = assemble(name, model | data | texts, weights)
        if len(page.encode()) <= MAX_PAGE_SIZE:
            return page
        if len(images) == 1:
            raise NotExplorable(
                f"explorer: with {count_parameters(vae):,} parameters the page has {len(page) / 1e6:.1f} MB, "
                f"the limit is {MAX_PAGE_SIZE / 1e6:.0f} MB. Train with smaller --model.hidden_dims."
            )
        half = len(images) // 2
        images, labels = images[:half], None if labels is None else labels[:half]
        del weights.content[model_size:]


def assemble(name: str, description: dict[str, Any], block: Block) -> str:
    """The template with each {{part}} in its place."""
    parts = {
        "title": escape(name),
        "shown": escape(description["shown"]),
        "style": (FOLDER / "explorer.css").read_text(),
        "scripts": "\n".join((FOLDER / script).read_text() for script in SCRIPTS),
        "description": json.dumps(description, separators=(",", ":")).replace("<", "\\u003c"),
        "block": block.encode(),
    }
    head, *rest = (FOLDER / "template.html").read_text().split("{{")
    pieces = [piece.split("}}") for piece in rest]
    return head + "".join(parts[part] + text for part, text in pieces)


def count_parameters(vae: VAE) -> int:
    """The number of a model's parameters."""
    return sum(parameter.numel() for parameter in vae.parameters())


def describe_model(vae: VAE, block: Block, half_size: bool) -> dict[str, Any]:
    """What network.js needs to know of a model; its weights go into the block.

    Raises:
        NotExplorable: there is a network or a layer that network.js lacks.
    """
    for module in (vae.encoder, vae.decoder):  # of another network, what is computed between the layers is unknown
        if type(module).__module__ != "vae.networks":
            raise NotExplorable(f"explorer: the page has no network {type(module).__name__}, which this model has.")
    calls: list[tuple[nn.Module, torch.Size, torch.Size]] = []
    leaves = [module for module in vae.modules() if not any(module.children())]
    hooks = [leaf.register_forward_hook(lambda m, x, y: calls.append((m, x[0].shape, y.shape))) for leaf in leaves]
    p_x = vae.decode(vae.encode(torch.zeros(1, *vae.image_shape, device=vae.prior_loc.device)).mean)
    for hook in hooks:
        hook.remove()

    def add(weight: Tensor) -> dict[str, Any]:
        return block.add_weight(weight, half_size)

    def layers(module: nn.Module) -> list[dict[str, Any]]:
        """The layers of a module in the order of their calls."""
        inside = {id(part) for part in module.modules()}
        return [
            describe_layer(layer, tuple(shape_in), tuple(shape_out), add)
            for layer, shape_in, shape_out in calls
            if id(layer) in inside and not isinstance(layer, ONLY_RESHAPE)
        ]

    return {
        "shape": vae.image_shape,
        "latentDim": vae.latent_dim,
        "parameters": count_parameters(vae),
        "logVarBounds": (MIN_LOG_VAR, MAX_LOG_VAR),
        "encoder": layers(vae.encoder),
        "posterior": {  # whose layers are computed as one
            name: [describe_layer(head, (1, head.in_features), (1, head.out_features), add)]
            for name, head in (("mean", vae.posterior.mean), ("log_var", vae.posterior.log_var))
        },
        "decoder": layers(vae.decoder),
        "likelihood": describe_likelihood(vae.likelihood, p_x)
        | {"heads": {name: layers(head) for name, head in vae.likelihood.named_children()}},
    }


def describe_layer(
    layer: nn.Module, shape_in: tuple[int, ...], shape_out: tuple[int, ...], add: Callable[[Tensor], dict[str, Any]]
) -> dict[str, Any]:
    """One entry of the lists that network.js runs.

    Raises:
        NotExplorable: network.js lacks it.
    """
    match layer:
        case nn.ReLU():
            return {"kind": "relu"}
        case nn.Tanh():
            return {"kind": "tanh"}
        case nn.Linear():
            if len(shape_in) > 2:  # at each position, which is the case of features [..., H, W, F]
                return {"kind": "pointwise", "weight": add(layer.weight), "bias": add(layer.bias)}
            return {"kind": "dense", "weight": add(layer.weight.T), "bias": add(layer.bias)}
        case nn.Conv2d() | nn.ConvTranspose2d():
            return {
                "kind": "convolution",
                "transposed": isinstance(layer, nn.ConvTranspose2d),
                "weight": add(layer.weight),
                "bias": add(layer.bias),
                "kernel": layer.kernel_size,
                "stride": layer.stride[0],
                "padding": layer.padding[0],
                "from": shape_in[-2:],
                "to": shape_out[-2:],
            }
    raise NotExplorable(f"explorer: the page has no layer {type(layer).__name__}, which this model has.")


def describe_likelihood(likelihood: Likelihood, p_x: Distribution) -> dict[str, Any]:
    """The likelihood's name and its constants; where one scale serves all pixels, it is that of any p(x|z).

    Raises:
        NotExplorable: network.js lacks it.
    """
    name = likelihood_name(likelihood)
    if name != "categorical" and f"\n  {name}: {{" not in (FOLDER / "network.js").read_text():
        raise NotExplorable(f"explorer: the page has no likelihood {name}, which this model has.")
    described: dict[str, Any] = {
        "name": name,
        "linear": isinstance(likelihood, LogitLikelihood),  # log p(x|z) in the image
        "logScaleBounds": (MIN_LOG_SCALE, MAX_LOG_SCALE),
        "logVarBounds": (MIN_LOG_VAR, MAX_LOG_VAR),
        "kind": {binary: likelihood.log_prob_kind(binary=binary == "binary") for binary in ("binary", "grey")},
    }
    if described["name"] == "gaussian":
        described["minScale"] = likelihood.min_scale
    if described["name"] == "gaussian_fixed":
        described["scale"] = p_x.base_dist.scale.flatten()[0].item()
    if described["name"] == "categorical":
        described["palette"] = to_bytes(colours_of(p_x.codes, p_x.num_channels, torch.float32)).tolist()
        described["stray"] = p_x.STRAY
    return described


def describe_data(
    vae: VAE, images: Tensor, labels: Tensor | None, palette: list[list[int]] | None, block: Block
) -> dict[str, Any]:
    """The images with their codes, and the map on which these are drawn."""
    codes, kl, errors, bounds = [], [], [], []
    noise = torch.Generator().manual_seed(0)
    for _, some in vae.batches(images):
        q_z = vae.encode(some)
        codes.append(q_z.mean)
        kl.append(vae.kl_per_dimension(q_z))
        eps = torch.randn(1, *q_z.mean.shape, generator=noise).to(q_z.mean)
        bounds.append(torch.stack(vae.elbo(some, eps=eps)))
        errors.append((vae.generate(q_z.mean) - some).square().flatten(1).mean(1).sqrt())
    z = torch.cat(codes).float().cpu()
    pixels = to_bytes(images)
    binary = not bool(((pixels > 0) & (pixels < 255)).any())
    described = {
        "count": len(images),
        "binary": binary,
        "palette": find_palette(pixels, palette),
        "images": block.add(pixels),
        "codes": block.add(z),
        "kl": torch.cat(kl).mean(0).tolist(),
        "active": is_active(z).tolist(),
        "meanBound": dict(zip(ELBO._fields, torch.cat(bounds, 1).mean(1).tolist(), strict=True)),
        "map": describe_map(z),
    }
    if labels is None:
        return described | {"errors": block.add(torch.cat(errors).float())}
    return described | {"labels": block.add(labels.short())}


def describe_map(codes: Tensor) -> dict[str, Any]:
    """The plane of the map: its centre [Z], two axes [Z] and, above two dimensions, their share of the variance.

    Up to two dimensions it is the latent space itself, above that the plane of the first two principal components.
    """
    latent_dim = codes.shape[1]
    if latent_dim <= 2:
        return {"centre": [0.0] * latent_dim, "axes": torch.eye(2)[:, :latent_dim].tolist()}
    variances, axes = torch.linalg.eigh(torch.cov(codes.double().T, correction=0))
    first, total = variances.flip(0)[:2], variances.sum().clamp(min=1e-30)
    return {
        "centre": codes.mean(0).tolist(),
        "axes": axes.T.flip(0)[:2].tolist(),
        "shares": (first / total).tolist(),
    }


def find_palette(pixels: Tensor, known: list[list[int]] | None) -> list[list[int]] | None:
    """The colours that one paints with, the most frequent first; None where any grey or colour will do.

    Args:
        pixels: uint8 [N, C, H, W].
        known: the palette of a categorical likelihood.
    """
    channels = pixels.shape[1]
    if known is None and channels == 1:
        return None
    codes = sum(channel.int() << 8 * place for place, channel in enumerate(reversed(pixels.unbind(1))))
    found, counts = torch.unique(codes, return_counts=True)
    colours = to_bytes(colours_of(found, channels, torch.float32)).tolist()
    frequency = {tuple(colour): count for colour, count in zip(colours, counts.tolist(), strict=True)}
    if known is None and len(colours) > MAX_COLOURS:
        return None
    return sorted(known or colours, key=lambda colour: -frequency.get(tuple(colour), 0))


def to_bytes(values: Tensor) -> Tensor:
    """Values in [0, 1] as uint8."""
    return values.mul(255).round().byte().cpu()
