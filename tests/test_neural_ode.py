"""Latent flows: losses against their formulas, worlds with a known answer, and the contract of an editor."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.methods.neural_ode.editor import NeuralODE
from editbench.methods.neural_ode.field import Field, Solver
from editbench.methods.neural_ode.training import (
    Flows,
    Training,
    class_logits,
    identity_loss,
    main_loss,
    other_loss,
    starts_of,
    train,
)
from tests.toy import (
    BINARY,
    MIXED,
    CurvedScorer,
    LinearScorer,
    check_editor,
    check_refused,
    fit_data,
    make_walk,
)

# Two layers: a budget as small as this does not train the default of one.
SMALL = {"depth": 2, "iterations": 30, "batch": 16, "lr": 2e-2, "step_size": 2.0}


def tuned(data, attribute, **options):
    editor = NeuralODE(**(SMALL | options))
    editor.bind(data.generator)
    editor.fit(data)
    editor.tune(data, attribute)
    return editor


def random_logits(seed: int, n: int = 9) -> torch.Tensor:
    return 3 * torch.randn(
        n, MIXED.width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


# -- losses ----------------------------------------------------------------------------------------
def test_a_binary_attribute_has_the_softmax_of_its_sigmoid():
    logits = random_logits(0)
    torch.testing.assert_close(
        class_logits(MIXED, logits, "a").softmax(1)[:, 1], logits[:, 0].sigmoid()
    )
    for target in (0, 1):
        expected = F.binary_cross_entropy_with_logits(
            logits[:, 0] / 4, torch.full((9,), float(target)).double()
        )
        torch.testing.assert_close(main_loss(MIXED, logits, "a", target, 4.0), expected)


def test_losses_equal_their_formulas_sample_by_sample():
    before, after, tau = random_logits(1), random_logits(2), 4.0
    for symmetric in (True, False):
        total = 0.0
        for b, a in zip(before, after):
            p = torch.stack([1 - b[0].sigmoid(), b[0].sigmoid()])
            q = torch.stack([1 - (a[0] / tau).sigmoid(), (a[0] / tau).sigmoid()])
            if symmetric:
                p = torch.stack([1 - (b[0] / tau).sigmoid(), (b[0] / tau).sigmoid()])
            total += (p * (p / q).log()).sum()
            p, q = (b[4:8] / tau if symmetric else b[4:8]).softmax(0), (a[4:8] / tau).softmax(0)
            total += (p * (p / q).log()).sum()
        torch.testing.assert_close(
            other_loss(MIXED, before, after, "kind", tau, symmetric), total / 9 / 2
        )
    target = -(after[:, 1:4] / tau).log_softmax(1)[:, 2].mean()
    torch.testing.assert_close(main_loss(MIXED, after, "kind", 2, tau), target)
    assert other_loss(MIXED, before, before, "kind", tau, True).abs() < 1e-12
    assert other_loss(MIXED, before, before, "kind", tau, False) > 0.05, (
        "the code's form charges no edit"
    )
    alone = MIXED.select(["a"])
    assert other_loss(alone, before[:, :1], after[:, :1], "a", tau, True) == 0
    unit = [x / x.norm(dim=1, keepdim=True) for x in (before, after)]
    torch.testing.assert_close(identity_loss(before, after), 1 - (unit[0] * unit[1]).sum(1).mean())


def test_first_iteration_equals_autograd_through_everything_with_decoded_originals():
    """One step of Adam from the whole loss at once, with the originals' logits decoded anew."""
    data, options, solver = (
        fit_data(MIXED, n=300),
        Training(iterations=1, batch=8, weight=0.7),
        Solver(),
    )
    start = Field.initial(2, ["kind/0", "kind/2"], 24, 0)
    labels = MIXED.labels(data.fit.logits, "kind").numpy()
    pools = [starts_of(labels, target, None, torch.device("cpu")) for target in (0, 2)]
    seen, lengths = [], []

    class Spy(Solver):
        def integrate(self, velocity, w, length):
            seen.append(w)
            lengths.append(length)
            return super().integrate(velocity, w, length)

    flows = Flows(start, "kind", [0, 2], pools, Space.W, 1.5)
    found = train(flows, data, options, Spy())
    weight, bias = (part.clone().requires_grad_() for part in (start.weight, start.bias))
    moved = solver.integrate(Field(weight, bias).velocity, seen[0], lengths[0]) / 1.5
    loss = 0.0
    for k, target in enumerate((0, 2)):
        with torch.no_grad():
            before = data.teacher(data.generator.decode(Codes(Space.W, seen[0][k] / 1.5)))
        assert (MIXED.labels(before, "kind") != target).all()
        after = data.teacher(data.generator.decode(Codes(Space.W, moved[k])))
        loss = (
            loss
            + main_loss(MIXED, after, "kind", target, 4.0)
            + 0.7 * other_loss(MIXED, before, after, "kind", 4.0, True)
        )
    adam = torch.optim.Adam([weight, bias], lr=1e-3)
    loss.backward()
    big = weight.grad.abs() > 1e-5  # Adam's first step is the sign of the gradient
    adam.step()
    torch.testing.assert_close(found.field.weight[big], weight[big], atol=1e-6, rtol=0)
    assert big.double().mean() > 0.5 and not torch.equal(found.field.weight, start.weight)
    assert 1.5 <= lengths[0].item() <= 6.0


