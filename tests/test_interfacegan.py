"""InterFaceGAN: published boundaries, closed forms of a linear world, and the two solvers against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from editbench.base.errors import EditbenchError, Unsupported
from editbench.methods.interfacegan.boundaries import (
    FEW,
    extreme_sides,
    fit_boundary,
    per_side,
    soft_margin,
)
from editbench.methods.interfacegan.editor import InterFaceGAN
from editbench.methods.shared.examples import example_order
from editbench.methods.shared.projection import project, unit
from editbench.run.fits import learned_auc
from tests.toy import (
    BINARY,
    DATA,
    MIXED,
    check_editor,
    check_refused,
    fit_data,
    fitted_and_restored,
    make_walk,
    needs_data,
)


def boundary(name: str) -> np.ndarray:
    return np.load(
        DATA / "interfacegan" / f"stylegan_ffhq_{name}_boundary.npy", allow_pickle=False
    )[0]


@needs_data
@pytest.mark.parametrize(
    "target, condition",
    [("eyeglasses", "gender"), ("age", "gender"), ("eyeglasses", "age"), ("age", "eyeglasses")],
)
def test_published_conditional_boundaries(target, condition):
    found = project(boundary(target), boundary(condition)[None])
    np.testing.assert_allclose(found.direction, boundary(f"{target}_c_{condition}"), atol=1e-12)
    assert found.residual < 1e-15 and found.rank == 1


@needs_data
def test_joint_projection_is_not_a_sequence_of_single_ones():
    target, others = boundary("eyeglasses"), np.stack([boundary("age"), boundary("gender")])
    joint = project(target, others)
    sequential = target
    for other in others:
        sequential = unit(sequential - (sequential @ other) * other)
    assert joint.residual < 1e-15 and np.abs(others @ sequential).max() > 1e-2
    np.testing.assert_allclose(project(target, others[::-1]).direction, joint.direction, atol=1e-14)
    gram = target - others.T @ np.linalg.solve(others @ others.T, others @ target)
    np.testing.assert_allclose(joint.direction, unit(gram), atol=1e-12)
    assert joint.remaining == pytest.approx(np.linalg.norm(gram), abs=1e-12)


def test_projection_finds_the_rank_and_what_is_left():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 20))
    dependent = np.concatenate([rows, rows[:1] * 5, rows[1:2] - rows[2:3], np.zeros((1, 20))])
    found = project(rng.normal(size=20), dependent)
    assert found.rank == 3 and found.residual < 1e-14
    assert project(rows[0] + rows[2], dependent).remaining < 1e-12
    alone = rng.normal(size=20)
    np.testing.assert_allclose(project(alone, np.zeros((0, 20))).direction, unit(alone), atol=1e-15)
    # Of a normal of any length, the remaining share; of a rounding error of any sign, the size.
    for _ in range(30):
        normal = rng.normal(size=20)
        found = project(normal, rows[:1])
        cosine = normal @ rows[0] / np.linalg.norm(normal) / np.linalg.norm(rows[0])
        assert found.remaining == pytest.approx(np.sqrt(1 - cosine**2))
        assert 0 <= found.residual < 1e-14


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_newton_finds_the_normal_of_svc(offset):
    rng = np.random.default_rng(3)
    codes = rng.normal(size=(2000, 32)) + offset
    scores = codes @ unit(rng.normal(size=32)) + 0.3 * rng.normal(
        size=2000
    )  # the labels are not quite linear
    sides = extreme_sides(scores, 500)
    normals = [
        fit_boundary(codes, sides, 0.3, solver, False, 0, "x") for solver in ("svc", "newton")
    ]
    assert normals[0].normal @ normals[1].normal >= 0.9999
    assert abs(normals[0].accuracy - normals[1].accuracy) < 0.02


def test_with_few_samples_a_channel_newton_is_svc():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 8))
    y = x[:, 0] + 0.5 * rng.normal(size=40) > 0
    few = FEW * 8
    svc = soft_margin(x[:few], y[:few], "svc")
    newton = soft_margin(x[:few], y[:few], "newton")
    np.testing.assert_array_equal(newton[0], svc[0])
    # With one more it is the other machine, of the same optimum to its accuracy.
    more = few + 1
    own = soft_margin(x[:more], y[:more], "newton")[0]
    other = soft_margin(x[:more], y[:more], "svc")[0]
    assert not np.array_equal(own, other)
    assert unit(own) @ unit(other) > 0.9999


def test_per_side_is_a_share_within_bounds():
    assert [per_side(n, 0.02, 100) for n in (500_000, 1000, 150, 3)] == [10_000, 100, 75, 1]
    with pytest.raises(ValueError, match="too few"):
        fit_boundary(np.zeros((3, 2)), np.zeros((2, 1), int), 0.0, "svc", False, 0, "x")


def test_standardised_normal_is_mapped_back():
    rng = np.random.default_rng(4)
    codes = rng.normal(size=(4000, 6)) * np.array([100.0, 1, 1, 1, 1, 0.01])
    true = np.array([0.01, 1.0, 0, 0, 0, 0])
    found = fit_boundary(codes, extreme_sides(codes @ true, 800), 0.0, "svc", True, 0, "x")
    assert np.isnan(found.accuracy), "nothing was held out"
    scaled = unit(found.normal * codes.std(0))
    assert scaled @ unit(true * codes.std(0)) > 0.99


@pytest.mark.parametrize(
    "options, attribute",
    [
        ({}, "a"),
        ({}, "kind"),
        ({"conditions": "all", "layers": (1, 3)}, "kind"),
        ({"multiclass": "pairwise"}, "angle"),
        ({"space": "z", "solver": "newton"}, "a"),
    ],
)
def test_contract(options, attribute):
    data = fit_data(MIXED)
    editor, fresh = (InterFaceGAN(min_per_side=150, **options) for _ in range(2))
    report = editor.fit(data)
    assert report.labels == len(data.fit) and "validation_accuracy.a" not in report.notes
    assert learned_auc(editor, data, MIXED.names)["a"] > 0.9
    check_editor(editor, data, attribute, fresh)
    fresh.check(data.generator, MIXED, attribute)


def test_normals_of_a_linear_world_and_steps_to_the_boundary():
    data = fit_data(n=6000, overlap=0.5)
    editor = InterFaceGAN(ratio=0.2, solver="newton", scale_step=False, delta=0.25)
    editor.fit(data)
    for k, name in enumerate(BINARY.names):
        assert editor.directions[name][0, 1] @ data.teacher.normals[k].double() > 0.98
        assert torch.equal(editor.directions[name][0, 1], -editor.directions[name][1, 0])
    walk = make_walk(data, editor, "a")
    sign = 2 * walk.target - 1
    logit = data.teacher(walk.codes)[:, 0]
    slope = editor.directions["a"][0, 1].float() @ data.teacher.normals[0]
    expected = (-sign * logit / (0.25 * slope)).ceil()
    reached = torch.full((len(walk),), -1.0)
    for step in range(1, 60):
        walk.codes = editor.step(walk)
        now = (data.attributes.labels(data.teacher(walk.codes), "a") == walk.target) & (reached < 0)
        reached = torch.where(now, float(step), reached)
    assert ((reached - expected).abs() <= 1).all() and (reached == expected).double().mean() > 0.9


@pytest.mark.parametrize("conditions", ["none", "all"])
def test_to_distance_every_start_visits_the_same_distances_from_the_boundary(conditions):
    data = fit_data(overlap=0.5, bias=torch.tensor([0.7, 0.0, 0.0]))
    editor = InterFaceGAN(offsets="distance", conditions=conditions, scale_step=False, delta=0.5)
    editor.fit(data)
    plain = InterFaceGAN(scale_step=False)
    plain.fit(data)
    check_editor(editor, data, "a", InterFaceGAN(offsets="distance", conditions=conditions))
    walk = make_walk(data, editor, "a")
    hyperplane = fit_boundary(
        data.fit.w.double().numpy(),
        extreme_sides(data.fit.logits[:, 0].double().numpy(), 100),
        0.0,
        "svc",
        False,
        data.seed,
        "a:1",
    )
    sign = 2 * walk.target.numpy() - 1
    normal = editor.directions["a"][0, 1].numpy()
    slope = normal @ hyperplane.normal
    before = walk.codes
    for _ in range(4):
        walk.codes = editor.step(walk)
        reached = (
            sign * (walk.codes.double().numpy() @ hyperplane.normal + hyperplane.intercept) / slope
        )
        np.testing.assert_allclose(reached / 0.5, (reached / 0.5).round(), atol=1e-4)
        moved = (walk.codes - before).norm(dim=1)
        assert (moved <= 0.5 + 1e-4).all() and (moved > 0).all()
        before = walk.codes
    assert moved.min() > 0.5 - 1e-3  # from the second step on it is a whole one


def test_conditions_are_left_alone():
    data = fit_data(MIXED, overlap=1.0)
    plain, editor = InterFaceGAN(), InterFaceGAN(conditions="all")
    plain.fit(data)
    report = editor.fit(data)
    conditions = torch.cat([plain.directions["a"][0, 1:], *plain.directions["angle"][:1]])
    for c in range(1, 3):
        direction = editor.directions["kind"][0, c]
        assert direction.norm().item() == pytest.approx(1.0)
        cosine = conditions[conditions.norm(dim=1) > 0] @ direction
        assert cosine.abs().max() < 1e-12
    found = report.notes["projection.kind"]
    assert found["residual"] < 1e-12 and 0.05 < found["remaining"] < 1 and found["rank"] == 5
    named = InterFaceGAN(conditions=["a"])
    assert named.fit(data).notes["projection.kind"]["rank"] == 1
    assert "projection.a" not in named.fit(data).notes


def test_boundary_in_the_span_of_its_conditions_is_unsupported():
    data = fit_data(MIXED, dim=9, overlap=0.0)
    data.fit.w[:, 2:] = (
        data.fit.w[:, 2:] * 0
    )  # two channels are left: the others' normals span them
    editor, fresh = fitted_and_restored(lambda: InterFaceGAN(conditions="all"), data)
    for one in (editor, fresh):
        with pytest.raises(Unsupported, match="span of its conditions"):
            one.check(data.generator, MIXED, "a")
    with pytest.raises(Unsupported, match="no direction for 'a'"):
        editor.step(make_walk(data, editor, "a"))


def test_pairs_depend_on_source_and_target_and_are_antisymmetric():
    data = fit_data(MIXED, n=4000)
    editor = InterFaceGAN(multiclass="pairwise", ratio=0.2, solver="newton")
    report = editor.fit(data)
    pairs, normals = editor.directions["kind"], data.teacher.normals[1:4].double()
    assert torch.equal(pairs, -pairs.transpose(0, 1))
    assert len(report.notes["examples_pairs.angle"]) == 6
    for i, j in ((0, 1), (0, 2), (2, 1)):
        assert (
            torch.nn.functional.cosine_similarity(pairs[i, j], normals[j] - normals[i], dim=0)
            > 0.95
        )


def test_a_class_without_examples_is_a_reason():
    data = fit_data(bias=torch.tensor([0.0, -100.0, 0.0]))
    editor = InterFaceGAN(conditions="all")
    editor.fit(data)
    editor.check(data.generator, BINARY, "a")
    with pytest.raises(Unsupported, match=r"fewer than 10 examples of b: yes \(0\)"):
        editor.check(data.generator, BINARY, "b")
    with pytest.raises(EditbenchError, match="leave it out"):
        InterFaceGAN(conditions=["b"]).fit(data)


@pytest.mark.parametrize("multiclass", ["ovr", "pairwise"])
def test_a_class_of_nine_is_a_reason_also_after_loading_and_one_of_ten_is_served(multiclass):
    """Positions [9 of class z] + the others: the teacher's labels are planted, not drawn."""
    for held in (9, 10):
        data = fit_data(MIXED)
        z = MIXED.labels(data.fit.logits, "kind") == 2
        keep = ~z | (z.cumsum(0) <= held)
        data.fit.w, data.fit.logits = data.fit.w[keep], data.fit.logits[keep]
        editor, fresh = fitted_and_restored(lambda: InterFaceGAN(multiclass=multiclass), data)
        for one in (editor, fresh):
            one.check(data.generator, MIXED, "a")
            if held == 10:
                one.check(data.generator, MIXED, "kind")
            else:
                with pytest.raises(Unsupported, match=r"fewer than 10 examples of kind: z \(9\)"):
                    one.check(data.generator, MIXED, "kind")


