"""Checks of construction, fit, seeds and costs."""

from __future__ import annotations

from collections.abc import Sequence

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Space
from editbench.conformance.compare import close
from editbench.conformance.subject import Fit, Subject
from editbench.conformance.testbeds import FAMILIES
from editbench.conformance.verdicts import Failed, Skipped, Warned, describe_error, must_not_raise
from editbench.run.fits import learned_auc
from editbench.walk.editor import Editor, FitData, FitReport

TESTBEDS = (
    "W of 20, 4 rows and a layer 'conv', without pictures; or 16x16 pictures of a StyleGAN2, W of "
    "16 and 6 rows"
)


def constructs(subject: Subject) -> str:
    """Make two editors, and check their class, space and unit."""
    # Twice: a factory may hand out one object, which fits of two jobs would share.
    try:
        editor = subject.make()
        again = subject.make()
    except EditbenchError as error:
        raise Failed(
            f"the constructor refused: {error}",
            "an editor from its defaults",
            "give the arguments that have no default with --set key=value or in the YAML",
        ) from None
    except Exception as error:
        # Python's own message for a class with abstract methods.
        if isinstance(error, TypeError) and "abstract" in str(error):
            raise Failed(
                str(error),
                "an Editor that fits and steps",
                "implement fit(self, data) and step(self, walk)",
            ) from None
        raise Failed(
            f"the constructor raised {describe_error(error)}",
            "an editor from its defaults",
            "give every argument of __init__ a default, or --set key=value, or list it in the YAML",
        ) from None
    _check_kind(editor)
    if again is editor:
        raise Failed(
            "the same object twice", "a new editor at every call", "make a new instance every time"
        )
    _check_description(editor)
    return f"walks in {editor.space.name}, {editor.unit}"


def _check_kind(editor: object) -> None:
    if not isinstance(editor, Editor):
        raise Failed(
            f"{type(editor).__name__} is not an Editor",
            "a subclass of editbench.walk.editor.Editor",
            "write `class Mine(Editor)` and implement fit and step",
        )


def _check_description(editor: Editor) -> None:
    """Check space and unit, which appear in tables and on axes."""
    if not hasattr(editor, "layers"):
        raise Failed(
            "the editor has no `layers`",
            "the attributes that the base class sets",
            "call super().__init__(layers) first thing in __init__",
        )
    if not isinstance(editor.space, Space):
        raise Failed(
            f"space is {editor.space!r}",
            "one of " + ", ".join(f"Space.{s.name}" for s in Space),
            "set `space = Space.W` (or Z, W_PLUS, S, THETA) on the class or in __init__",
        )
    if not isinstance(editor.unit, str) or not editor.unit.strip():
        raise Failed(
            f"unit is {editor.unit!r}",
            "the name of the unit that a step is measured in",
            'set `unit = "W units"` on the class or in __init__',
        )
    # The base class is of W: its unit on another space was most likely forgotten.
    if editor.space != Space.W and editor.unit == Editor.unit:
        raise Warned(
            f"the editor walks in {editor.space.name} and its unit is '{editor.unit}'",
            "a unit that belongs to the space",
            f'set `unit`, for example "{editor.space.name} units"',
        )


def fit(subject: Subject) -> str:
    """Fit on attributes of two classes and of many, and look at the reports."""
    subject.make()
    family = subject.family
    for kind in ("binary", "mixed"):
        fitted = subject.fitted(family, kind)
        if fitted.error is None:
            _check_reports(fitted)
        elif isinstance(fitted.error, Unsupported) and str(fitted.error):
            # To refuse with a reason is sound; without attributes of two classes nothing is left.
            if kind == "binary":
                raise Skipped(f"the fit cannot serve: {fitted.error}")
        elif isinstance(fitted.error, EditbenchError):
            errors = [f"{where}: {subject.fitted(where, kind).error}" for where in FAMILIES]
            raise Failed(
                f"fit ended with: {'; '.join(errors)}",
                "a fit on one of the suite's testbeds",
                f"choose arguments that suit one of them with --set: {TESTBEDS}",
            )
        else:
            what = "two classes"
            if kind == "mixed":
                what = "two classes and of many, one of them ordered"
            raise Failed(
                f"on a testbed with attributes of {what}, fit raised "
                f"{describe_error(fitted.error, fitted.editor)}",
                "a fit that ends with a FitReport, whatever the attributes of the teacher are",
                'serve what can be served and raise Unsupported("why") in `check` for the rest',
            )
    _check_without_pictures(subject, family)
    report = subject.fitted(family, "mixed").reports.get("")
    return f"on {family}" + (f", {report.labels} labels" if report else "")