def test_only_edited_images_are_decoded():
    data = fit_data(n=300)
    editor = NeuralODE(iterations=5, batch=8)
    editor.fit(data)
    before = data.generator.decoded
    report = editor.tune(data, "a")
    forward_and_back = 2
    assert data.generator.decoded - before == 5 * 8 * 2 * forward_and_back and report.labels == 300
    one = NeuralODE(iterations=5, batch=8, targets="binary_reversed")
    one.fit(data)
    one.tune(data, "a")
    assert data.generator.decoded - before == 5 * 8 * 3 * forward_and_back


# -- worlds with a known answer --------------------------------------------------------------------
def directions(editor, attribute):
    bias = editor.fields[attribute].bias[0]
    return bias / bias.norm(dim=1, keepdim=True)


def test_constant_flow_of_a_linear_world_finds_the_normal_and_with_weight_leaves_the_others():
    data = fit_data(n=1000, overlap=1.0)
    normals = data.teacher.normals
    budget = {
        "depth": 0,
        "iterations": 250,
        "lr": 5e-2,
        "decay_every": 100,
        "step_size": 9.0,
    }
    free = directions(tuned(data, "a", weight=0.0, **budget), "a")
    assert free[1] @ normals[0] > 0.95 and free[0] @ normals[0] < -0.95
    bound = directions(tuned(data, "a", weight=30.0, **budget), "a")
    rest = normals[0] - normals[1:].T @ torch.linalg.solve(
        normals[1:] @ normals[1:].T, normals[1:] @ normals[0]
    )
    rest = rest / rest.norm()
    assert bound[1] @ rest > 0.9 > free[1] @ rest
    assert (normals[1:] @ bound[1]).abs().max() < 0.35 * (normals[1:] @ free[1]).abs().min()


def test_the_record_has_the_step_in_units_of_the_generators_codes():
    data = fit_data(n=100)
    scaled = 0.5 * data.spread(Space.W) / 9.06  # of StyleGAN2-FFHQ's W
    assert NeuralODE(delta=0.5).fit(data).notes["step"] == pytest.approx(scaled)
    assert NeuralODE(delta=0.5, scale_step=False).fit(data).notes["step"] == 0.5


def crossings(editor, data, attribute="a", steps=8):
    walk = make_walk(data, editor, attribute, n=300)
    done = torch.zeros(len(walk), dtype=torch.bool)
    for _ in range(steps):
        walk.codes = editor.step(walk)
        done |= data.attributes.labels(data.score(editor.codes(walk)), attribute) == walk.target
    return done.double().mean().item()


def test_a_curved_world_needs_a_field_that_depends_on_the_code():
    data = fit_data(dim=8, n=1000, scorer=CurvedScorer())
    budget = {"iterations": 150, "batch": 32, "scale_step": False}
    straight = crossings(tuned(data, "a", depth=0, **budget), data)
    curved = crossings(tuned(data, "a", depth=2, **budget), data)
    assert curved > 0.9 and curved > straight + 0.15


def test_every_class_is_reached_from_the_others():
    data = fit_data(MIXED, n=1000)
    for attribute in ("kind", "angle"):
        editor = tuned(data, attribute, iterations=60)
        walk = make_walk(data, editor, attribute, n=100)
        assert (
            len(walk.target.unique())
            == len(MIXED[attribute].classes)
            == len(editor.routes[attribute])
        )
        assert crossings(editor, data, attribute, steps=14) > 0.8


