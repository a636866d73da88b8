"""Adversarial training of the embedded generator: non-saturating loss, lazy R1, exponential moving average.

Goodfellow et al. 2014 (loss), Mescheder et al. 2018 (R1), Karras et al. 2020 (lazy regularisation, EMA). Step t draws
its renders and its z from (seed, t) alone and the checkpoint holds networks and optimisers, so a run that was stopped
continues as if it had not been.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from editbench.seeding import normals
from editbench.worlds.discriminator import Discriminator
from editbench.worlds.steering import ShareSteering


@dataclass(frozen=True)
class GANTraining:
    """Hyperparameters. Lengths are in thousands of real images shown (kimg)."""

    total_kimg: float = 500
    batch: int = 32
    lr: float = 2e-3
    lr_decay_from: float = 0.75  # share of the run after which the rate falls linearly to zero
    r1_gamma: float = 0.1
    r1_every: int = 16
    ema_kimg: float = 5.0
    ema_rampup: float = 0.05
    w_avg_beta: float = 0.998
    bfloat16: bool = True
    seed: int = 0
    checkpoint_kimg: float = 16
    steer_from_kimg: float = 450  # from here on the class shares are steered, see editbench.worlds.steering
    steer_weight: float = 1.0


class GANTrainer:
    """Networks, optimisers and one training step. `reals(start, stop)` gives images (N, 3, R, R) in [-1, 1]."""

    def __init__(self, config: StyleGAN2Config, options: GANTraining, reals: Callable[[int, int], Tensor],
                 device: str = "cpu", steering: ShareSteering | None = None) -> None:
        torch.manual_seed(options.seed)
        self.options, self.reals, self.device = options, reals, torch.device(device)
        self.steering = steering
        self.g = StyleGAN2(config).to(self.device)
        self.d = Discriminator(config.channels).to(self.device)
        self.ema = copy.deepcopy(self.g).eval().requires_grad_(False)
        betas = (0.0, 0.99)
        lazy = options.r1_every / (options.r1_every + 1)
        self.g_opt = torch.optim.Adam(self.g.parameters(), options.lr, betas)
        self.d_opt = torch.optim.Adam(self.d.parameters(), options.lr * lazy, tuple(b**lazy for b in betas))
        self.rates = [group["lr"] for opt in (self.g_opt, self.d_opt) for group in opt.param_groups]
        self.step = 0

    # -- one step ---------------------------------------------------------------------------------------------------
    @property
    def kimg(self) -> float:
        return self.step * self.options.batch / 1000

    def train_step(self) -> dict[str, float]:
        o, n = self.options, self.options.batch
        real = self.reals(self.step * n, (self.step + 1) * n).to(self.device)
        z = torch.from_numpy(normals(o.seed, "gan", self.step * n, (self.step + 1) * n, 2 * self.g.config.z_dim))
        z_d, z_g = z.float().to(self.device).chunk(2, 1)
        self._set_rates()

        # Discriminator.
        self.g.requires_grad_(False)
        with self._autocast():
            with torch.no_grad():
                fake = self.g(z_d)
            real_logit, fake_logit = self.d(real), self.d(fake)
        d_loss = F.softplus(fake_logit.float()).mean() + F.softplus(-real_logit.float()).mean()
        if self.step % o.r1_every == 0:
            d_loss = d_loss + self._r1(real) * (o.r1_gamma / 2 * o.r1_every)
        self._update(self.d_opt, d_loss)
        self.g.requires_grad_(True)

        # Generator.
        self.d.requires_grad_(False)
        with self._autocast():
            w = self.g.mapping(z_g)
            w_plus = w.unsqueeze(1).expand(-1, self.g.config.num_ws, -1)
            image = self.g.synthesis(self.g.synthesis.styles(w_plus))
            logit = self.d(image)
            steer = self._steer(image)
        g_loss = F.softplus(-logit.float()).mean() + steer
        self._update(self.g_opt, g_loss)
        self.d.requires_grad_(True)

        self.g.mapping.w_avg.lerp_(w.detach().float().mean(0), 1 - o.w_avg_beta)
        self._average()
        self.step += 1
        return {"d": d_loss.item(), "g": g_loss.item(), "real": real_logit.float().mean().item(),
                "fake": fake_logit.float().mean().item()}

    def _steer(self, image: Tensor) -> Tensor:
        if self.steering is None or self.kimg < self.options.steer_from_kimg:
            return image.new_zeros(())
        return self.steering.loss(image)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bfloat16)

    def _r1(self, real: Tensor) -> Tensor:
        real = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.d(real).sum(), real, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

    def _update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the GAN loss became {loss.item()} at step {self.step}; resume with a lower lr")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def _set_rates(self) -> None:
        progress = self.kimg / self.options.total_kimg
        left = min(1.0, max(0.02, (1 - progress) / (1 - self.options.lr_decay_from)))
        groups = [group for opt in (self.g_opt, self.d_opt) for group in opt.param_groups]
        for group, rate in zip(groups, self.rates):
            group["lr"] = rate * left

    def _average(self) -> None:
        half_life = min(self.options.ema_kimg, max(self.kimg * self.options.ema_rampup, 1e-3))
        beta = 0.5 ** (self.options.batch / 1000 / half_life)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.g.parameters()), 1 - beta)
            for mine, theirs in zip(self.ema.buffers(), self.g.buffers()):
                mine.copy_(theirs)

    # -- state ------------------------------------------------------------------------------------------------------
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"g": self.g, "d": self.d, "ema": self.ema, "g_opt": self.g_opt, "d_opt": self.d_opt}

    def save(self, path: Path) -> None:
        state: dict[str, object] = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"step": self.step, "options": asdict(self.options), "config": asdict(self.g.config)}
        if self.steering is not None:
            state["steering"] = self.steering.state_dict()
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        if self.steering is not None and "steering" in state:
            self.steering.load_state_dict(state["steering"])
        self.step = state["step"]


def train(trainer: GANTrainer, folder: Path, on_checkpoint: Callable[[GANTrainer], dict] | None = None) -> StyleGAN2:
    """Train to the end, or on from `folder`/checkpoint.pt; one JSON line a checkpoint goes to `folder`/log.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, options = folder / "checkpoint.pt", trainer.options
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"resuming at {trainer.kimg:.0f} kimg from {checkpoint}", flush=True)
    every = max(1, round(options.checkpoint_kimg * 1000 / options.batch))
    started, first = time.time(), trainer.step
    sums: dict[str, float] = {}
    while trainer.kimg < options.total_kimg:
        for key, value in trainer.train_step().items():
            sums[key] = sums.get(key, 0.0) + value
        if trainer.step % every == 0 or trainer.kimg >= options.total_kimg:
            trainer.save(checkpoint)
            speed = (trainer.step - first) * options.batch / (time.time() - started)
            row = {"kimg": round(trainer.kimg, 2), "img_per_s": round(speed, 1)}
            row |= {key: round(value / every, 4) for key, value in sums.items()}
            if on_checkpoint is not None:
                row |= on_checkpoint(trainer)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            sums = {}
    return trainer.ema
