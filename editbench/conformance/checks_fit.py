"""Checks of construction, fit, seeds and costs."""

from __future__ import annotations

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Space
from editbench.conformance.compare import close
from editbench.conformance.subject import Fit, Subject
from editbench.conformance.verdicts import Failed, Skipped, Warned, explain
from editbench.conformance.worlds import FAMILIES
from editbench.walk.editor import Editor, FitReport

WORLDS = "W of 20, 4 rows and a layer 'conv', without pictures; or 16x16 pictures of a StyleGAN2, W of 16 and 6 rows"


def constructs(subject: Subject) -> str:
    try:
        editor, again = subject.make(), subject.make()
    except EditbenchError as error:
        raise Failed(
            f"the constructor refused: {error}",
            "an editor from its defaults",
            "give the arguments that have no default with --set key=value or in the YAML",
        ) from None
    except Exception as error:
        if isinstance(error, TypeError) and "abstract" in str(error):
            raise Failed(
                str(error),
                "an Editor that fits and steps",
                "implement fit(self, data) and step(self, walk)",
            ) from None
        raise Failed(
            f"the constructor raised {explain(error)}",
            "an editor from its defaults",
            "give every argument of __init__ a default, or --set key=value, or list it in the YAML",
        ) from None
    if not isinstance(editor, Editor):
        raise Failed(
            f"{type(editor).__name__} is no Editor",
            "a subclass of editbench.walk.editor.Editor",
            "write `class Mine(Editor)` and implement fit and step",
        )
    if again is editor:
        raise Failed(
            "the same object twice", "a new editor at every call", "make a new instance every time"
        )
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
    if editor.space != Space.W and editor.unit == Editor.unit:
        raise Warned(
            f"the editor walks in {editor.space.name} and its unit is '{editor.unit}'",
            "a unit that belongs to the space",
            f'set `unit`, for example "{editor.space.name} units"',
        )
    return f"walks in {editor.space.name}, {editor.unit}"


def fit(subject: Subject) -> str:
    subject.make()
    family = subject.family
    for kind in ("binary", "mixed"):
        fitted = subject.fitted(family, kind)
        if isinstance(fitted.error, Unsupported) and str(fitted.error):
            if kind == "binary":
                raise Skipped(f"the fit says that it cannot serve: {fitted.error}")
        elif isinstance(fitted.error, EditbenchError):
            said = {where: subject.fitted(where, kind).error for where in FAMILIES}
            raise Failed(
                "fit ended with: "
                + "; ".join(f"{where}: {error}" for where, error in said.items()),
                "a fit on one of the suite's worlds",
                f"choose arguments that suit one of them with --set: {WORLDS}",
            )
        elif fitted.error is not None:
            what = (
                "two classes"
                if kind == "binary"
                else "two classes and of many, one of them ordered"
            )
            raise Failed(
                f"on a world with attributes of {what}, fit raised {explain(fitted.error, fitted.editor)}",
                "a fit that ends with a FitReport, whatever the attributes of the teacher are",
                'serve what can be served and raise Unsupported("why") in `check` for the rest',
            )
        else:
            _report(fitted)
    elsewhere = subject.fitted(FAMILIES[0], "mixed").error
    if (
        elsewhere is not None
        and family != FAMILIES[0]
        and not isinstance(elsewhere, EditbenchError)
    ):
        raise Warned(
            f"on a world without pictures, fit raised {explain(elsewhere, subject.make())}",
            "an answer that can be recorded",
            "raise Unsupported(\"needs pictures\") in `check` when generator.output is not 'image'",
        )
    labels = subject.fitted(family, "mixed").reports.get("")
    return f"on {family}" + (f", {labels.labels} labels" if labels else "")


def _report(fitted: Fit) -> None:
    for name, report in fitted.reports.items():
        call = f"tune('{name}')" if name else "fit"
        if not isinstance(report, FitReport):
            raise Failed(
                f"{call} gave {type(report).__name__}",
                "a FitReport",
                "end with `return FitReport(labels=..., notes={...})`",
            )
        if type(report.labels) is not int or report.labels < 0:
            raise Failed(
                f"{call} reported labels={report.labels!r}",
                "a whole number of labels that were looked at",
                "give FitReport(labels=int) the number of samples whose teacher logits the fit read",
            )
        tally = fitted.tallies[name]
        if (tally.scored or tally.read) and report.labels == 0:
            raise Failed(
                f"{call} "
                + (
                    f"asked the teacher about {tally.scored} samples"
                    if tally.scored
                    else "read the teacher's logits"
                )
                + " and reported labels=0",
                "the number of labels that the editor looked at: tables show it as a cost",
                "give FitReport(labels=...) the number of samples whose teacher logits were read",
            )


