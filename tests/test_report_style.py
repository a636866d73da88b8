"""The style of a report: titles that change no name, choices of a file, papers."""

from __future__ import annotations

import importlib
import re
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.text import Text
from matplotlib.ticker import NullLocator
from omegaconf import DictConfig, OmegaConf

from editbench.base.conf import CONF, group_options
from editbench.base.errors import EditbenchError
from editbench.base.identity import fit_key
from editbench.commands.report import main
from editbench.figures.panels import new_figure
from editbench.figures.theme import make_theme
from editbench.report import Results, Style, every_setting, latex, load, report
from editbench.report.cells import number
from editbench.report.figure_trade import SpacedLogLocator
from editbench.report.paper import SCALE, to_paper
from editbench.report.references import cited_in, entries
from editbench.report.settings import add_settings, flatten
from editbench.report.titles import Wording
from tests.by_config import make_run_id, run_job
from tests.fake_records import fake_run, metric_rows, report_of, start_samples
from tests.toy_world import toy_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for method, share in (("gradctrl", 0.8), ("mine", 0.6), ("random", 0.1)):
        for attribute in ("hair_color", "smile", "long_hair"):
            values = [float(k < 60 * share) for k in range(60)]
            fake_run(
                folder,
                method,
                attribute,
                metric_rows(share),
                samples=start_samples(accuracy=pd.Series(values).to_numpy()),
                method_config={"title": "Our <method>"} if method == "mine" else None,
            )
    return folder


@pytest.fixture(scope="module")
def results(root: Path) -> Results:
    return load(root)


def test_a_chosen_name_whose_records_are_damaged_is_told_so(tmp_path: Path) -> None:
    runs = {method: fake_run(tmp_path, method, "smile") for method in ("alpha", "beta")}
    (runs["beta"] / "status.json").write_text("{")
    choice = Style(methods=("alpha", "beta"))
    with pytest.raises(EditbenchError, match=f"'beta'.*Damaged and left out: {runs['beta'].name}"):
        choice.choose(load(tmp_path))
    (runs["alpha"] / "status.json").write_text("{")
    with pytest.raises(EditbenchError, match=r"no run in .* is readable: .*altered"):
        choice.choose(load(tmp_path))


# -- titles ----------------------------------------------------------------------------------------
def test_wording_changes_no_name(tmp_path: Path) -> None:
    """Run ids, fits, metrics, settings and banks are those of a configuration without it."""
    plain = toy_config(tmp_path)
    worded = toy_config(tmp_path)
    for part in (worded.method, worded.generator, worded.scorer, *worded.metric.values()):
        part.title = "A title"
        part.cite = ["a2020", "b2021"]
        part.about = "other words"
    worded.scorer.titles = {"a": "The attribute"}
    worded.method.seeds = 5  # which only the demo reads
    assert make_run_id(worded, "bank", ["a"]) == make_run_id(plain, "bank", ["a"])
    networks = {"generator": "1", "teacher": "2"}
    keys = [fit_key(cfg, "bank", networks, ["a"]) for cfg in (plain, worded)]
    assert keys[0] == keys[1]
    # A record that was made without the words is found by a job with them, with its bank.
    first, again = run_job(plain), run_job(worded)
    assert again.run_id == first.run_id and again.reused and not first.reused
    banks = [path for path in (tmp_path / "cache").rglob("bank.json")]
    assert len(banks) <= 1
    # Both would stand in one table, as one method, and under one pin.
    assert flatten(as_plain(plain)) == flatten(as_plain(worded))
    runs = load(tmp_path).runs.iloc[[0, 0]].drop(columns=["setting", "label"])
    runs = runs.assign(run_id=["x", "y"], attribute=["a", "b"])
    configs = {"x": as_plain(plain), "y": as_plain(worded)}
    both = add_settings(runs, configs)
    assert set(both["setting"]) == {""} and both["label"].nunique() == 1


