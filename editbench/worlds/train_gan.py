"""Adversarial training of the embedded generator: non-saturating loss, lazy R1, moving average.

Goodfellow et al. 2014 (loss), Mescheder et al. 2018 (R1), Karras et al. 2019 (style mixing), Karras
et al. 2020 (lazy regularisation, path length, EMA). Style mixing and the path length penalty make W
suitable for editing. Two optional terms use a *witness*, a scorer of the generated images: they
steer the class shares (`steering`) and make the attributes linear in W (`linearity`).

The renders, z and noise of step t depend only on (seed, t), and a checkpoint holds networks,
optimisers and running means. An interrupted training therefore resumes with the same numbers. On a
GPU each kind of step is captured as a CUDA graph (`capture`).
"""

from __future__ import annotations

import copy
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.devices import to_device, to_host
from editbench.base.errors import BadFile, EditbenchError, NonFinite
from editbench.base.files import create_folder, write_atomic
from editbench.base.seeding import normals, uniforms
from editbench.networks.scorer import Scorer
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.networks.torchscript import check_whole, open_archive
from editbench.worlds.capture import StepGraphs, adam, load_optimiser, set_rate
from editbench.worlds.discriminator import Discriminator
from editbench.worlds.linearity import LinearTerm
from editbench.worlds.steering import ShareSteering

# The path length needs a second backward pass, so its batch is smaller by this factor.
PATH_SHRINK = 2
# Share of the latest path length in the running mean, which starts as a plain one.
PATH_MEMORY = 0.01
LOG = "log.jsonl"
# Keys that every checkpoint has; others were added later.
NEEDED = {"ema", "d", "config", "options", "step"}
# Key of the generator's whole loss, which must be finite and is not logged.
TOTAL = "total"


@dataclass(frozen=True)
class GANTraining:
    """Hyperparameters. Lengths are in thousands of real images shown (kimg)."""

    total_kimg: float = 500
    batch: int = 32
    lr: float = 2e-3
    lr_decay_from: float = 0.75  # share of the run after which the rate falls linearly to zero
    discriminator_width: int = 1  # its channels, as a multiple of the generator's
    r1_gamma: float = 0.1
    r1_every: int = 16
    ema_kimg: float = 5.0
    ema_rampup: float = 0.05
    w_avg_beta: float = 0.998
    bfloat16: bool = True
    seed: int = 0
    checkpoint_kimg: float = 16
    # When the steering of the class shares begins, see editbench.worlds.steering.
    steer_from_kimg: float = 450
    steer_weight: float = 1.0
    mixing: float = 0.9  # share of pictures whose rows of w_plus come from two w
    path_weight: float = 2.0  # of the path-length penalty
    path_every: int = 8
    linearity: float = 0.0  # weight of the linear term, see editbench.worlds.linearity
    # The witness scores one batch in so many steps; its terms are multiplied by this number.
    witness_every: int = 2
    # How long only the discriminator is trained, so that a new one catches up with a trained
    # generator.
    warmup_kimg: float = 0.0
    # The rest is not used here. It is kept in the checkpoint, so that a training is not resumed with
    # other data.
    correlations: dict[str, float] | None = None  # of the renders' law; None: the world's own
    margin: float = 0.0  # of the renders' law
    reach: float | None = 1.5  # of the renders' law
    data: str = ""  # digest of the data set; '' for renders
    steer: bool = False  # whether the class shares are steered

    def __post_init__(self) -> None:
        if self.batch < 1 or not self.total_kimg >= 0:
            raise EditbenchError(
                f"--batch must be 1 or more, --kimg 0 or more, got {self.batch} and "
                f"{self.total_kimg}"
            )
        if not 0 <= self.mixing <= 1:
            raise EditbenchError(f"--mixing must be a share between 0 and 1, got {self.mixing}")
        if self.discriminator_width < 1:
            raise EditbenchError(
                f"--discriminator-width must be 1 or more, got {self.discriminator_width}"
            )
        # The range that torch's generators take.
        if not -(2**63) <= self.seed < 2**63:
            raise EditbenchError(f"--seed must lie between -2^63 and 2^63 - 1, got {self.seed}")
        if not 0 < self.lr < math.inf:
            raise EditbenchError(f"--lr must be more than 0, got {self.lr}")
        others = {
            "--kimg": self.total_kimg,
            "--checkpoint-kimg": self.checkpoint_kimg,
            "--ema-kimg": self.ema_kimg,
            "--r1-gamma": self.r1_gamma,
            "--steer-weight": self.steer_weight,
            "--warmup-kimg": self.warmup_kimg,
            "--path-weight": self.path_weight,
            "--linearity": self.linearity,
        }
        for flag, value in others.items():
            if not 0 <= value < math.inf:
                raise EditbenchError(f"{flag} must be 0 or more and finite, got {value}")