def determinism(subject: Subject) -> str:
    for served in subject.need_served():
        walk = served.walk()
        start, one, other = (
            subject.outcome(served.editor, walk, *how) for how in ((0, 0), (1, 0), (1, 1))
        )
        if not close(one, other, start).all():
            raise Failed(
                f"the step towards {served.name} changes with the global random state",
                "steps that depend on the data, data.seed and walk.start alone",
                'draw in `fit` from editbench.base.seeding.generator(data.seed, "name"), or in `step` from '
                'editbench.base.seeding.normals(seed, "name", index, ...); not from torch.randn, np.random or '
                "random",
            )
    first = subject.need_served()[0].fit
    again = subject.fit(first.world, seed=1)
    if again.error is not None:
        raise Failed(
            f"a second fit of the same data raised {explain(again.error, again.editor)}",
            "the same fit as the first",
            "keep no state outside the instance",
        )
    for served in [s for s in subject.need_served() if s.fit is first]:
        walk, editors = served.walk(), (served.editor, subject.tune(again, served.attribute))
        one, other = (subject.outcome(editor, walk) for editor in editors)
        same = close(one, other, subject.outcome(served.editor, walk, 0))
        if not same.all():
            raise Failed(
                f"two fits of the same data with the same data.seed step differently towards {served.name} "
                f"({int((~same).sum())} of {len(same)} samples)",
                "one result for one seed, whatever the "
                "global random state, the time or the process",
                'draw from editbench.base.seeding.generator(data.seed, "name"); give scikit-learn a '
                "random_state and torch modules weights drawn from it",
            )
    return "two fits under different global seeds step alike"


def costs(subject: Subject) -> str:
    subject.need_served()
    decoded, notes = 0, []
    for fitted in {id(s.fit): s.fit for s in subject.served}.values():
        room = len(fitted.data.fit) + len(fitted.data.tune)
        for name, tally in fitted.tallies.items():
            call, report = (f"tune('{name}')" if name else "fit"), fitted.reports.get(name)
            if tally.passed > tally.counted:
                raise Failed(
                    f"{call} sent {tally.passed} samples through the generator's last layer, of which "
                    f"generator.decoded counts {tally.counted}",
                    "every decoded sample is counted: tables show generator calls as a cost",
                    "decode with data.generator.decode(Codes(space, values)) or data.score(codes), not with "
                    "_decode, with the network inside or with a copy of it",
                )
            decoded += tally.counted
            if report is not None and report.labels > room + tally.scored:
                notes.append(
                    f"{call} reports {report.labels} labels, but there are {room} samples with logits and "
                    f"the teacher scored {tally.scored}"
                )
    stepped = _decoded_in_step(subject)
    if notes:
        raise Warned(
            notes[0],
            "labels=number of samples whose teacher logits were looked at",
            "count every sample once in FitReport(labels=...)",
        )
    return f"{decoded} decodes in the fits" + (
        f"; a step decodes {stepped} for {len(subject.served[0].walk())} samples" if stepped else ""
    )


def _decoded_in_step(subject: Subject) -> int:
    served = subject.need_served()[0]
    generator, watch, walk = served.fit.data.generator, subject.watch, served.walk()
    before, already = generator.decoded, watch.tally.passed
    with watch.count(served.fit.world.last, served.fit.data.teacher):
        subject.step(served.editor, walk)
    counted, passed = generator.decoded - before, watch.tally.passed - already
    if passed > counted:
        raise Failed(
            f"step sent {passed} samples through the generator's last layer, of which generator.decoded "
            f"counts {counted}",
            "every decoded sample is counted",
            "decode in `fit` or `tune` with data.generator.decode, and let the engine decode the walk",
        )
    return counted