def as_plain(cfg: DictConfig) -> dict:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def test_every_shipped_method_and_world_has_a_title_of_its_own() -> None:
    for group in ("method", "generator"):
        titles = [config.get("title") for config in group_options(group).values()]
        assert all(titles) and len(set(titles)) == len(titles), group


def test_titles_are_what_people_read_and_names_what_files_hold(root: Path, tmp_path: Path) -> None:
    page = report_of(root, tmp_path).read_text(encoding="utf-8")
    out = tmp_path
    means = pd.read_csv(out / "means.csv")
    assert set(means["method"]) == {"gradctrl", "mine", "random"}
    assert set(pd.read_csv(out / "table.csv")["attribute"]) == {"hair_color", "smile", "long_hair"}
    tex = (out / "latex" / "accuracy.tex").read_text()
    assert "Our \\textless{}method\\textgreater{} &" in tex and "& hair colour &" in tex
    markdown = (out / "table.md").read_text()
    assert "| hair colour | GradCtrl |" in markdown and "## Cartoon faces" in markdown
    # The key of a title is told where the mouse rests.
    assert '<span title="gradctrl">GradCtrl</span>' in page and "Our &lt;method&gt;" in page
    assert '<option value="hair_color">hair colour</option>' in page
    theme = Style().theme(load(root))
    assert list(theme) == ["gradctrl", "mine", "random"] and theme.method("mine") == "Our <method>"


def test_a_title_belongs_to_its_option_and_to_one_label(tmp_path: Path) -> None:
    # An option that inherits gradctrl's title, and two variants of gradctrl itself.
    fake_run(tmp_path, "like_it", "smile", method_config={"title": "GradCtrl", "k": 1})
    fake_run(tmp_path, "gradctrl", "smile", method_config={"k": 1}, tag="a")
    results = load(tmp_path)
    assert Wording(results).methods() == {
        "gradctrl": "GradCtrl [gradctrl]",
        "like_it": "GradCtrl [like_it]",
    }
    fake_run(tmp_path, "gradctrl", "smile", method_config={"k": 2}, tag="b")
    titles = Wording(load(tmp_path)).methods()
    assert titles["gradctrl (k=2)"] == "GradCtrl (k=2)" and titles["like_it"] == "GradCtrl"
    # A changed word of the YAML shows without a new run; the user's own is looked for as well.
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "like_it.yaml").write_text("title: Renamed\n")
    titles = Wording(load(tmp_path), [tmp_path / "conf"]).methods()
    assert titles["like_it"] == "Renamed"


# -- choices ---------------------------------------------------------------------------------------
WHOLE = """
methods: [random, mine]
attributes: [smile, hair_color]
columns: [ad_at, accuracy]
titles: {mine: Ours, smile: Smiling, ad_at: Dependency, faces32: Faces}
captions: {accuracy: 'Ours \\emph{wins}.'}
labels: {accuracy: 'tab:main'}
digits: 2
font: serif
column: one
"""


def test_a_file_chooses_what_stands_where(root: Path, tmp_path: Path) -> None:
    # A report.yaml among the runs is found by itself.
    (root / "report.yaml").write_text(WHOLE)
    try:
        report(root, tmp_path, files=False)
    finally:
        (root / "report.yaml").unlink()
    out = tmp_path
    tex = (out / "latex" / "accuracy.tex").read_text()
    assert r"\begin{table}[t]" in tex and r"\label{tab:main}" in tex
    assert r"\caption{Ours \emph{wins}.}" in tex and "% Generated caption: Accuracy" in tex
    heads = re.findall(r"^method & (.*) \\\\$", tex, re.M)
    assert " & ".join(heads).split(" & ") == ["Smiling", "hair colour", "mean"]
    names = re.findall(r"^([A-Z][a-z ]+) & [\d\\]", tex, re.M)
    assert names[:2] == ["Random direction", "Ours"] and "GradCtrl" not in tex
    assert "0.60" in tex and "0.600" not in tex
    text = (out / "table.md").read_text()
    assert "| attribute | method | Dependency ↓ | accuracy ↑ |" in text and "## Faces" in text
    # A renamed column has its title in every sentence too.
    assert "Dependency is valid on only 0 of 2 attributes" in text.replace("\n", " ")
    assert "Dependency: over the starts that reach" in text and not re.search(r"\bAD\b", text)
    # Fewer methods and attributes are what means and tests are over.
    means = pd.read_csv(out / "means.csv").set_index("method")
    assert list(means.index) == ["random", "mine"] and (means["asked"] == 2).all()
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.index("Smiling") < page.index("hair colour") and "gradctrl" not in page


