"""GradCtrl against slow, obvious versions of itself: autograd, argsort, one sample at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.methods.gradctrl.editor import GradCtrl
from editbench.methods.gradctrl.exclusion import FFHQ_EXCLUDE, excluded_channels, scaled_count
from editbench.methods.gradctrl.latent_classifier import LatentClassifier
from editbench.methods.shared.meta_validation import meta_validation
from editbench.networks.latent_only import LatentOnly
from editbench.run.fits import learned_auc
from tests.published_heads import FFHQ, HEADS, ffhq_codes, heads, published, random_classifier
from tests.toy import (
    BINARY,
    MIXED,
    ToyGenerator,
    check_editor,
    check_refused,
    fit_data,
    fitted_and_restored,
    make_walk,
    needs_data,
)


def with_classifier(classifier: LatentClassifier, **options: object) -> GradCtrl:
    editor = GradCtrl(scale_step=False, **options)
    editor.classifier = classifier
    return editor


def slow_mask(modules: dict, w: torch.Tensor, counts: dict[str, int]) -> tuple[set[int], set[int]]:
    """Channels of one sample by full sort, and those too close to the cut to have a rank."""
    chosen, close = set(), set()
    for name, count in counts.items():
        x = w.clone().requires_grad_()
        jacobian = torch.autograd.functional.jacobian(modules[name], x)
        saliency = jacobian.abs().max(0).values.numpy()
        order = np.argsort(-saliency)
        chosen |= set(order[:count].tolist())
        cut = saliency[order[count - 1]]
        close |= set(np.flatnonzero(np.abs(saliency - cut) <= 1e-9 * cut).tolist())
    return chosen, close


@needs_data
def test_walk_equals_a_slow_walk_with_gradient_and_mask_taken_anew_at_every_step():
    classifier, modules = heads("ffhq"), dict(zip(FFHQ, published("ffhq")))
    editor = with_classifier(classifier, exclude="ffhq", layers="ffhq")
    editor.bind(ToyGenerator(24, 18))
    assert editor.rows("smile") == (2, 8) and editor.excluded("smile") == FFHQ_EXCLUDE["smile"]
    w = ffhq_codes(4).double()
    data = fit_data(
        Attributes([Attribute(name, ("no", "yes")) for name in FFHQ]), dim=512, n=50, overlap=0.0
    )
    walk = make_walk(data, editor, "smile", n=4)
    walk.codes, walk.target = w, torch.tensor([1, 0, 1, 0])
    slow, masks = w.clone(), []
    for _ in range(9):
        walk.codes = editor.step(walk)
        for row in range(4):
            x = slow[row].clone().requires_grad_()
            gradient = torch.autograd.grad(torch.sigmoid(modules["smile"](x)).sum(), x)[0]
            chosen, _ = slow_mask(modules, slow[row], FFHQ_EXCLUDE["smile"])
            gradient[list(chosen)] = 0
            sign = 1 if walk.target[row] == 1 else -1
            slow[row] += sign * 0.6 * gradient / gradient.norm()
            masks.append(chosen)
    torch.testing.assert_close(walk.codes, slow, atol=1e-5, rtol=0)
    assert any(masks[row] != masks[row + 32] for row in range(4)), "the mask depends on the codes"


@needs_data
@pytest.mark.parametrize("name, counts", [("ffhq", FFHQ_EXCLUDE["age"]), ("cat", {"colour": 100})])
def test_masks_equal_a_full_sort_but_for_rank_ties(name, counts):
    classifier, modules = heads(name), dict(zip(HEADS[name], published(name)))
    w = ffhq_codes(12, seed=1).double()
    mask = excluded_channels(classifier, *classifier.forward(w), counts)
    for row in range(len(w)):
        chosen, close = slow_mask(modules, w[row], counts)
        assert set(mask[row].nonzero()[:, 0].tolist()) ^ chosen <= close
        assert max(counts.values()) <= int(mask[row].sum()) <= sum(counts.values())


@needs_data
def test_field_is_not_constant():
    classifier = heads("ffhq")
    w = ffhq_codes(60).double() * 3
    logits, slopes = classifier.forward(w)
    gradients = with_classifier(classifier).gradient(
        "gender", logits, slopes, torch.ones(60, dtype=torch.long)
    )
    cosine = (
        torch.nn.functional.normalize(gradients, dim=1)
        @ torch.nn.functional.normalize(gradients, dim=1).T
    )
    assert cosine.min() < 0.9


def test_class_gradient_is_that_of_log_softmax_and_probability_and_survives_saturation():
    classifier = random_classifier(MIXED)
    w = torch.randn(20, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.arange(20) % 3
    logits, slopes = classifier.forward(w)
    for objective, f in (
        ("log_softmax", lambda own: own.log_softmax(1)),
        ("probability", lambda own: own.softmax(1)),
        ("logit", lambda own: own),
    ):
        x = w.clone().requires_grad_()
        own = (
            classifier.forward(x)[0][:, classifier.slices["kind"]] / 20
        )  # off saturation, where autograd works
        small = LatentClassifier(
            {n: (h[0], h[1], h[2] / 20, h[3] / 20) for n, h in classifier.heads.items()}
        )
        expected = torch.autograd.grad(f(own).gather(1, target[:, None]).sum(), x)[0]
        got = with_classifier(small, objective=objective).gradient(
            "kind", logits / 20, slopes, target
        )
        cosine = torch.nn.functional.cosine_similarity(got, expected)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-9, rtol=0)
    huge = with_classifier(classifier).gradient(
        "kind", logits * 1e4, slopes, logits[:, 1:4].argmax(1)
    )
    assert (huge.norm(dim=1) > 1e-3).all() and torch.isfinite(huge).all()


def test_ordered_attribute_goes_through_neighbouring_classes():
    classifier = random_classifier(MIXED)
    editor = with_classifier(classifier, objective="logit")
    editor.ordered = {"angle"}
    w = torch.randn(200, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    logits, slopes = classifier.forward(w)
    seen = logits[:, classifier.slices["angle"]].argmax(1)
    target = torch.arange(200) % 4
    aim = torch.where(seen == target, target, seen + (target - seen).sign())
    got = editor.gradient("angle", logits, slopes, target)
    rows = classifier.jacobian(slopes, torch.arange(4, 8))
    torch.testing.assert_close(got, rows[torch.arange(200), aim])
    assert ((aim - target).abs() >= 1).any()


def test_everything_masked_does_not_move_and_ties_are_as_asked():
    classifier = random_classifier(BINARY)
    data = fit_data(dim=32)
    editor = with_classifier(classifier, exclude=512)
    walk = make_walk(data, editor, "a")
    assert torch.equal(editor.step(walk), walk.codes)
    first = torch.ones(16, 6)
    first[:, 0] = 5.0
    equal = LatentClassifier({"m": (first, torch.zeros(16), torch.ones(1, 16), torch.zeros(1))})
    forward = equal.forward(torch.ones(3, 6))
    assert excluded_channels(equal, *forward, {"m": 3}).sum(1).tolist() == [3, 3, 3]
    assert excluded_channels(equal, *forward, {"m": 3}, ties="all").sum(1).tolist() == [6, 6, 6]


def test_predicted_saliency_takes_the_row_of_the_class_seen():
    classifier = random_classifier(MIXED)
    logits, slopes = classifier.forward(torch.randn(9, 32))
    mask = excluded_channels(classifier, logits, slopes, {"kind": 5}, multiclass="predicted")
    rows = classifier.jacobian(slopes, torch.arange(1, 4)).abs()
    for k, seen in enumerate(logits[:, 1:4].argmax(1)):
        assert set(mask[k].nonzero()[:, 0].tolist()) == set(rows[k, seen].topk(5).indices.tolist())


def test_samples_that_share_the_signs_of_their_units_get_masks_of_their_own_class():
    """Six samples in one linear piece of the heads; the head of three classes sees each class twice."""
    classifier = random_classifier(MIXED)
    logits, slopes = classifier.forward(torch.randn(1, 32))
    slopes = slopes.expand(6, -1, -1)
    logits = logits.repeat(6, 1)
    logits[:, 1:4] = torch.eye(3, dtype=logits.dtype).repeat(2, 1)
    mask = excluded_channels(classifier, logits, slopes, {"kind": 5}, multiclass="predicted")
    rows = classifier.jacobian(slopes, torch.arange(1, 4)).abs()
    for k in range(6):
        assert set(mask[k].nonzero()[:, 0].tolist()) == set(rows[k, k % 3].topk(5).indices.tolist())


def test_counts_scale_with_the_width_of_the_space():
    assert [scaled_count(100, d) for d in (512, 128, 8, 2)] == [100, 25, 2, 1]
    assert scaled_count(0, 512) == 0 and scaled_count(1, 8) == 1 and scaled_count(600, 512) == 512
    editor = with_classifier(random_classifier(BINARY), exclude={"a": {"b": 64}})
    assert editor.excluded("a") == {"b": 4} and editor.excluded("b") == {}


@pytest.mark.parametrize(
    "space, layers, attribute", [("w", None, "angle"), ("w", (1, 3), "kind"), ("z", None, "a")]
)
def test_contract(space, layers, attribute):
    data = fit_data(MIXED)
    editor, fresh = (GradCtrl(space=space, layers=layers, epochs=60) for _ in range(2))
    report = editor.fit(data)
    # 600 of the pool, and the 200 tune samples that stop the training.
    assert report.labels == 800 and set(editor.classifier.names) == set(MIXED.names)
    assert report.notes["examples.kind"] == [30, 30, 30]
    check_editor(editor, data, attribute, fresh)
    assert fresh.excluded(attribute) == editor.excluded(attribute) and fresh.ordered == {"angle"}


def test_fit_learns_a_linear_world_and_is_deterministic():
    data = fit_data(overlap=0.3)
    editor, again = (
        GradCtrl(selection="random", n_per_class=200),
        GradCtrl(selection="random", n_per_class=200),
    )
    report = editor.fit(data)
    again.fit(data)
    assert torch.equal(editor.classifier.w1, again.classifier.w1)
    predicted = editor.classifier.forward(data.tune.w)[0] > 0
    assert (predicted == (data.tune.logits > 0)).double().mean() > 0.85
    assert report.notes["a"]["validation_accuracy"] > 0.8
    walk = make_walk(data, editor, "b")
    for _ in range(50):
        walk.codes = editor.step(walk)
    assert (
        data.attributes.labels(data.teacher(walk.codes), "b") == walk.target
    ).double().mean() > 0.95


def test_examples_are_the_most_confident_of_either_class():
    data = fit_data()
    editor = GradCtrl(n_per_class=30, pool=len(data.fit))
    training, _, _, _ = editor._examples(data, ["a"], 1.0)
    lowest_first = data.fit.logits[:, 0].argsort()
    for label, expected in enumerate((lowest_first[:30], lowest_first[-30:])):
        chosen = training.codes[0][training.labels[0] == label]
        assert set(map(tuple, chosen.tolist())) == set(map(tuple, data.fit.w[expected].tolist()))


def test_all_examples_train_unless_some_are_held_out_as_in_the_published_code():
    data = fit_data()
    editor = GradCtrl(n_per_class=30)
    training, held_out, looked, _ = editor._examples(data, ["a", "b"], 1.0)
    assert training.weights.sum(1).tolist() == [60.0, 60.0]
    assert held_out.weights.sum() == 0 and looked == 600
    part = GradCtrl(n_per_class=30, hold_out=0.3)
    training, held_out, _, _ = part._examples(data, ["a", "b"], 1.0)
    assert training.weights.sum(1).tolist() == [42.0, 42.0]
    for a in range(2):
        assert held_out.labels[a][held_out.weights[a] > 0].tolist().count(1) == 9
    assert not (training.weights * held_out.weights).any()
    assert part.fit(data).labels == 600, "the tune split is not read"
    with pytest.raises(EditbenchError, match="hold_out=1"):
        GradCtrl(hold_out=1.0)


def test_random_examples_are_as_many_of_each_class_and_too_few_are_a_reason():
    data = fit_data(MIXED)
    report = GradCtrl(selection="random", n_per_class=25, epochs=3).fit(data)
    assert report.notes["examples.kind"] == [25, 25, 25]
    rare = fit_data(bias=torch.tensor([0.0, 4.2, 0.0]))
    count = int((rare.fit.logits[:, 1] <= 0).sum())
    assert 0 < count < 60
    options = {"selection": "random", "n_per_class": 60, "epochs": 3}
    editor, fresh = fitted_and_restored(lambda: GradCtrl(**options), rare)
    for one in (editor, fresh):
        one.check(rare.generator, BINARY, "a")
        message = (
            rf"fewer than 60 examples of b: no \({count}\); raise bank.n or lower method.n_per"
        )
        with pytest.raises(Unsupported, match=message):
            one.check(rare.generator, BINARY, "b")
    with pytest.raises(Unsupported, match=r"no attribute has enough examples; .* of a: no"):
        GradCtrl(selection="random", n_per_class=2000).fit(rare)


def test_the_scores_of_the_classes_are_the_heads_answers():
    data = fit_data(MIXED, overlap=0.3)
    editor = GradCtrl(selection="random", n_per_class=200)
    editor.fit(data)
    logits = editor.classifier.forward(data.tune.w)[0]
    scores = editor.class_scores(data, "a")
    torch.testing.assert_close(scores[:, 1] - scores[:, 0], 2 * logits[:, 0])
    kind = editor.class_scores(data, "kind")
    own = logits[:, editor.classifier.slices["kind"]]
    expected = own.softmax(1)
    torch.testing.assert_close(kind.sigmoid(), expected)
    assert learned_auc(editor, data, MIXED.names)["a"] > 0.9
    assert with_classifier(random_classifier(BINARY)).class_scores(fit_data(dim=32), "z") is None


def test_the_published_layers_are_the_default_where_there_are_rows():
    editor = GradCtrl(layers="ffhq")
    smile = Attributes([Attribute("smile", ("no", "yes")), Attribute("pose", ("no", "yes"))])
    data = fit_data(smile, n=200)
    editor.bind(ToyGenerator(24, 18))
    assert editor.rows("smile") == (2, 8) and editor.rows("pose") is None
    editor.check(ToyGenerator(24, 18), smile, "smile")
    with pytest.raises(Unsupported, match=r"no 'pose'.*set method.layers"):
        editor.check(ToyGenerator(24, 18), smile, "pose")
    # Of W codes alone there are no rows: the whole code moves, and the record says so.
    latents = LatentOnly(24)
    editor.bind(latents)
    editor.check(latents, smile, "smile")
    editor.check(latents, smile, "pose")
    assert editor.rows("smile") is None
    report = editor.fit(dataclasses.replace(data, generator=latents))
    assert "no W+" in report.notes["layers"]


def test_a_class_without_examples_is_a_reason_for_that_attribute_alone():
    data = fit_data(bias=torch.tensor([0.0, 100.0, 0.0]))
    editor, fresh = fitted_and_restored(lambda: GradCtrl(epochs=5), data)
    for one in (editor, fresh):
        one.check(data.generator, BINARY, "a")
        with pytest.raises(Unsupported, match="no example of b: no"):
            one.check(data.generator, BINARY, "b")
    with pytest.raises(Unsupported, match="no latent classifier of 'b'"):
        editor.step(make_walk(data, editor, "b"))


def test_tuned_count_goes_with_the_state():
    data = fit_data(dim=32, overlap=1.0)
    editor, fresh = GradCtrl(tune_exclusion=True, epochs=100), GradCtrl(tune_exclusion=True)
    editor.fit(data)
    report = editor.tune(data, "a")
    scores = report.notes["clean_crossings.a"]
    assert scores[editor.tuned["a"]] == max(scores.values()) and report.labels > 30
    fresh.load_state(editor.state())
    assert fresh.excluded("a") == editor.excluded("a")
    mixed = fit_data(MIXED)
    for name in MIXED.names:
        _, source, target = meta_validation(mixed, name)
        assert (source != target).all()
        assert target.min() >= 0
        assert target.max() < len(MIXED[name].classes)
        assert name != "angle" or ((source - target).abs() == 1).all()


def test_the_record_says_for_whom_the_published_table_excludes_nothing():
    two = Attributes([Attribute("smile", ("no", "yes")), Attribute("beard", ("no", "yes"))])
    notes = GradCtrl(exclude="ffhq", epochs=1).fit(fit_data(two, n=200)).notes
    assert "no beard:" in notes["exclude"]
    assert "exclude" not in GradCtrl(epochs=1).fit(fit_data(two, n=200)).notes


def test_bad_options():
    data = fit_data()
    with pytest.raises(UnknownName, match=r"method.exclude 'nobody'.*Available"):
        GradCtrl(exclude={"a": {"nobody": 3}}).check(data.generator, BINARY, "a")
    with pytest.raises(EditbenchError, match=r"^method.exclude.a.b=x must be a whole number"):
        GradCtrl(exclude={"a": {"b": "x"}})
    with pytest.raises(EditbenchError, match=r"^method.exclude=513 must be 0 to 512 channels"):
        GradCtrl(exclude=513)
    options = [
        {"selection": "x"},
        {"exclude": "car"},
        {"exclude": -1},
        {"exclude": 513},
        {"exclude": 1.5},
        {"exclude": {"a": {"b": 600}}},
        {"exclude": {"a": {"b": "x"}}},
        {"exclude": {"a": 5}},
        {"layers": "car"},
        {"objective": "x"},
        {"n_per_class": 0},
        {"pool": 0},
        {"pool": -5},
    ]
    check_refused(GradCtrl, options)
    for options in ({"head_attributes": ["a"]}, {"head_signs": [-1]}):
        with pytest.raises(EditbenchError, match=r"^method.head_\w+=\[.*: set method.heads$"):
            GradCtrl(**options)