def test_where_every_attribute_lacks_examples_each_says_so_after_loading_too():
    data = fit_data(bias=torch.tensor([100.0, -100.0, 100.0]))
    editor, fresh = fitted_and_restored(InterFaceGAN, data)
    for one in (editor, fresh):
        for name, label in (("a", "no"), ("b", "yes"), ("c", "no")):
            with pytest.raises(
                Unsupported, match=rf"fewer than 10 examples of {name}: {label} \(0\)"
            ):
                one.check(data.generator, BINARY, name)
    InterFaceGAN().check(data.generator, BINARY, "a")  # before the fit nothing is known


def test_the_shares_of_the_sides_that_are_in_their_class_are_noted():
    data = fit_data(bias=torch.tensor([0.0, -4.2, 0.0]))
    rare = int((data.fit.logits[:, 1] > 0).sum())
    assert 10 <= rare < 60, "the world should have a rare class"
    notes = InterFaceGAN().fit(data).notes
    assert notes["examples.b"] == [100, 100]
    assert notes["in_class.a"] == [[1.0, 1.0]] and notes["in_class.b"] == [[1.0, rare / 100]]
    common = fit_data(bias=torch.tensor([0.0, 4.2, 0.0]))
    rare = int((common.fit.logits[:, 1] <= 0).sum())
    assert InterFaceGAN().fit(common).notes["in_class.b"] == [[rare / 100, 1.0]]