def test_nothing_is_said_of_columns_that_are_left_out(tmp_path: Path) -> None:
    rows = metric_rows(note="read with care", fid_up=9.0)
    for method in ("alpha", "beta"):
        fake_run(tmp_path, method, "smile", rows, made={"learned": 0.5})
    said = (
        "read with care",
        "Fréchet distance",
        "AUC below",
        "AD: measured at an",
        "AD: over",
        "flips and path",
    )
    (tmp_path / "report.yaml").write_text("columns: [accuracy, path_length]")
    outputs = {}
    for name, style in (("all", Style()), ("some", Style.of_runs(tmp_path))):
        page = report_of(tmp_path, tmp_path / name, style=style)
        table = (page.parent / "table.md").read_text()
        outputs[name] = f"{table} {page.read_text(encoding='utf-8')}"
    assert [text for text in said if text not in outputs["all"]] == []
    assert [text for text in said if text in outputs["some"]] == []
    assert "path: over the starts that crossed" in outputs["some"]


@pytest.mark.parametrize(
    "columns, mark",
    [("accuracy, path_length", "ᵃ"), ("path_length", "")],
)
def test_the_floor_is_told_of_the_columns_that_are_shown(
    tmp_path: Path, columns: str, mark: str
) -> None:
    """Accuracy and AD of both methods are the floor's."""
    for method in ("alpha", "random"):
        fake_run(tmp_path, method, "smile")
    (tmp_path / "report.yaml").write_text(f"columns: [{columns}]")
    page = report_of(tmp_path, style=Style.of_runs(tmp_path))
    text = (page.parent / "table.md").read_text()
    assert "Floor: Random direction" in text
    assert ("ᵃ: not clear of Random direction" in text) == bool(mark)
    (row,) = re.findall(r"^\| smile \| alpha \| (.*) \|$", text, re.M)
    first, *_ = row.split()
    assert re.fullmatch(rf"[\d.]+{mark}", first), row


def test_options_stand_above_the_file(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("methods: [random, mine]\ncolumns: [accuracy]\n")
    words = [str(root), "--table", "--style", str(own), "--methods", "mine, gradctrl,"]
    assert main([*words, "--digits", "1", "--attributes", "smile"]) == 0
    out = capsys.readouterr().out
    assert "0.6" in out and "random" not in out and "flips" not in out.split("each row")[0]
    assert out.index("mine") < out.index("gradctrl")


def test_a_comma_in_the_label_of_a_variant_separates_no_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for delta, steps in ((0.1, 3), (0.2, 4)):
        options = {"delta": delta, "steps": steps}
        fake_run(tmp_path, "mine", "smile", metric_rows(), method_config=options, tag=f"{steps}")
    first, second = sorted(set(load(tmp_path).runs["label"]))
    assert "," in first
    assert main([str(tmp_path), "--table", "--methods", first]) == 0
    out = capsys.readouterr().out
    assert first in out and second not in out


@pytest.mark.parametrize("other", [["--compare", "a", "b"], ["runs", "--tensorboard"]])
def test_what_has_no_style_refuses_it(other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*other, "--digits", "2"])
    assert "takes no style options: leave out --digits" in capsys.readouterr().err


