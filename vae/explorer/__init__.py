"""The page on which one explores the latent space of a model: one HTML file, in which the model itself runs."""

from vae.explorer.page import MAX_IMAGES, MAX_PAGE_SIZE, NotExplorable, explorer_page

__all__ = ["MAX_IMAGES", "MAX_PAGE_SIZE", "NotExplorable", "explorer_page"]