def test_the_shares_of_many_classes_by_counting():
    data = fit_data(MIXED, n=600)
    logits, labels = data.fit.logits[:, 1:4].double(), MIXED.labels(data.fit.logits, "kind")
    options = {"ratio": 0.5, "min_per_side": 2}
    odds = MIXED.log_odds(data.fit.logits)[:, 1:4]
    expected = []
    for c in range(3):
        order = odds[:, c].sort(stable=True).indices.tolist()
        low, high = order[:300], order[300:]
        expected.append(
            [sum(labels[i] != c for i in low) / 300, sum(labels[i] == c for i in high) / 300]
        )
    found = InterFaceGAN(**options).fit(data).notes["in_class.kind"]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert 0.5 < found[0][1] < 0.9, "half of the samples are more than the class has"
    pairs = InterFaceGAN(multiclass="pairwise", **options).fit(data).notes["in_class_pairs.kind"]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = [n for n in range(600) if labels[n] in (i, j)]
        both.sort(key=lambda n: (logits[n, j] - logits[n, i]).item())
        half = len(both) // 2
        expected = [
            sum(labels[n] == i for n in both[:half]) / half,
            sum(labels[n] == j for n in both[-half:]) / half,
        ]
        np.testing.assert_allclose(pairs[f"{i}-{j}"], expected, atol=1e-4)


