"""What most repositories do: torchvision's MNIST through PIL and ToTensor, worker processes, three logs a step."""

import os
import sys

import torch
from pairs import Turns
from pytorch_lightning import LightningModule, Trainer
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor


class UsualVAE(LightningModule):
    """784-500-20, written as it is usually written."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 500), torch.nn.ReLU())
        self.mean, self.log_var = torch.nn.Linear(500, 20), torch.nn.Linear(500, 20)
        self.decoder = torch.nn.Sequential(torch.nn.Linear(20, 500), torch.nn.ReLU(), torch.nn.Linear(500, 784))

    def training_step(self, batch, batch_idx):
        x, _ = batch
        features = self.encoder(x)
        mean, log_var = self.mean(features), self.log_var(features)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        reconstruction = binary_cross_entropy_with_logits(self.decoder(z), x.flatten(1), reduction="sum") / len(x)
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum() / len(x)
        self.log("loss", reconstruction + kl, prog_bar=True)
        self.log("reconstruction", reconstruction)
        self.log("kl", kl)
        return reconstruction + kl

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


if __name__ == "__main__":
    data = torch.utils.data.Subset(MNIST(os.environ["VAE_DATA_DIR"], transform=ToTensor()), range(50_000))
    loader = DataLoader(data, batch_size=int(sys.argv[1]), shuffle=True, num_workers=2)
    Trainer(max_epochs=100, callbacks=[Turns()]).fit(UsualVAE(), loader)