def _check_without_pictures(subject: Subject, family: str) -> None:
    """Warn where an editor of pictures stumbles over a generator without them."""
    elsewhere = subject.fitted(FAMILIES[0], "mixed").error
    if elsewhere is None or isinstance(elsewhere, EditbenchError) or family == FAMILIES[0]:
        return
    raise Warned(
        f"on a testbed without pictures, fit raised {describe_error(elsewhere, subject.make())}",
        "an answer that can be recorded",
        "raise Unsupported(\"needs pictures\") in `check` when generator.output is not 'image'",
    )


def _check_reports(fitted: Fit) -> None:
    """Reports of the fit and of every tuning: their type, and labels that were not counted."""
    for name, report in fitted.reports.items():
        call = _call(name)
        if not isinstance(report, FitReport):
            raise Failed(
                f"{call} returned {type(report).__name__}",
                "a FitReport",
                "end with `return FitReport(labels=..., notes={...})`",
            )
        if not report.has_count():
            raise Failed(
                f"{call} reported labels={report.labels!r}",
                "a whole number of labels that were looked at",
                "give FitReport(labels=int) the number of samples whose teacher logits the fit "
                "read",
            )
        tally = fitted.tallies[name]
        # Samples that the fit has the teacher score are counted by the harness.
        if tally.read and report.labels == 0:
            raise Failed(
                f"{call} read the teacher's logits and reported labels=0",
                "the number of labels that the editor looked at: tables show it as a cost",
                "give FitReport(labels=...) the number of samples whose teacher logits were read",
            )


def _call(name: str) -> str:
    """The call that a key of `Fit.reports` stands for."""
    return f"tune('{name}')" if name else "fit"


def determinism(subject: Subject) -> str:
    """Step and fit under other global random states; nothing may change."""
    for served in subject.need_served():
        walk = served.walk()
        subject.need_repeatable(served.editor, walk, 1)
        start = subject.outcome(served.editor, walk, 0, 0)
        one = subject.outcome(served.editor, walk, 1, 0)
        other = subject.outcome(served.editor, walk, 1, 1)
        if not close(one, other, start).all():
            raise Failed(
                f"the step towards {served.name} changes with the global random state",
                "steps that depend on the data, data.seed and walk.start alone",
                'draw in `fit` from editbench.base.seeding.rng(data.seed, "name"), or in '
                '`step` from editbench.base.seeding.normals(seed, "name", index, ...); not from '
                "torch.randn, np.random or random",
            )
    # A second fit in the same process: state outside the instance would show.
    first = subject.need_served()[0].fit
    if subject.again.error is None and not _different_step(subject, first, subject.again):
        return _alike(subject)
    # The judge and the test split may be why, which is another check's matter.
    again = subject.fit(first.testbed, seed=1)
    if again.error is not None:
        raise Failed(
            f"a second fit of the same data raised {describe_error(again.error, again.editor)}",
            "the same fit as the first",
            "keep no state outside the instance",
        )
    different = _different_step(subject, first, again)
    if different:
        raise Failed(
            f"two fits of the same data with the same data.seed step differently {different}",
            "one result for one seed, whatever the global random state, the time or the process",
            'draw from editbench.base.seeding.rng(data.seed, "name"); give scikit-learn a '
            "random_state and torch modules weights drawn from it",
        )
    return _alike(subject)


def _alike(subject: Subject) -> str:
    """The result for fits that step alike, unless they might not on other data."""
    for fitted in {id(served.fit): served.fit for served in subject.served}.values():
        for name, tally in fitted.tallies.items():
            # A solver that converges gives one result here, whatever it draws.
            if tally.drawn:
                raise Warned(
                    f"{_call(name)} drew from the global generator of {sorted(tally.drawn)[0]}, "
                    "although fits with different global seeds step alike here",
                    "a result that data.seed determines on any data",
                    "give scikit-learn a random_state, and draw from "
                    'editbench.base.seeding.rng(data.seed, "name")',
                )
    return "two fits under different global seeds step alike"