def test_a_table_alone_takes_no_folder_to_write_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--table", "--out", str(tmp_path / "page")])
    assert "--table writes no files: leave out --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: [mine]", "unknown key 'method'. Did you mean 'methods'?"),
        ("methods: [gradctl]", "methods: unknown method 'gradctl'. Did you mean 'gradctrl'?"),
        ("attributes: [smlie]", "attributes: unknown attribute 'smlie'. Did you mean 'smile'?"),
        ("columns: [acuracy]", "columns: unknown column 'acuracy'. Did you mean 'accuracy'?"),
        ("titles: {smil: S}", "titles: unknown name 'smil'. Did you mean 'smile'?"),
        ("captions: {acc: x}", "captions: unknown LaTeX table 'acc'. Did you mean 'accuracy'?"),
        ("methods: mine", "methods: must be a list of names, [a, b]; it is 'mine'"),
        ("methods: [mine, mine]", "methods: 'mine' is listed twice; list it once"),
        ("titles: [mine]", "titles: must be a mapping, name: text; it is ['mine']"),
        ("digits: 0", "digits: must be a whole number from 1 to 6; it is 0"),
        ("digits: two", "digits: must be a whole number from 1 to 6; it is 'two'"),
        ("font: times", "font: must be sans or serif; it is 'times'"),
        ("column: three", "column: must be one or two; it is 'three'"),
    ],
)
def test_a_wrong_choice_is_named_with_file_and_remedy(
    results: Results, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "report.yaml"
    file.write_text(text)
    with pytest.raises(EditbenchError) as error:
        Style.read(file).choose(results)
    assert str(error.value).startswith(f"{file}: ") and said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_option_is_named_as_it_was_given(root: Path) -> None:
    for words, said in (
        (["--methods", "gradctl"], "--methods: unknown method 'gradctl'. Did you mean"),
        (["--columns", ","], "--columns is empty"),
        (["--font", "times"], "--font: must be sans or serif"),
        (["--style", str(root / "none.yaml")], "none.yaml"),
    ):
        with pytest.raises(EditbenchError, match=re.escape(said)):
            main([str(root), "--table", *words])


def test_the_documented_file_is_a_whole_one() -> None:
    """Every key stands in docs/report.md, and its example is read."""
    text = (Path(__file__).parents[1] / "docs" / "report.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(# report\.yaml.*?)```", text, re.S)
    values = yaml.safe_load(example)
    style = Style().with_values(values, "")
    assert set(values) == {
        name for name in Style.__dataclass_fields__ if name not in ("folders", "places")
    }
    assert style.column and style.digits


# -- papers ----------------------------------------------------------------------------------------
def test_every_paper_that_is_named_has_an_entry() -> None:
    known = entries((CONF / "references.bib").read_text(encoding="utf-8"))
    named = set()
    for group in ("method", "metric", "generator"):
        for config in group_options(group).values():
            cite = config.get("cite") or []
            named |= set(cite if isinstance(cite, list) else [cite])
    assert named == set(known)
    for key, entry in known.items():
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.M))
        assert {"title", "author", "year"} <= set(fields), key
        # The key is the first author's name, the year and a word.
        first = re.sub(r"[{}\\'\"]", "", fields["author"].split(",")[0]).lower()
        assert key.startswith(f"{first}{fields['year']}"), key


def test_the_entry_of_a_method_is_the_paper_that_its_class_names() -> None:
    """`citation` of the class is written by hand: first author and year must agree."""
    for name, config in group_options("method").items():
        target = config.get("_target_")
        if not target or not config.get("cite") or name == "direction_ffhq":
            continue
        module, _, kind = target.rpartition(".")
        citation = getattr(importlib.import_module(module), kind).citation
        first = re.match(r"\w+", citation)[0].lower().replace("ä", "a").replace("ö", "o")
        assert config["cite"].startswith(first) and config["cite"][len(first) :][:4] in citation