def test_identity_variant_keeps_the_embedding():
    data = fit_data(n=500)
    probe = torch.eye(24)[:, :6]

    def angle(**options):
        editor = tuned(
            data,
            "a",
            depth=0,
            iterations=120,
            lr=5e-2,
            step_size=9.0,
            other="identity",
            embedding=lambda x: x @ probe,
            **options,
        )
        walk = make_walk(data, editor, "a")
        return identity_loss(
            walk.codes @ probe, editor.flow(walk.codes, "a", walk.target, 4.0) @ probe
        ).item()

    assert angle(weight=50.0) < 0.5 * angle(weight=0.0)
    plain = tuned(data, "a", other="identity")
    assert plain.embedding is None and crossings(plain, data, steps=12) > 0.5
    bare = copy.copy(data)
    bare.teacher = copy.deepcopy(data.teacher)
    bare.teacher.features = None
    with pytest.raises(EditbenchError, match=r"set method\.embedding"):
        tuned(bare, "a", other="identity")


# -- walk ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, attribute",
    [
        ({}, "a"),
        ({"depth": 1, "times": "sample"}, "kind"),
        ({"depth": 0, "targets": "binary_reversed"}, "a"),
        ({"space": "w_plus", "layers": (1, 3)}, "angle"),
        ({"space": "z"}, "a"),
        ({"layers": (0, 2)}, "kind"),
        ({"reference_single_step": True, "tempering": "reference"}, "a"),
        ({"other": "identity", "depth": 3}, "kind"),
    ],
)
def test_contract(options, attribute):
    data = fit_data(MIXED, n=300)
    budget = {"iterations": 4, "batch": 4} | options
    editor, fresh = tuned(data, attribute, **budget), NeuralODE(**(SMALL | budget))
    check_editor(editor, data, attribute, fresh)
    fresh.check(data.generator, MIXED, attribute)
    assert all(part.is_contiguous() for part in editor.state().values())


def test_same_seed_same_flow_and_a_flow_of_its_own_for_each_seed_and_class():
    data = fit_data(MIXED, n=300)
    one, again = (tuned(data, "kind", iterations=5, batch=4) for _ in range(2))
    for name, part in one.state().items():
        assert torch.equal(part, again.state()[name])
    data.seed = 1
    other = tuned(data, "kind", iterations=5, batch=4)
    assert not torch.equal(one.fields["kind"].weight, other.fields["kind"].weight)
    assert not torch.equal(one.fields["kind"].weight[:, 0], one.fields["kind"].weight[:, 1])


def test_lengths_are_carried_over_from_the_paper_s_units():
    data = fit_data(n=300)
    editor = tuned(data, "a", depth=0, iterations=2)
    walk = make_walk(data, editor, "a")
    moved = (editor.step(walk) - walk.codes).norm(dim=1)
    torch.testing.assert_close(
        moved, torch.full_like(moved, data.step_size(0.6, Space.W)), atol=1e-5, rtol=0
    )
    plain = tuned(data, "a", depth=0, iterations=2, scale_step=False)
    torch.testing.assert_close(
        (plain.step(walk) - walk.codes).norm(dim=1), torch.full_like(moved, 0.6), atol=1e-5, rtol=0
    )


def test_rows_of_w_plus_flow_by_themselves_and_the_others_stay():
    data = fit_data(n=300)
    editor, flat = tuned(data, "a", space="w_plus", layers=(1, 3)), tuned(data, "a")
    walk = make_walk(data, editor, "a")
    codes = walk.codes + 0.3 * torch.randn(
        walk.codes.shape, generator=torch.Generator().manual_seed(0)
    )
    moved = editor.flow(codes, "a", walk.target, 2.0)
    assert torch.equal(moved[:, [0, 3]], codes[:, [0, 3]])
    for row in (1, 2):
        torch.testing.assert_close(moved[:, row], flat.flow(codes[:, row], "a", walk.target, 2.0))
        assert (moved[:, row] - codes[:, row]).norm(dim=1).min() > 0.1


def test_edits_compose_and_turn_back():
    data = fit_data(n=500)
    editor = tuned(data, "a", depth=0, iterations=80, lr=5e-2, step_size=9.0)
    editor.tune(data, "b")
    w = make_walk(data, editor, "a").codes
    both = editor.flow(editor.flow(w, "a", 1, 3.0), "b", 0, 2.0)
    change = data.teacher(both) - data.teacher(w)
    assert (change[:, 0] > 0.5).all() and (change[:, 1] < -0.5).all()
    shift = sum(t * directions(editor, name)[k] for name, k, t in (("a", 1, 3.0), ("b", 0, 2.0)))
    torch.testing.assert_close(both - w, (shift / editor.scale).expand_as(w), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        editor.flow(editor.flow(w, "a", 1, 3.0), "a", 1, -3.0), w, atol=1e-5, rtol=0
    )
    with pytest.raises(Unsupported, match="no flow was trained for 'c'"):
        editor.flow(w, "c", 1, 1.0)