# Values of these options in checkpoints that were written before the options existed.
BEFORE = {"mixing": 0.0, "path_weight": 0.0, "linearity": 0.0, "margin": 0.7, "reach": None}


class GANTrainer:
    """Networks, optimisers and one training step.

    Args:
        config: of the generator.
        options: of the training.
        reals: (start, stop) -> real images (N, 3, R, R) in [-1, 1].
        device: where to train.
        steering: of the class shares; None: none.
        start: a trained network to continue from; None: a new one.
        witness: scores pictures for the steering and the linear term; it is frozen.
        critic: tensors of a trained discriminator to continue from; None: a new one.
        capture: whether steps are captured as CUDA graphs; None: on a CUDA device.

    Raises:
        EditbenchError: a linear term without a witness.
    """

    def __init__(
        self,
        config: StyleGAN2Config,
        options: GANTraining,
        reals: Callable[[int, int], Tensor],
        device: str = "cpu",
        steering: ShareSteering | None = None,
        start: StyleGAN2 | None = None,
        witness: Scorer | None = None,
        critic: Mapping[str, Tensor] | None = None,
        capture: bool | None = None,
    ) -> None:
        self.options = options
        self.reals = reals
        self.device = torch.device(device)
        self.captures = self.device.type == "cuda" if capture is None else capture
        self.steering = steering
        self.witness = None if witness is None else witness.eval().requires_grad_(False)
        widths = tuple(options.discriminator_width * width for width in config.channels)
        # torch's modules draw their initial weights from the global generator, which is restored.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.g = StyleGAN2(config).to(self.device)
            self.d = Discriminator(widths).to(self.device)
            self.linear = self._linear_term()
        if start is not None:
            self.g.load_state_dict(start.state_dict())
        if critic is not None:
            self.d.load_state_dict(critic)
        self.ema = copy.deepcopy(self.g).eval().requires_grad_(False)
        # Lazy regularisation (Karras et al. 2020) adds a step of R1 to every `r1_every` others, and
        # the discriminator's rate and betas are corrected for it.
        betas = (0.0, 0.99)
        lazy = options.r1_every / (options.r1_every + 1)
        self.g_opt = adam(self.g, options.lr, betas, self.captures)
        lazy_betas = (betas[0] ** lazy, betas[1] ** lazy)
        self.d_opt = adam(self.d, options.lr * lazy, lazy_betas, self.captures)
        self.rates = (options.lr, options.lr * lazy)
        self.path_mean = torch.zeros((), device=self.device)
        self.path_share = torch.zeros((), device=self.device)
        self.path_count = 0
        self.step = 0
        # Number and inputs of the next step, which are drawn while the device computes.
        self._drawn: tuple[int, dict[str, Tensor]] | None = None
        self._graphs = StepGraphs(self._update_both)
        # Line of the log at the last checkpoint, without the entries of `on_checkpoint`.
        self.row: dict[str, float] = {}

    def _linear_term(self) -> LinearTerm | None:
        if not self.options.linearity:
            return None
        if self.witness is None:
            raise EditbenchError(
                "the linear term reads traits off the pictures: give --witness, or --linearity 0"
            )
        return LinearTerm(
            self.witness.attributes, self.g.config.w_dim, self.options.linearity, self.device
        )

    # -- one step -------------------------------------------------------------
    @property
    def kimg(self) -> float:
        return self.step * self.options.batch / 1000

    def train_step(self) -> dict[str, float]:
        """One step of both networks, and its losses."""
        drawn = self._drawn
        inputs = drawn[1] if drawn is not None and drawn[0] == self.step else self._draw(self.step)
        self._set_rates()
        if self._takes_path() and self._trains_generator():
            self.path_count += 1
            # At first a mean over all path lengths so far.
            self.path_share.fill_(max(PATH_MEMORY, 1 / self.path_count))
        names, found = self._run_step(inputs)
        if self._trains_generator():
            self._average()
        if self.captures:
            self._drawn = (self.step + 1, self._draw(self.step + 1))
        # One transfer for all losses, so that the host waits for the device once per step.
        (row,) = to_host(found)
        values = dict(zip(names, row.tolist()))
        for loss in (values["d"], values.pop(TOTAL, 0.0)):
            if not math.isfinite(loss):
                # A checkpoint can be resumed only with its own rate, hence another --out.
                raise NonFinite(
                    f"the GAN loss became {loss} at step {self.step}: train with a lower --lr than "
                    f"{self.options.lr:g} into another --out"
                )
        self.step += 1
        return values

    def _draw(self, step: int) -> dict[str, Tensor]:
        """All that is random in a step, on the device: real pictures, latents, cuts and noise."""
        options = self.options
        first = step * options.batch
        last = first + options.batch
        width = self.g.config.z_dim

        def latents(stream: str, start: int, stop: int, width: int) -> Tensor:
            return torch.from_numpy(normals(options.seed, stream, start, stop, width)).float()

        # Latents of the discriminator's fakes and of the generator's, side by side.
        z_d, z_g = latents("gan", first, last, 2 * width).chunk(2, 1)
        drawn = {"real": self.reals(first, last), "z/d": z_d, "z/g": z_g}
        counts = {"d": options.batch, "g": options.batch}
        if self._takes_path(step):
            n = max(1, options.batch // PATH_SHRINK)
            counts["path"] = n
            pixels = self.g.config.img_channels * self.g.config.resolution**2
            drawn["noise"] = latents("gan/path", step * n, (step + 1) * n, pixels)
        if options.mixing:
            for stream, count in counts.items():
                name = f"gan/mixing/{stream}"
                drawn[f"other/{stream}"] = latents(f"{name}/z", first, first + count, width)
                cuts = uniforms(options.seed, f"{name}/cut", first, first + count, 2)
                drawn[f"cut/{stream}"] = torch.from_numpy(cuts)
        return {name: to_device(value, self.device) for name, value in drawn.items()}

    def _run_step(self, inputs: dict[str, Tensor]) -> tuple[list[str], Tensor]:
        """The step of both networks on what was drawn: names of the losses, and their values."""
        if not self.captures:
            return self._update_both(inputs)
        kind = (
            self._trains_generator(),
            self.step % self.options.r1_every == 0,
            self._asks_witness(),
            self._steers(),
            self._takes_path(),
        )
        return self._graphs(kind, inputs)

    def _update_both(self, inputs: dict[str, Tensor]) -> tuple[list[str], Tensor]:
        """Update the discriminator, then the generator: names of the losses, and their values."""
        found = self._discriminator_step(inputs)
        if self._trains_generator():
            found |= self._generator_step(inputs)
        return list(found), torch.stack([value.detach().float() for value in found.values()])

    def _trains_generator(self) -> bool:
        return self.kimg >= self.options.warmup_kimg

    def _takes_path(self, step: int | None = None) -> bool:
        step = self.step if step is None else step
        return bool(self.options.path_weight) and step % self.options.path_every == 0

    def _discriminator_step(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        options = self.options
        real = inputs["real"]
        self.g.requires_grad_(False)
        with self._autocast():
            with torch.no_grad():
                _, w_plus = self._mixed(inputs, "d", inputs["z/d"])
                fake = self._picture(w_plus)
            real_logit = self.d(real)
            fake_logit = self.d(fake)
        loss = F.softplus(fake_logit.float()).mean() + F.softplus(-real_logit.float()).mean()
        if self.step % options.r1_every == 0:
            loss = loss + self._r1(real) * (options.r1_gamma / 2 * options.r1_every)
        self._update(self.d_opt, loss)
        self.g.requires_grad_(True)
        return {
            "d": loss,
            "real": real_logit.float().mean(),
            "fake": fake_logit.float().mean(),
        }

    def _generator_step(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        options = self.options
        self.d.requires_grad_(False)
        with self._autocast():
            w, w_plus = self._mixed(inputs, "g", inputs["z/g"])
            logit = self.d(self._picture(w_plus))
        loss = F.softplus(-logit.float()).mean()
        values = {"g": loss}
        # Not in every step, since its images are decoded only for it.
        asks = self._asks_witness()
        if asks:
            for name, (weight, term) in self._witness_terms(w).items():
                loss = loss + options.witness_every * weight * term
                values[name] = term
        if self._takes_path():
            penalty, length = self._path_length(inputs)
            loss = loss + penalty * (options.path_weight * options.path_every)
            values |= {"path_penalty": penalty, "path_length": length}
        if self.linear is not None:
            self.linear.zero_grad()
        values[TOTAL] = loss
        self._update(self.g_opt, loss)
        if self.linear is not None and asks:
            self.linear.step()
        self.d.requires_grad_(True)
        self.g.mapping.w_avg.lerp_(w.detach().float().mean(0), 1 - options.w_avg_beta)
        return values

    # -- pictures -------------------------------------------------------------
    def _picture(self, w_plus: Tensor) -> Tensor:
        return self.g.synthesis(self.g.synthesis.styles(w_plus))

    def _mixed(self, inputs: dict[str, Tensor], stream: str, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map latents, and mix the rows of some pictures (style mixing).

        Args:
            inputs: what was drawn for the step.
            stream: name of the random draws.
            z: (N, z_dim).

        Returns:
            w (N, w_dim), and w_plus (N, num_ws, w_dim), whose later rows may be those of another w.
        """
        rows = self.g.config.num_ws
        w = self.g.mapping(z)
        w_plus = w.unsqueeze(1).expand(-1, rows, -1)
        if not self.options.mixing:
            return w, w_plus
        # The first column places the cut, the second decides whether there is one.
        draw = inputs[f"cut/{stream}"]
        cut = 1 + (draw[:, 0] * (rows - 1)).long()  # at least one row of each
        cut = torch.where(draw[:, 1] < self.options.mixing, cut, rows)
        own = torch.arange(rows, device=self.device) < cut[:, None]
        other = self.g.mapping(inputs[f"other/{stream}"]).unsqueeze(1)
        return w, torch.where(own[:, :, None], w_plus, other)

    # -- terms of the generator's loss ----------------------------------------
    def _steers(self) -> bool:
        return self.steering is not None and self.kimg >= self.options.steer_from_kimg

    def _asks_witness(self) -> bool:
        wanted = self._steers() or self.linear is not None
        return wanted and self.step % self.options.witness_every == 0

    def _witness_terms(self, w: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Name -> (weight, value) of the loss terms that the witness computes from w (N, w_dim).

        Styles are not mixed here, since the attributes of a mixed image belong to two w.
        """
        assert self.witness is not None  # `_asks_witness` is False without one
        terms = {}
        with self._autocast():
            image = self._picture(w.unsqueeze(1).expand(-1, self.g.config.num_ws, -1))
            logits = self.witness(image)
        if self.steering is not None and self._steers():
            terms["steer"] = (1.0, self.steering.loss(logits))
        if self.linear is not None:
            centred = w.float() - self.g.mapping.w_avg
            terms["linear"] = (self.linear.weight, self.linear.loss(centred, logits))
        return terms

    def _path_length(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Squared deviation of the path length from its running mean, and this batch's mean length.

        The length of an image is the norm of the gradient with respect to w of the image times unit
        noise (Karras et al. 2020, eq. 4). With equal lengths, a step in W changes all images by the
        same amount.
        """
        z = inputs["z/g"][: len(inputs["noise"])]
        # In full precision, as it is differentiated twice.
        with torch.autocast(self.device.type, enabled=False):
            _, w_plus = self._mixed(inputs, "path", z)
            image = self._picture(w_plus)
            noise = inputs["noise"].view_as(image) / math.sqrt(image.shape[2] * image.shape[3])
            (gradient,) = torch.autograd.grad((image * noise).sum(), w_plus, create_graph=True)
            length = gradient.square().sum(2).mean(1).sqrt()
        self.path_mean.lerp_(length.detach().mean(), self.path_share)
        return (length - self.path_mean).square().mean(), length.mean()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bfloat16)

    def _r1(self, real: Tensor) -> Tensor:
        real = real.detach().requires_grad_(True)
        # In full precision, since bfloat16 loses most digits of a squared gradient.
        (gradient,) = torch.autograd.grad(self.d(real).sum(), real, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

    def _update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def _set_rates(self) -> None:
        # Linear to zero at the end, but not below 2 % of the rate.
        progress = self.kimg / self.options.total_kimg
        left = min(1.0, max(0.02, (1 - progress) / (1 - self.options.lr_decay_from)))
        for optimiser, rate in zip((self.g_opt, self.d_opt), self.rates):
            set_rate(optimiser, rate * left)

    def _average(self) -> None:
        # A short memory at the start, so that the average forgets the first, bad networks.
        half_life = min(self.options.ema_kimg, max(self.kimg * self.options.ema_rampup, 1e-3))
        # A half-life of 0 keeps nothing of the average.
        beta = 0.5 ** (self.options.batch / 1000 / half_life) if half_life else 0.0
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
            "path": {"mean": self.path_mean, "count": self.path_count},
            "row": self.row,
        }
        if self.steering is not None:
            state["steering"] = self.steering.state_dict()
        if self.linear is not None:
            state["linear"] = self.linear.state_dict()
        # Written atomically, so that an interrupted write leaves the last checkpoint intact.
        content = io.BytesIO()
        torch.save(state, content)
        write_atomic(path, content.getvalue())

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self._parts().items():
            if isinstance(part, nn.Module):
                part.load_state_dict(state[name])
            else:
                load_optimiser(part, state[name])
        if self.steering is not None and "steering" in state:
            self.steering.load_state_dict(state["steering"])
        if self.linear is not None and "linear" in state:
            self.linear.load_state_dict(state["linear"])
        if "path" in state:
            self.path_mean.copy_(state["path"]["mean"])
            self.path_count = state["path"]["count"]
        self.step = state["step"]
        self.row = state.get("row", {})


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint of `train`.

    Raises:
        BadFile: the file is missing, damaged, or no such checkpoint.
    """
    remedy = "give the checkpoint.pt of an `editbench world train-gan`"
    if not path.is_file():
        raise BadFile(f"{path}: no such checkpoint; {remedy}")
    try:
        # torch compares no checksum of the archive.
        with open_archive(path) as archive:
            check_whole(path, archive)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler may stumble over damaged bytes in any way
        raise BadFile(f"{path}: not a complete checkpoint; {remedy}") from error
    if not isinstance(state, dict) or not NEEDED <= set(state):
        raise BadFile(f"{path}: not a checkpoint of a generator's training; {remedy}")
    return state


def check_checkpoint(path: Path, config: StyleGAN2Config, options: GANTraining) -> None:
    """Check that a training can go on from a checkpoint; its length may differ.

    Args:
        path: of the checkpoint; a file that does not exist is no error.
        config: of the generator.
        options: of the training.

    Raises:
        EditbenchError: the checkpoint is of another training.
        BadFile: it is not a complete checkpoint.
    """
    if not path.exists():
        return
    state = read_checkpoint(path)
    # The length is set to 0 on both sides, so that it is not compared.
    ours = asdict(config) | asdict(options) | {"total_kimg": 0}
    # An old file lacks new options; it was trained without them, or with their defaults.
    theirs = asdict(GANTraining()) | BEFORE | dict(state["config"])
    theirs |= dict(state["options"], total_kimg=0)
    # Older files lack this option, but they have the shares.
    theirs["steer"] = state["options"].get("steer", "steering" in state)
    changed = [
        f"{key} {theirs.get(key)} there, {ours[key]} here"
        for key in ours
        if _plain(theirs.get(key)) != _plain(ours[key])
    ]
    if changed:
        raise EditbenchError(
            f"{path} belongs to another training ({'; '.join(changed)}); "
            "give the same options or another --out"
        )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def train(
    trainer: GANTrainer, folder: Path, on_checkpoint: Callable[[GANTrainer], dict] | None = None
) -> StyleGAN2:
    """Train to the end, or continue from `folder`/checkpoint.pt.

    Args:
        trainer: before its first step.
        folder: of checkpoint.pt and log.jsonl, which gets one JSON line per checkpoint.
        on_checkpoint: returns further entries of that line.

    Returns:
        The averaged generator.
    """
    create_folder(folder)
    checkpoint = folder / "checkpoint.pt"
    options = trainer.options
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"resuming at {trainer.kimg:.0f} kimg from {checkpoint}", flush=True)
        # The training was interrupted between a checkpoint and its log entry, which may take minutes.
        if trainer.row and not _is_logged(folder, trainer.row):
            _log_checkpoint(trainer, folder, on_checkpoint)
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
            speed = (trainer.step - first) * options.batch / (time.time() - started)
            trainer.row = {"kimg": round(trainer.kimg, 2), "img_per_s": round(speed, 1)}
            for key, seen in values.items():
                trainer.row[key] = round(math.fsum(seen) / len(seen), 4)
            trainer.save(checkpoint)
            _log_checkpoint(trainer, folder, on_checkpoint)
            values = {}
    return trainer.ema


def _log_checkpoint(
    trainer: GANTrainer, folder: Path, on_checkpoint: Callable[[GANTrainer], dict] | None
) -> None:
    """Append the line of the last checkpoint to the log, with what `on_checkpoint` adds."""
    row = dict(trainer.row)
    if on_checkpoint is not None:
        row |= on_checkpoint(trainer)
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def _is_logged(folder: Path, row: Mapping[str, float]) -> bool:
    """Whether the last line of the log is that of the last checkpoint, whose entries are `row`."""
    if not (folder / LOG).is_file():
        return False
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    # A line begins with the checkpoint's own entries.
    return bool(lines) and lines[-1].startswith(json.dumps(row)[:-1])