def test_a_report_lists_the_papers_of_what_stands_in_it(results: Results, tmp_path: Path) -> None:
    cited = cited_in(results)
    # GradCtrl, and the network of its world; nothing of `mine`, which names no paper.
    assert list(entries(cited.bibtex)) == ["chen2022gradctrl", "karras2020stylegan2"]
    (numbers,) = every_setting(results)
    tex = latex.tables(numbers, Style().theme(results), cited=cited)["accuracy"]
    assert r"GradCtrl \cite{chen2022gradctrl}" in " ".join(re.findall(r"^% (.*)$", tex, re.M))
    # A user's own entry lies beside the user's own YAML.
    conf = tmp_path
    (conf / "method").mkdir(parents=True)
    (conf / "method" / "mine.yaml").write_text("name: mine\ncite: [me2030, gone2031]\n")
    (conf / "references.bib").write_text("@misc{me2030, title = {A {brace}}, year = {2030}}\n")
    cited = cited_in(results, [conf])
    assert cited.methods["mine"] == ["me2030", "gone2031"]
    assert entries(cited.bibtex)["me2030"] == "@misc{me2030, title = {A {brace}}, year = {2030}}"
    assert "No entry for the key gone2031" in cited.bibtex
    assert cited.missing == ["gone2031"] and "gone2031: write it into" in cited.problem


# -- figures ---------------------------------------------------------------------------------------
def test_every_figure_has_the_width_that_was_asked_for(root: Path, tmp_path: Path) -> None:
    style = Style(column="one", font="serif")
    folder = report(root, tmp_path, files=True, style=style).parent / "figures"
    pages = sorted(folder.glob("*.pdf"))
    assert len(pages) >= 3
    for page in pages:
        pdf = page.read_bytes()
        width = re.search(rb"/MediaBox \[ ?0 0 ([0-9.]+) ", pdf)
        assert width and float(width[1]) / 72 == pytest.approx(3.3, abs=0.01), page.name
        assert b"/Type3" not in pdf and re.search(rb"Times|Serif|STIX", pdf), page.name
    assert matplotlib.rcParams["font.family"] == ["sans-serif"]


def test_type_is_never_below_seven_points_in_print() -> None:
    for column, inches in (("one", 3.3), ("two", 6.9), ("", 3.3)):
        figure = new_figure(5.5, 3.0)
        axes = figure.add_subplot()
        axes.set_title("small", fontsize=6)
        axes.set_xlabel("large", fontsize=20)
        assert to_paper(figure, column).get_figwidth() == inches
        sizes = [text.get_fontsize() for text in figure.findobj(Text)]
        assert min(sizes) >= 7 and axes.xaxis.label.get_fontsize() == pytest.approx(20 * SCALE)


def test_panels_of_a_column_stand_below_each_other() -> None:
    wide = make_theme(["a"])
    narrow = wide.with_width(3.3 / SCALE)
    assert (
        wide.panels_per_row(7, 4),
        narrow.panels_per_row(7, 4),
        narrow.panels_per_row(1, 4),
    ) == (4, 2, 1)
    assert narrow.panels_per_row(5, 5, each=100) == 1 and list(narrow) == list(wide)


def test_numbers_do_not_follow_the_style(results: Results) -> None:
    plain = every_setting(results)[0].means.set_index("method")
    (styled,) = every_setting(results, Style(methods=("random", "mine", "gradctrl"), digits=1))
    assert styled.order == ["random", "mine", "gradctrl"]
    pd.testing.assert_frame_equal(styled.means.set_index("method").loc[plain.index], plain)


@pytest.mark.parametrize("limits", [(17, 1400), (1100, 9000), (0.3, 2.5)])
@pytest.mark.parametrize(("width", "in_a_decade"), [(1.5, 1), (2.2, 1), (9.0, 3)])
def test_the_ticks_of_a_cost_do_not_touch(
    limits: tuple[float, float], width: float, in_a_decade: int
) -> None:
    figure = new_figure(width, 1.5)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(limits)
    axes.xaxis.set_major_locator(SpacedLogLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    figure.draw_without_rendering()
    inside = [
        label.get_window_extent()
        for label, at in zip(axes.get_xticklabels(), axes.get_xticks())
        if limits[0] <= at <= limits[1]
    ]
    assert len(inside) >= in_a_decade * np.floor(np.log10(limits[1] / limits[0]))
    assert all(left.x1 < right.x0 for left, right in pairwise(inside))