def test_held_out_samples_give_an_accuracy_and_do_not_train():
    data = fit_data(MIXED)
    notes = InterFaceGAN(hold_out=0.3).fit(data).notes
    assert min(notes["validation_accuracy.a"]) > 0.9 and notes["examples.a"] == [100, 100]
    codes = data.fit.w.double().numpy()
    sides = extreme_sides(data.fit.logits[:, 0].double().numpy(), 20)
    # A sample that trains and is moved far away moves the boundary; one held out does not.
    before = fit_boundary(codes, sides, 0.3, "newton", False, 0, "x")
    moves = 0
    for position in sides[0]:
        moved = codes.copy()
        moved[position] += 1000.0
        after = fit_boundary(moved, sides, 0.3, "newton", False, 0, "x")
        moves += not np.array_equal(after.normal, before.normal)
    assert moves == 14


@pytest.mark.parametrize("multiclass", ["ovr", "pairwise"])
def test_random_sides_are_of_their_classes_and_as_many_as_the_extremes(multiclass):
    data = fit_data(MIXED)
    plain, editor = (
        InterFaceGAN(selection=selection, multiclass=multiclass, solver="newton")
        for selection in ("extremes", "random")
    )
    expected, report = plain.fit(data), editor.fit(data)
    assert report.notes["examples.a"] == expected.notes["examples.a"] == [100, 100]
    assert report.notes["in_class.a"] == [[1.0, 1.0]]
    if multiclass == "pairwise":
        assert report.notes["examples_pairs.kind"] == expected.notes["examples_pairs.kind"]
        assert set(map(tuple, report.notes["in_class_pairs.kind"].values())) == {(1.0, 1.0)}
        # Labels are read until the side of every pair is full.
        order = example_order(data)
        sizes = [("a", 0, 100), ("a", 1, 100)]
        for name in ("kind", "angle"):
            for pair, examples in report.notes[f"examples_pairs.{name}"].items():
                sizes += [(name, int(c), size) for c, size in zip(pair.split("-"), examples)]
        reach = 0
        for name, c, size in sizes:
            labels = MIXED.labels(data.fit.logits, name).numpy()[order]
            reach = max(reach, int(np.flatnonzero(labels == c)[size - 1]) + 1)
        assert report.labels == reach
    # The labels are read until every side is full: by counting, for the binary attribute.
    one = fit_data()
    order, labels = example_order(one), one.attributes.labels(one.fit.logits, "a").numpy()
    sides = {0: [], 1: []}
    for place in order:
        if len(sides[labels[place]]) < 100:
            sides[labels[place]].append(place)
    found = InterFaceGAN(selection="random", solver="newton")
    found.fit(one)
    codes = one.fit.w.double().numpy()
    slow = fit_boundary(
        codes, np.array([sides[0], sides[1]]), 0.0, "newton", False, one.seed, "a:1"
    )
    np.testing.assert_allclose(found.directions["a"][0, 1].numpy(), slow.normal, atol=1e-12)
    reach = 0
    for name in one.attributes.names:
        labels = one.attributes.labels(one.fit.logits, name).numpy()[order]
        for c in (0, 1):
            reach = max(reach, int(np.flatnonzero(labels == c)[99]) + 1)
    assert found.fit(one).labels == reach < len(one.fit)