def test_one_flow_serves_both_ends_of_a_binary_attribute():
    data = fit_data(MIXED, n=500)
    editor = tuned(data, "a", targets="binary_reversed")
    w = data.fit.w[:20]
    assert len(editor.diverged["a"]) == 1
    torch.testing.assert_close(editor.flow(w, "a", 0, 2.0), editor.flow(w, "a", 1, -2.0))
    assert crossings(editor, data, steps=14) > 0.8
    editor.tune(data, "kind")
    assert len(editor.diverged["kind"]) == 3


def test_reference_targets_serve_the_first_and_the_last_class():
    data = fit_data(MIXED, n=500)
    editor = tuned(data, "kind", targets="reference", iterations=60)
    first = data.fit.w[MIXED.labels(data.fit.logits, "kind") == 0]
    arrived = MIXED.labels(data.teacher(editor.flow(first, "kind", 2, 8.0)), "kind") == 2
    assert arrived.double().mean() > 0.8
    torch.testing.assert_close(
        editor.flow(first, "kind", 0, 1.0), editor.flow(first, "kind", 2, -1.0)
    )
    with pytest.raises(Unsupported, match="first and last class"):
        editor.flow(first, "kind", 1, 1.0)


# -- what cannot be served -------------------------------------------------------------------------
class Sick(LinearScorer):
    """Every log-odds is NaN where class 1 of the second attribute would begin."""

    def forward(self, decoded):
        logits = super().forward(decoded)
        return logits.masked_fill((logits[:, 1] > 1.0).unsqueeze(1), torch.nan)


def test_a_flow_that_diverges_is_a_reason_and_leaves_the_others_alone():
    data = fit_data(n=300)
    healthy = tuned(data, "a", iterations=12)
    editor, fresh = tuned(data, "a", lr=1e30), NeuralODE()
    fresh.load_state(editor.state())
    for one in (editor, fresh):
        with pytest.raises(Unsupported, match="diverged"):
            one.check(data.generator, BINARY, "a")
        with pytest.raises(Unsupported, match="no flow was trained for 'a'"):
            one.step(make_walk(data, one, "a"))
        one.check(data.generator, BINARY, "b")
    sick = fit_data(n=300)
    keep = sick.fit.logits[:, 1] < 0.5
    sick.fit.w, sick.fit.logits = sick.fit.w[keep], sick.fit.logits[keep]
    sick.teacher = Sick(BINARY, sick.teacher.normals)
    found = tuned(sick, "b", depth=0, iterations=60)
    assert found.diverged["b"].tolist() == [False, True]
    assert torch.isfinite(found.fields["b"].bias[:, 0]).all()
    healthy.check(data.generator, BINARY, "a")


def test_no_start_is_a_reason():
    data = fit_data(bias=torch.tensor([0.0, 100.0, 0.0]), n=200)
    editor = NeuralODE()
    editor.fit(data)
    with pytest.raises(Unsupported, match="no sample from which to go to b yes"):
        editor.tune(data, "b")


def test_bad_options():
    options = [
        {"depth": -1},
        {"depth": 1.5},
        {"targets": "both"},
        {"other": "x"},
        {"tempering": "x"},
        {"times": "x"},
        {"iterations": 0},
        {"weight": -1.0},
        {"solver": "euler"},
        {"space": "s"},
        {"embedding": 3, "other": "identity"},
        {"embedding": len},
        {"delta": 0.0},
        {"delta": -0.6},
        {"delta": float("nan")},
    ]
    check_refused(NeuralODE, options)


@pytest.mark.parametrize(
    "options", [{"horizon": 1e30}, {"step_size": 1e-30}, {"horizon": 1e300, "step_size": 1e-300}]
)
def test_a_path_of_too_many_solver_steps_is_refused_before_the_fit(options):
    with pytest.raises(EditbenchError, match=r"more than 100000 steps of rk4.*raise step_size"):
        NeuralODE(**options)
    # In one step, and by the adaptive solver, the step size does not matter.
    NeuralODE(reference_single_step=True, **options)
    NeuralODE(solver="dopri5", **options)
