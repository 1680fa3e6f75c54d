"""The variational auto-encoder of "Auto-Encoding Variational Bayes" (Kingma & Welling, arXiv 1312.6114)."""

from vae.lit_vae import LitVAE
from vae.model import VAE, register_likelihood, register_network

__all__ = ["VAE", "LitVAE", "register_likelihood", "register_network"]
