"""The choice of layers: the rows that carry the attribute and nothing else are found, kept and restored."""

import pytest
import torch

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.conformance.toy import ToyGenerator
from editbench.methods.gradctrl.editor import GradCtrl
from editbench.methods.interfacegan.editor import InterFaceGAN
from editbench.methods.shared.layer_choice import RANGES, scale_ranges
from tests.toy import check_editor, fit_data, make_walk


class LayeredGenerator(ToyGenerator):
    """Rows 2 to 5 of 18 carry channels 0 to 7, the other rows the rest."""

    def __init__(self) -> None:
        super().__init__(16, num_ws=18)

    def _decode(self, codes: Codes) -> torch.Tensor:
        if codes.space != Space.W_PLUS:
            return super()._decode(codes)
        x = codes.values
        return torch.cat(
            [x[:, 2:6, :8].mean(1), torch.cat([x[:, :2], x[:, 6:]], 1)[:, :, 8:].mean(1)], 1
        )


def layered_data():
    """a reads channel 0, b channel 8 (other rows), c channel 9; in w, a and b go together."""
    data = fit_data(dim=16, n=3000)
    data.generator = LayeredGenerator()
    data.teacher.normals.zero_()
    data.teacher.normals[0, 0] = data.teacher.normals[1, 8] = data.teacher.normals[2, 9] = 1.0
    for split in (data.fit, data.tune):
        split.w = split.w.clone()
        split.w[:, 8] = 0.9 * split.w[:, 0] + 0.4 * split.w[:, 8]
        split.logits = data.teacher(split.w)
    data.sigma = data.fit.logits.std(0)
    return data


@pytest.mark.parametrize(
    "make",
    [
        lambda: InterFaceGAN(layers="tuned", delta=1.5),
        lambda: GradCtrl(layers="tuned", delta=1.5, exclude=0, n_per_class=100),
    ],
    ids=["interfacegan", "gradctrl"],
)
def test_the_rows_that_carry_the_attribute_alone_are_chosen(make):
    data, editor, fresh = layered_data(), make(), make()
    editor.fit(data)
    report = editor.tune(data, "a")
    scores = report.notes["clean_crossings_of_layers.a"]
    assert editor.rows("a") == (2, 6) == tuple(report.notes["layers.a"]), scores
    assert scores["2:6"] > scores["0:18"] and report.labels > 30
    fresh.load_state(editor.state())
    assert fresh.rows("a") == (2, 6) and fresh.rows("b") is None
    check_editor(editor, data, "a", make())
    walk = make_walk(data, editor, "a")
    walk.codes = editor.step(walk)
    moved = (editor.codes(walk).values - walk.origin[:, None]).abs().amax((0, 2)) > 0
    assert moved.nonzero()[:, 0].tolist() == [2, 3, 4, 5]


def test_ranges_keep_their_proportion():
    assert scale_ranges(RANGES, 18)[:3] == [(0, 18), (0, 4), (2, 6)]
    for rows in (2, 8, 14, 18):
        found = scale_ranges(RANGES, rows)
        assert found[0] == (0, rows) and len(set(found)) == len(found)
        assert all(0 <= a < b <= rows for a, b in found)


def test_another_word_is_refused():
    for editor in (InterFaceGAN, GradCtrl):
        with pytest.raises(EditbenchError, match="layers=tunde must be one of"):
            editor(layers="tunde")


def test_a_misspelt_attribute_among_the_layers_is_refused():
    data = fit_data()
    for method in (InterFaceGAN, GradCtrl):
        method(layers={"a": [1, 3]}).check(data.generator, data.attributes, "a")
        with pytest.raises(UnknownName, match=r"method.layers 'aa'\. Did you mean 'a'\?"):
            method(layers={"aa": [1, 3]}).check(data.generator, data.attributes, "a")


def test_options_may_name_attributes_of_the_scorer_that_are_not_evaluated():
    data = fit_data()
    known = data.attributes
    evaluated = known.select(["a", "b", "c"]).select(["a", "b"])
    options = {"layers": {"a": [1, 3], "c": [2, 4]}, "exclude": {"a": {"b": 3}, "b": {"c": 3}}}
    GradCtrl(**options).check(data.generator, evaluated, "a")
    with pytest.raises(UnknownName, match="Available: " + ", ".join(sorted(known.known))):
        GradCtrl(layers={"aa": [1, 3]}).check(data.generator, evaluated, "a")
    with pytest.raises(UnknownName, match=r"method.exclude 'bb'\. Did you mean 'b'"):
        GradCtrl(exclude={"b": {"bb": 3}}).check(data.generator, evaluated, "a")


def test_a_generator_without_rows_is_a_reason():
    data = fit_data()
    data.generator.spaces = (Space.W,)
    for editor in (InterFaceGAN(layers="tuned"), GradCtrl(layers="tuned")):
        with pytest.raises(Unsupported, match="needs a generator with W"):
            editor.check(data.generator, data.attributes, "a")


def test_the_published_table_keeps_its_proportion_and_serves_only_what_it_names():
    editor = GradCtrl(layers="ffhq")
    editor.bind(ToyGenerator(16, num_ws=18))
    assert editor.rows("smile") == (2, 8) and editor.rows("age") == (4, 10)
    # StyleGAN2-FFHQ of 256 pixels.
    editor.bind(ToyGenerator(16, num_ws=14))
    assert editor.rows("smile") == (2, 6) and editor.rows("age") == (3, 8)
    data = fit_data()
    data.generator = ToyGenerator(16, num_ws=14)
    assert "18 rows of W+: in proportion for 14" in editor.fit(data).notes["layers"]
    with pytest.raises(Unsupported, match="table of layers has no 'a'"):
        editor.check(data.generator, data.attributes, "a")


def test_the_published_table_is_refused_where_it_means_nothing():
    editor = GradCtrl(layers="ffhq")
    smile = Attributes([Attribute("smile", ("no", "yes"))])
    generator = ToyGenerator(16, num_ws=8)
    editor.bind(generator)
    with pytest.raises(Unsupported, match=r"method.layers=ffhq .* has 8, .* to null, to tuned"):
        editor.check(generator, smile, "smile")