def _different_step(subject: Subject, first: Fit, again: Fit) -> str:
    """Towards which attribute two fits step differently; '' where they step alike."""
    # A fit is judged by its steps: a state may hold the same edit in another order.
    for served in subject.need_served():
        if served.fit is not first:
            continue
        walk = served.walk()
        one = subject.outcome(served.editor, walk)
        other = subject.outcome(subject.tune(again, served.attribute), walk)
        same = close(one, other, subject.outcome(served.editor, walk, 0))
        if not same.all():
            return f"towards {served.name} ({int((~same).sum())} of {len(same)} samples)"
    return ""


def scores(subject: Subject) -> str:
    """Score the tune split for every attribute, as a job does when the fit has ended."""
    chosen = subject.need_served()
    if type(chosen[0].editor).class_scores is Editor.class_scores:
        return "gives no scores of classes"
    # An editor is asked for all attributes after its fit, and after a tuning for the tuned one.
    asked: dict[int, tuple[Editor, FitData, Sequence[str]]] = {}
    for served in chosen:
        data = served.fit.data
        fitted = served.fit.editor
        asked.setdefault(id(fitted), (fitted, data, data.attributes.names))
        asked.setdefault(id(served.editor), (served.editor, data, [served.attribute]))
    found: set[str] = set()
    for editor, data, names in asked.values():
        guard = must_not_raise(
            f"for {', '.join(names)}, scoring",
            "(n, K) scores of the n tune samples, or None for an attribute without any: a job "
            "asks for those of all attributes when the fit has ended",
            "in `class_scores` give one row per tune sample and one column per class, from codes "
            "alone, and None where the fit learnt none",
            editor,
        )
        with guard, subject.watch.running(0):
            found |= set(learned_auc(editor, data, names))
    return "scores " + (", ".join(sorted(found)) or "no attribute")


def costs(subject: Subject) -> str:
    """Compare what the networks saw with what was counted and reported."""
    subject.need_served()
    decoded = 0
    notes = []
    # Several served attributes share a fit; it is counted once.
    for fitted in {id(s.fit): s.fit for s in subject.served}.values():
        known = len(fitted.data.fit) + len(fitted.data.tune)
        for name, tally in fitted.tallies.items():
            call = _call(name)
            report = fitted.reports.get(name)
            if tally.passed > tally.counted:
                raise Failed(
                    f"{call} sent {tally.passed} samples through the generator's last layer, of "
                    f"which generator.decoded counts {tally.counted}",
                    "every decoded sample is counted: tables show generator calls as a cost",
                    "decode with data.generator.decode(Codes(space, values)) or data.score(codes), "
                    "not with _decode, with the network inside or with a copy of it",
                )
            decoded += tally.counted
            # More labels than samples: a cost that is counted twice, which hides nothing.
            if report is not None and report.labels > known:
                notes.append(
                    f"{call} reports {report.labels} labels, but there are {known} samples with "
                    f"logits and the teacher scored {tally.scored}"
                )
    stepped = _decoded_in_step(subject)
    if notes:
        raise Warned(
            notes[0],
            "labels=number of samples whose teacher logits were looked at",
            "count every sample once in FitReport(labels=...)",
        )
    in_steps = ""
    if stepped:
        in_steps = f"; a step decodes {stepped} for {len(subject.served[0].walk())} samples"
    return f"{decoded} decodes in the fits{in_steps}"


def _decoded_in_step(subject: Subject) -> int:
    """Samples that one step decodes, as the generator counts them."""
    served = subject.need_served()[0]
    generator = served.fit.data.generator
    watch = subject.watch
    walk = served.walk()
    before = generator.decoded
    already = watch.tally.passed
    with watch.count(served.fit.testbed.last, served.fit.data.teacher):
        subject.step(served.editor, walk)
    counted = generator.decoded - before
    passed = watch.tally.passed - already
    if passed > counted:
        raise Failed(
            f"step sent {passed} samples through the generator's last layer, of which "
            f"generator.decoded counts {counted}",
            "every decoded sample is counted",
            "decode in `fit` or `tune` with data.generator.decode, and let the engine decode the "
            "walk",
        )
    return counted
