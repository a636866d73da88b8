"""Latent flows: an edit is the flow of a trained differential equation of unit speed in W.

Khrulkov, Mirvakhabova, Oseledets & Babenko, "Latent Transformations via NeuralODEs for GAN-based
Image Editing", ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editbench.base.attributes import Attribute, Attributes
from editbench.base.devices import to_device, to_host
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Space
from editbench.base.validation import check_choice, check_kind, check_positive
from editbench.methods.neural_ode.field import Field, Solver
from editbench.methods.neural_ode.training import (
    Embedding,
    Flows,
    Training,
    starts_of,
    train,
)
from editbench.methods.shared.device_copies import DeviceCopies
from editbench.methods.shared.state import group
from editbench.networks.external import freeze
from editbench.networks.generator import Generator
from editbench.walk.editor import Editor, FitData, FitReport, Walk

TARGETS = ("each", "binary_reversed", "reference")
MOST_STEPS = 100_000  # of rk4 for one path; more are a slip of a digit


class NeuralODE(Editor):
    """next = codes moved along dw/dt = F(w) / (|F(w)| + 1e-6) over a length of `delta`.

    Everything is in the paper's units: the field sees codes * FFHQ_W_SPREAD / spread, so that
    default initialisation, learning rate, lengths and solver steps act as they do in
    StyleGAN2-FFHQ's W; the result is scaled back. Flows are trained in `tune`, all targets of an
    attribute together.

    Args:
        depth: number of layers w + (A w + b) of F, with LeakyReLU(0.2) between them. 0 is a
            constant vector with straight flow lines: the paper's "linear" (the code's depth -1). 1
            is the paper's "nonlinear", used for its curves and its analysis (eq. 8).
        targets: 'each', a flow for every class, from samples of the other classes;
            'binary_reversed', the same, but a binary attribute has only a flow to class 1, which is
            followed backwards to class 0 (half the training; exact for a constant field);
            'reference', as in the code, one flow from class 0 to class K - 1, followed backwards to
            class 0, and none for the classes in between.
        embedding: for `other: identity`, a callable images -> (n, e); None uses the teacher's
            `features`.
        delta: step length of a walk in the paper's units (0.6, as for the other methods in W).
        scale_step: scale the paper's units to the spread of this space; otherwise they are used as
            units of this space.
        space: 'w'; 'w_plus', trained in W, where each row of W+ in `layers` follows the flow
            independently (for real images the paper moves rows 0 to 6 of 14; not possible with a
            truncation cutoff, since the first rows are then not a w); or 'z', which the paper does
            not use.
        layers: rows [a, b) of W+ that are edited; None for all.

    `horizon` to `times` are the arguments of editbench.methods.neural_ode.training.Training;
    `solver`, `step_size` and `reference_single_step` those of
    editbench.methods.neural_ode.field.Solver.

    Raises:
        EditbenchError: an option is out of its range or unknown.
    """

    citation = (
        "Khrulkov, Mirvakhabova, Oseledets & Babenko: "
        "Latent Transformations via NeuralODEs, ICCV 2021"
    )

    def __init__(
        self,
        depth: int = 1,
        targets: str = "each",
        horizon: float = 6.0,
        iterations: int = 1000,
        batch: int = 32,
        lr: float = 1e-3,
        decay_every: int = 1000,
        temperature: float = 4.0,
        tempering: str = "symmetric",
        other: str = "logits",
        weight: float = 1.0,
        times: str = "batch",
        embedding: Embedding | None = None,
        solver: str = "rk4",
        step_size: float = 0.5,
        reference_single_step: bool = False,
        delta: float = 0.6,
        scale_step: bool = True,
        space: str = "w",
        layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(layers)
        check_choice("targets", targets, TARGETS)
        self.targets = targets
        check_kind("depth", depth, "int")
        if depth < 0:
            raise EditbenchError(
                f"depth={depth} must be 0 (a constant vector) or a number of layers"
            )
        if embedding is not None and not callable(embedding):
            raise EditbenchError(
                f"embedding must be callable (images -> (n, e)) or null, got {embedding!r}"
            )
        if embedding is not None and other != "identity":
            raise EditbenchError("embedding is only used with other: identity")
        self.depth = depth
        self.embedding = embedding
        self.training = Training(
            horizon,
            iterations,
            batch,
            lr,
            decay_every,
            temperature,
            tempering,
            other,
            weight,
            times,
        )
        self.solver = Solver(solver, step_size, reference_single_step)
        many = not reference_single_step and horizon / step_size > MOST_STEPS
        if solver == "rk4" and many:
            raise EditbenchError(
                f"horizon={horizon} and step_size={step_size} make more than {MOST_STEPS} steps of "
                "rk4 for one path: raise step_size"
            )
        check_positive("delta", delta)
        self.delta = float(delta)
        self.scale_step = scale_step
        check_choice("space", str(space), (Space.W, Space.W_PLUS, Space.Z))
        self.space = Space(str(space))
        self.unit = "Z units" if self.space == Space.Z else "W units"
        self.scale = 1.0  # number of the paper's units in one unit of this space
        self.fields: dict[str, Field] = {}
        # Name -> (K, 2): index of the flow towards each class, and its sign; 0 if there is none
        self.routes: dict[str, Tensor] = {}
        self.diverged: dict[str, Tensor] = {}  # (flows,) bool
        self._copies = DeviceCopies()

    # -- fit ------------------------------------------------------------------
    @property
    def training_space(self) -> Space:
        """The space that the flows are trained in: W for walks in W+."""
        return Space.Z if self.space == Space.Z else Space.W

    def fit(self, data: FitData) -> FitReport:
        # The flows see codes with the spread of the paper's, so that its defaults apply.
        self.scale = 1.0 / data.step_size(1.0, self.training_space) if self.scale_step else 1.0
        self.fields = {}
        self.routes = {}
        self.diverged = {}
        return FitReport(notes={"step": self.delta / self.scale})

    def tune(self, data: FitData, attribute: str) -> FitReport:
        """Train the flows of one attribute."""
        item = data.attributes[attribute]
        targets, source, route = self._plan_flows(item)
        # The teacher's labels, which the bank holds for every sample of the fit split.
        labels = data.attributes.labels(data.fit.logits, attribute).cpu().numpy()
        starts = [starts_of(labels, target, source, data.fit.logits.device) for target in targets]
        for target, pool in zip(targets, starts):
            if not len(pool):
                raise Unsupported(
                    f"the fit split holds no sample from which to go to {attribute} "
                    f"{item.classes[target]}"
                )
        field = Field.initial(
            self.depth,
            [f"{attribute}/{target}" for target in targets],
            data.generator.code_dim(self.training_space),
            data.seed,
        )
        flows = Flows(field, attribute, targets, starts, self.training_space, self.scale)
        found = train(flows, data, self.training, self.solver, self._embedding(data))
        # The state must not depend on the device used for training.
        self.fields[attribute] = found.field.to(torch.device("cpu"))
        self.routes[attribute] = route
        self.diverged[attribute] = found.diverged.cpu()
        notes = {}
        for target, loss, share in zip(targets, found.loss, found.reached):
            notes[item.classes[target]] = {
                "loss": round(float(loss[0]), 4),
                "loss_other": round(float(loss[1]), 4),
                "reached": round(float(share), 4),
            }
        return FitReport(labels=len(data.fit), notes={f"flows.{attribute}": notes})

    def _plan_flows(self, item: Attribute) -> tuple[list[int], int | None, Tensor]:
        """The flows of an attribute, by the option `targets`.

        Returns:
            targets: the class that each flow is trained to reach.
            source: the class that the flows start from; None means every class but the target.
            route: (K, 2) by class: index of the flow that leads there, and 1 if it is followed
                forwards, -1 if backwards, 0 if there is none.
        """
        classes = len(item.classes)
        if self.targets == "reference" or (self.targets == "binary_reversed" and item.binary):
            # One flow from class 0 to the last class; followed backwards it leads to class 0.
            route = torch.zeros(classes, 2, dtype=torch.int64)
            route[0, 1] = -1
            route[-1, 1] = 1
            return [classes - 1], 0, route
        # 'each': flow k goes to class k, forwards.
        route = torch.stack([torch.arange(classes), torch.ones(classes, dtype=torch.int64)], 1)
        return list(range(classes)), None, route

    def _embedding(self, data: FitData) -> Embedding | None:
        if self.training.other != "identity":
            return None
        embedding = self.embedding or getattr(data.teacher, "features", None)
        if embedding is None:
            teacher = type(data.teacher.whole).__name__
            raise EditbenchError(
                f"other: identity needs an embedding, and the teacher {teacher} "
                "has no features: set method.embedding"
            )
        return freeze(embedding, data.fit.logits.device)

    # -- walk -----------------------------------------------------------------
    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        if self.space == Space.W_PLUS and not _repeats_w(generator):
            raise Unsupported(
                "method.space=w_plus lets each row of W+ flow as a w does, and this generator's rows "
                "are no such w (generator.truncation_cutoff truncates the first ones): set "
                "method.space=w, with method.layers for some rows, or generator.truncation_cutoff=null"
            )
        if attribute in self.diverged and bool(self.diverged[attribute].any()):
            raise Unsupported(
                f"the flow diverged while it was trained for '{attribute}': lower method.lr"
            )

    def flow(self, codes: Tensor, attribute: str, target: int | Tensor, length: float) -> Tensor:
        """Move codes towards a class of a tuned attribute; each row of W+ moves independently.

        To edit several attributes, apply one flow after the other:

            older = editor.flow(w, "age", 1, 3.0)
            older_and_smiling = editor.flow(older, "smile", 1, 2.0)

        Args:
            codes: (n, ...) in the editor's space.
            attribute: a tuned attribute.
            target: a class, or (n,) classes.
            length: of the path, in the paper's units; a negative length goes backwards.

        Raises:
            Unsupported: there is no flow to the class.
        """
        if attribute not in self.fields or bool(self.diverged[attribute].any()):
            raise Unsupported(f"no flow was trained for '{attribute}'")
        # Flows and lengths are selected on the host, which reads the targets once.
        (targets,) = to_host(torch.as_tensor(target).expand(len(codes)))
        route = self.routes[attribute].cpu()[targets]
        if bool((route[:, 1] == 0).any()):
            raise Unsupported(
                f"targets: reference has flows to the first and last class of '{attribute}' alone: "
                "set target to one of them, or method.targets=each"
            )
        # In float64, so that a sample's result does not depend on the other samples in the batch.
        field = self._field(attribute, codes.device)
        moved = torch.empty_like(codes)
        rows = self.rows(attribute) if self.space == Space.W_PLUS else None
        for k in route[:, 0].unique().tolist():
            members = (route[:, 0] == k).nonzero()[:, 0]
            there = to_device(members, codes.device)
            moved[there] = self._move(codes[there], field[k], length * route[members, 1], rows)
        return moved

    def _field(self, attribute: str, device: torch.device) -> Field:
        """The fields of an attribute in float64 on a device, from a cache."""
        field = self.fields[attribute]
        like = torch.empty(0, dtype=torch.float64, device=device)
        weight = self._copies.get(f"weight {attribute}", field.weight, like)
        return Field(weight, self._copies.get(f"bias {attribute}", field.bias, like))

    def _move(
        self, codes: Tensor, field: Field, length: Tensor, rows: tuple[int, int] | None
    ) -> Tensor:
        """Move the codes of samples that share a field.

        Args:
            codes: (m, ...).
            field: one field.
            length: (m,) in the paper's units, on the host.
            rows: rows of W+ that move; None for all.
        """
        out = codes.clone()
        # A view: writing into it writes into `out`.
        part = out if rows is None else out[:, rows[0] : rows[1]]
        start = part.double() * self.scale
        # One length for each row: (m,) -> (m, ..., 1) -> (1, rows in all, 1).
        far = length.double().reshape(-1, *[1] * (codes.dim() - 1))
        far = far.expand(*start.shape[:-1], 1).reshape(1, -1, 1)
        end = self.solver.integrate(field.velocity, start.reshape(1, -1, codes.shape[-1]), far)
        part.copy_(end.reshape(start.shape) / self.scale)
        return out

    def step(self, walk: Walk) -> Tensor:
        return self.flow(walk.codes, walk.attribute, walk.target, self.delta)

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        out = {"scale": torch.tensor(self.scale, dtype=torch.float64)}
        for name, field in self.fields.items():
            out |= {
                f"weight.{name}": field.weight,
                f"bias.{name}": field.bias,
                f"route.{name}": self.routes[name],
                f"diverged.{name}": self.diverged[name],
            }
        return out

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        biases = group(state, "bias")
        self.scale = float(state["scale"])
        self.fields = {}
        for name, weight in group(state, "weight").items():
            self.fields[name] = Field(weight, biases[name])
        self.routes = group(state, "route")
        self.diverged = group(state, "diverged")


@torch.no_grad()
def _repeats_w(generator: Generator) -> bool:
    """Whether all rows of a sample's W+ equal its w.

    The map from w to W+ is affine, so its values at 0 and 1 are enough to tell.
    """
    like = next(generator.parameters(), torch.empty(0))
    probe = torch.tensor([[0.0], [1.0]], dtype=like.dtype, device=like.device)
    rows = generator.w_plus(probe.expand(-1, generator.w_dim))
    return torch.allclose(rows, probe.unsqueeze(1).expand_as(rows), atol=1e-6)
