"""Adversarial training of the embedded generator: non-saturating loss, lazy R1, moving average.

Goodfellow et al. 2014 (loss), Mescheder et al. 2018 (R1), Karras et al. 2020 (lazy
regularisation, EMA). Step t draws its renders and its z from (seed, t) alone and the checkpoint
holds networks and optimisers, so a run that was stopped continues as if it had not been.
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

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.seeding import normals
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
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
    # From here on the class shares are steered, see editbench.worlds.steering
    steer_from_kimg: float = 450
    steer_weight: float = 1.0
    # The generator stays as it is so long: a new discriminator catches up with a trained one
    warmup_kimg: float = 0.0
    # Of the renders' law; None: the world's own. Kept in the checkpoint, not used here
    correlations: dict[str, float] | None = None
    # Digest of the data set that is shown, empty for renders. Kept in the checkpoint, not used
    data: str = ""

    def __post_init__(self) -> None:
        if self.batch < 1 or not self.total_kimg >= 0:
            raise EditbenchError(
                f"--batch is 1 or more, --kimg 0 or more, got {self.batch} and {self.total_kimg}"
            )


class GANTrainer:
    """Networks, optimisers and one training step.

    Args:
        config: of the generator.
        options: of the training.
        reals: (start, stop) -> real images (N, 3, R, R) in [-1, 1].
        device: where to train.
        steering: of the class shares; None: none.
        start: a trained network to go on from; None: a new one.
    """

    def __init__(
        self,
        config: StyleGAN2Config,
        options: GANTraining,
        reals: Callable[[int, int], Tensor],
        device: str = "cpu",
        steering: ShareSteering | None = None,
        start: StyleGAN2 | None = None,
    ) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.reals = reals
        self.device = torch.device(device)
        self.steering = steering
        self.g = StyleGAN2(config).to(self.device)
        if start is not None:
            self.g.load_state_dict(start.state_dict())
        self.d = Discriminator(config.channels).to(self.device)
        self.ema = copy.deepcopy(self.g).eval().requires_grad_(False)
        # Lazy regularisation adds a step of R1 to every `r1_every` others: the rate and the
        # betas are corrected for it.
        betas = (0.0, 0.99)
        # Karras et al. 2020, "lazy regularisation".
        lazy = options.r1_every / (options.r1_every + 1)
        self.g_opt = torch.optim.Adam(self.g.parameters(), options.lr, betas)
        self.d_opt = torch.optim.Adam(
            self.d.parameters(), options.lr * lazy, tuple(b**lazy for b in betas)
        )
        self.rates = [group["lr"] for opt in (self.g_opt, self.d_opt) for group in opt.param_groups]
        self.step = 0

    # -- one step -------------------------------------------------------------
    @property
    def kimg(self) -> float:
        return self.step * self.options.batch / 1000

    def train_step(self) -> dict[str, float]:
        o = self.options
        n = self.options.batch
        real = self.reals(self.step * n, (self.step + 1) * n).to(self.device)
        # Latents of the discriminator's fakes and of the generator's, side by side.
        width = 2 * self.g.config.z_dim
        z = torch.from_numpy(normals(o.seed, "gan", self.step * n, (self.step + 1) * n, width))
        z_d, z_g = z.float().to(self.device).chunk(2, 1)
        self._set_rates()

        # Discriminator.
        self.g.requires_grad_(False)
        with self._autocast():
            with torch.no_grad():
                fake = self.g(z_d)
            real_logit = self.d(real)
            fake_logit = self.d(fake)
        d_loss = F.softplus(fake_logit.float()).mean() + F.softplus(-real_logit.float()).mean()
        if self.step % o.r1_every == 0:
            d_loss = d_loss + self._r1(real) * (o.r1_gamma / 2 * o.r1_every)
        self._update(self.d_opt, d_loss)
        self.g.requires_grad_(True)
        if self.kimg < o.warmup_kimg:
            self.step += 1
            return {
                "d": d_loss.item(),
                "real": real_logit.float().mean().item(),
                "fake": fake_logit.float().mean().item(),
            }

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
        return {
            "d": d_loss.item(),
            "g": g_loss.item(),
            "real": real_logit.float().mean().item(),
            "fake": fake_logit.float().mean().item(),
        }

    def _steer(self, image: Tensor) -> Tensor:
        if self.steering is None or self.kimg < self.options.steer_from_kimg:
            return image.new_zeros(())
        return self.steering.loss(image)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bfloat16)

    def _r1(self, real: Tensor) -> Tensor:
        real = real.detach().requires_grad_(True)
        # In full precision: bfloat16 loses most digits of a squared gradient.
        (gradient,) = torch.autograd.grad(self.d(real).sum(), real, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

    def _update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"the GAN loss became {loss.item()} at step {self.step}; resume with a lower lr"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def _set_rates(self) -> None:
        # Linear to zero at the end, but not below 2 % of the rate.
        progress = self.kimg / self.options.total_kimg
        left = min(1.0, max(0.02, (1 - progress) / (1 - self.options.lr_decay_from)))
        groups = [group for opt in (self.g_opt, self.d_opt) for group in opt.param_groups]
        for group, rate in zip(groups, self.rates):
            group["lr"] = rate * left

    def _average(self) -> None:
        # A short memory at the start, when the average would keep the first, bad networks.
        half_life = min(self.options.ema_kimg, max(self.kimg * self.options.ema_rampup, 1e-3))
        beta = 0.5 ** (self.options.batch / 1000 / half_life)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.g.parameters()), 1 - beta)
            for mine, theirs in zip(self.ema.buffers(), self.g.buffers()):
                mine.copy_(theirs)

    # -- state ----------------------------------------------------------------
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"g": self.g, "d": self.d, "ema": self.ema, "g_opt": self.g_opt, "d_opt": self.d_opt}

    def save(self, path: Path) -> None:
        state: dict[str, object] = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {
            "step": self.step,
            "options": asdict(self.options),
            "config": asdict(self.g.config),
        }
        if self.steering is not None:
            state["steering"] = self.steering.state_dict()
        # Renamed when whole: a stopped write leaves the last checkpoint as it was.
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


def read_checkpoint(path: Path) -> dict:
    """A checkpoint of `train`, or BadFile."""
    remedy = "give the checkpoint.pt of an `editbench world train-gan`"
    if not path.is_file():
        raise BadFile(f"{path}: no such checkpoint; {remedy}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler may stumble over damaged bytes in any way
        raise BadFile(f"{path}: not a complete checkpoint; {remedy}") from error
    if not isinstance(state, dict) or not {"ema", "config", "options", "step"} <= set(state):
        raise BadFile(f"{path}: not a checkpoint of a generator's training; {remedy}")
    return state


def check_checkpoint(path: Path, config: StyleGAN2Config, options: GANTraining) -> None:
    """Raise EditbenchError where a checkpoint is of another training; its length may differ."""
    if not path.exists():
        return
    state = read_checkpoint(path)
    ours = asdict(config) | asdict(options) | {"total_kimg": 0}
    # An old file lacks new options: it was trained with their defaults.
    theirs = asdict(GANTraining()) | dict(state["config"]) | dict(state["options"], total_kimg=0)
    changed = [
        f"{key} {theirs.get(key)} there, {ours[key]} here"
        for key in ours
        if _plain(theirs.get(key)) != _plain(ours[key])
    ]
    if changed:
        raise EditbenchError(
            f"{path} is of another training ({'; '.join(changed)}); "
            "give the same options or another --out"
        )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def train(
    trainer: GANTrainer, folder: Path, on_checkpoint: Callable[[GANTrainer], dict] | None = None
) -> StyleGAN2:
    """Train to the end, or on from `folder`/checkpoint.pt.

    Args:
        trainer: at its start.
        folder: of checkpoint.pt and log.jsonl, which gets one JSON line a checkpoint.
        on_checkpoint: gives more entries of that line.

    Returns the averaged generator.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    options = trainer.options
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"resuming at {trainer.kimg:.0f} kimg from {checkpoint}", flush=True)
    # Checkpoints fall on whole steps.
    every = max(1, round(options.checkpoint_kimg * 1000 / options.batch))
    started = time.time()
    first = trainer.step
    # Losses since the last checkpoint, whose means are logged.
    values: dict[str, list[float]] = {}
    while trainer.kimg < options.total_kimg:
        for key, value in trainer.train_step().items():
            values.setdefault(key, []).append(value)
        if trainer.step % every == 0 or trainer.kimg >= options.total_kimg:
            trainer.save(checkpoint)
            speed = (trainer.step - first) * options.batch / (time.time() - started)
            row = {"kimg": round(trainer.kimg, 2), "img_per_s": round(speed, 1)}
            row |= {key: round(math.fsum(seen) / len(seen), 4) for key, seen in values.items()}
            if on_checkpoint is not None:
                row |= on_checkpoint(trainer)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            values = {}
    return trainer.ema