def test_too_few_for_a_random_side_are_a_reason_with_the_remedy():
    data = fit_data(bias=torch.tensor([0.0, -4.2, 0.0]))
    rare = int((data.fit.logits[:, 1] > 0).sum())
    editor, fresh = fitted_and_restored(
        lambda: InterFaceGAN(selection="random", solver="newton"), data
    )
    for one in (editor, fresh):
        one.check(data.generator, BINARY, "a")
        message = (
            rf"fewer than 100 examples of b: yes \({rare}\); raise bank.n or lower method.ratio"
        )
        with pytest.raises(Unsupported, match=message):
            one.check(data.generator, BINARY, "b")


def test_one_sample_a_side_is_a_reason():
    data = fit_data(bias=torch.tensor([0.0, -1.5, 0.0]))
    data.fit = data.fit.first(3)
    editor = InterFaceGAN(selection="random")
    editor.fit(data)
    with pytest.raises(Unsupported, match="fewer than 2 examples"):
        editor.check(data.generator, BINARY, "b")


def test_the_scores_of_the_classes_are_coordinates_along_the_walked_directions():
    data = fit_data(MIXED, overlap=1.0)
    editor = InterFaceGAN(conditions="all", solver="newton")
    editor.fit(data)
    for name in ("a", "kind"):
        scores = editor.class_scores(data, name)
        for c in range(scores.shape[1]):
            source = (c + 1) % scores.shape[1]
            along = data.tune.w.double() @ editor.directions[name][source, c]
            assert torch.equal(scores[:, c].argsort(), along.argsort())
    assert editor.class_scores(data, "nobody") is None


def test_bad_options():
    options = [
        {"solver": "x"},
        {"conditions": "some"},
        {"ratio": 0.7},
        {"multiclass": "x"},
        {"min_per_side": 1},
    ]
    check_refused(InterFaceGAN, options)
    data = fit_data()
    with pytest.raises(EditbenchError, match=r"unknown attribute in method.conditions 'bb'\. Did"):
        InterFaceGAN(conditions=["bb"]).check(data.generator, data.attributes, "a")
