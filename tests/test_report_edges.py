"""The report where there is little, where names are unusual, and where settings differ."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine
from omegaconf import OmegaConf

from editbench.base.errors import EditbenchError
from editbench.base.files import seal_folder
from editbench.figures.drawing import Drawing, Records
from editbench.figures.panels import new_figure
from editbench.figures.theme import Theme
from editbench.report import (
    Style,
    every_setting,
    figures,
    latex,
    load,
    report,
)
from editbench.report.cells import markdown_safe
from editbench.report.drawings import metric_figures
from editbench.report.files import ReportFiles
from tests.fake_records import fake_run, metric_rows, printed_table, report_of, start_samples


def caption(file: Path) -> str:
    return caption_of(file.read_text(encoding="utf-8"))


def caption_of(table: str) -> str:
    return re.findall(r"\\caption\{.*", table)[0]


def conclusion(page: Path) -> str:
    return re.findall(r"<p>(Best methods, .*?)</p>", page.read_text(encoding="utf-8"))[0]


# -- names -----------------------------------------------------------------------------------------
def test_settings_with_long_names_have_files_of_their_own(tmp_path: Path) -> None:
    """Their names agree in more characters than a file's name has."""
    for end in ("one", "two"):
        fake_run(tmp_path, "alpha", "smile", generator=f"{'long_' * 20}{end}", tag=end)
    folder = report_of(tmp_path).parent / "latex"
    files = sorted(folder.glob("accuracy*_standalone.tex"))
    assert len(files) == 2 and all(len(path.name) < 120 for path in files)
    read = re.findall(r"\\input\{(accuracy.*)\}", (folder / "tables.tex").read_text())
    assert len(set(read)) == 2


def test_attributes_in_another_script_have_pictures_of_their_own(tmp_path: Path) -> None:
    pictures = torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8)
    for attribute in ("笑顔", "長髪"):
        fake_run(tmp_path, "alpha", attribute, pictures=pictures)
    folder = report_of(tmp_path, draws=["none"]).parent / "figures"
    assert len(list(folder.glob("strips_*.png"))) == 2


def test_a_label_of_the_user_is_told_apart_by_the_setting(tmp_path: Path) -> None:
    for generator in ("faces32", "ffhq"):
        fake_run(tmp_path, "alpha", "smile", generator=generator, tag=generator)
    style = Style(labels={"accuracy": "tab:main"})
    report_of(tmp_path, style=style)
    labels = []
    for path in (tmp_path / "report" / "latex").glob("accuracy*.tex"):
        labels += re.findall(r"\\label\{(.*)\}", path.read_text())
    assert sorted(labels) == ["tab:main_faces32", "tab:main_ffhq"]


def test_titles_with_brackets_are_printed_whole(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile")
    style = Style(titles={"ad_at": "AD [sigma]", "accuracy": "share [/s]"})
    out = printed_table(load(tmp_path), 160, style=style)
    assert "AD [sigma] ↓" in out and "share [/s] ↑" in out


def test_a_method_and_a_world_that_are_written_alike_keep_their_papers(tmp_path: Path) -> None:
    fake_run(tmp_path, "mine", "smile", generator="world")
    for group, name, key in (("method", "mine", "a2020"), ("generator", "world", "b2021")):
        file = tmp_path / "conf" / group / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"title: Same\ncite: {key}\n")
    style = Style(folders=(tmp_path / "conf",))
    report_of(tmp_path, style=style)
    text = (tmp_path / "report" / "latex" / "accuracy.tex").read_text()
    assert r"Same \cite{a2020}; Same \cite{b2021}" in text


# -- columns ---------------------------------------------------------------------------------------
def test_a_narrow_terminal_shows_the_columns_that_were_chosen(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile")
    out = printed_table(load(tmp_path), 80, style=Style(columns=("fit_seconds", "labels_used")))
    assert re.search(r"smile +alpha +1\.5 +60", out)


@pytest.mark.parametrize("width", [70, 100, 150])
def test_no_number_of_a_table_is_broken_by_a_narrow_terminal(tmp_path: Path, width: int) -> None:
    methods = ("a_method_of_a_long_name", "another_method_of_a_long_name", "random")
    for method, share in zip(methods, (0.6, 0.55, 0.5)):
        for attribute in ("smile", "age"):
            values = (np.arange(200) < 200 * share).astype(float)
            rows = metric_rows(share)
            fake_run(tmp_path, method, attribute, rows, samples=start_samples(accuracy=values))
    printed = []
    for columns in (width, 1000):
        text = printed_table(load(tmp_path), columns)
        printed.append(text[text.index("means over the same") : text.index("each row:")])
    narrow, wide = printed
    assert all(len(line) <= width for line in narrow.splitlines())
    # Each interval and name of the wide table is whole in the narrow one, which shows fewer.
    intervals = set(re.findall(r"[\d.]+–[\d.]+", narrow))
    assert intervals and intervals <= set(re.findall(r"[\d.]+–[\d.]+", wide))
    assert all(method in narrow for method in methods)


def test_a_table_of_costs_alone_has_rows_of_one_length(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile")
    fake_run(tmp_path, "alpha", "age", status="skipped", reason="no control")
    style = Style(columns=("peak_memory_mb",))
    report_of(tmp_path, style=style)
    text = (tmp_path / "report" / "table.md").read_text(encoding="utf-8")
    table = text.split("\n\n")[2].splitlines()
    assert table[0] == "| attribute | method |" and {line.count("|") for line in table} == {3}


def test_costs_of_a_gpu_have_the_peak_memory_and_say_that_it_is_a_maximum(tmp_path: Path) -> None:
    for device in ("cpu", "cuda:0"):
        fake_run(tmp_path / device, "alpha", "smile", made={"device": device})
        page = report_of(tmp_path / device)
        texts = [
            page.read_text(encoding="utf-8"),
            printed_table(load(tmp_path / device)),
            (page.parent / "latex" / "cost.tex").read_text(encoding="utf-8"),
            (page.parent / "table.md").read_text(encoding="utf-8"),
        ]
        for text in texts:
            assert (
                ("peak MiB" in text) == ("peak memory is the maximum" in text) == (device != "cpu")
            )


# -- what is told ----------------------------------------------------------------------------------
def test_the_caption_of_accuracy_names_the_cross_only_where_there_is_one(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile")
    fake_run(tmp_path, "beta", "smile")
    assert "cross below 0" not in report_of(tmp_path, draws=["accuracy"]).read_text(
        encoding="utf-8"
    )
    fake_run(tmp_path, "beta", "age", status="skipped", reason="no control found")
    fake_run(tmp_path, "alpha", "age")
    page = report_of(tmp_path, draws=["accuracy"]).read_text(encoding="utf-8")
    assert "A thin cross below 0 marks a method that was skipped or failed" in page


@pytest.mark.parametrize("count", [1, 2, 3])
def test_two_seeds_that_differ_are_said_to_be_few(tmp_path: Path, count: int) -> None:
    for seed in range(count):
        for method, share in (("same", 0.5), ("varies", 0.2 + 0.3 * seed)):
            values = (np.arange(200) < 200 * share).astype(float)
            rows = metric_rows(share)
            samples = start_samples(accuracy=values)
            fake_run(tmp_path, method, "smile", rows, seed=seed, samples=samples)
    told = printed_table(load(tmp_path, by_seed=False))
    found = re.findall("two seeds: .* three seeds or more (.*)", told)
    assert found == (["(varies/smile)"] if count == 2 else [])


def test_the_conclusion_counts_the_cells_that_a_floor_is_compared_with(tmp_path: Path) -> None:
    shares = {"good": 0.6, "weak": 0.1, "random": 0.1}
    for method, share in shares.items():
        values = (np.arange(200) < 200 * share).astype(float)
        fake_run(
            tmp_path, method, "smile", metric_rows(share), samples=start_samples(accuracy=values)
        )
    said = conclusion(report_of(tmp_path))
    assert said.endswith("Of 2 numbers, 1 not clear of Random direction.")
    for methods in (("good", "weak"), ("random",)):
        page = report_of(tmp_path, style=Style(methods=methods))
        assert "floor" not in conclusion(page)


def ad_samples(starts: int) -> pd.DataFrame:
    """60 starts, of which some reach the effect at which AD is read."""
    samples = start_samples(
        accuracy=np.arange(60) % 2 * 1.0, ad_at=np.where(np.arange(60) < starts, 0.3, np.nan)
    )
    return samples.assign(x=np.where(samples["metric"] == "ad_at", 1.0, np.nan))


def test_a_table_of_means_says_of_ad_what_it_is_over_and_what_its_marks_mean(
    tmp_path: Path,
) -> None:
    """Few starts reach the effect on age, so that AD is over fewer attributes than accuracy."""
    for method, learned in (("sure", 0.9), ("guessing", 0.5)):
        for attribute in ("smile", "hat", "age"):
            samples = ad_samples(5 if attribute == "age" else 40)
            fake_run(tmp_path, method, attribute, samples=samples, made={"learned": learned})
    folder = report_of(tmp_path).parent / "latex"
    told = caption(folder / "means.tex")
    assert "Mean: over 3 of 3 attributes, 180 starts (age, hat, smile)" in told
    assert "Mean AD: over 2 of 3 attributes, 80 starts (hat, smile)" in told
    text = (folder / "means.tex").read_text()
    assert r"0.50\textsuperscript{\ddag}" in text
    assert r"\textsuperscript{\ddag}not learned" in text and "(guessing)" in text
    results = load(tmp_path, by_seed=False)
    (numbers,) = every_setting(results)
    # Of AD alone nothing is over the set of accuracy; the first of two columns has no interval.
    for columns, part, other in (
        (("ad_at",), "Mean AD: over 2", "Mean: over"),
        (("success_rate", "accuracy"), "with the 95 \\% interval below", "Mean AD"),
    ):
        style = Style(columns=columns)
        told = caption_of(latex.tables(numbers, style.theme(results), style)["means"])
        assert part in told and other not in told


def test_a_caption_says_once_that_there_is_no_mean(tmp_path: Path) -> None:
    for method in ("alpha", "beta"):
        for attribute in ("smile", "hat", "age"):
            samples = ad_samples(40 if attribute == "age" else 5)
            fake_run(tmp_path, method, attribute, samples=samples)
    told = caption(report_of(tmp_path).parent / "latex" / "ad.tex")
    assert told.lower().count("no mean") == 1 and "starts on only 1 of 3 attributes" in told


def test_worlds_that_differ_are_told_apart(tmp_path: Path) -> None:
    for k, generator in enumerate(("faces32", "ffhq")):
        made = {
            "agreement": {"smile": {"agreement": 0.7 + 0.2 * k, "kappa": None}},
            "start_warning": "far",
            "start_distance": {"target": 0.9},
        }
        fake_run(tmp_path, "alpha", "smile", generator=generator, tag=generator, made=made)
    # The same name after another training: both cards stand in the report.
    for k in range(2):
        made = {"world_card": {"bars": 9, "missed": [f"bar {k}"]}}
        fake_run(tmp_path, f"m{k}", "hair_color", made=made)
    page = report_of(tmp_path).read_text(encoding="utf-8")
    for share in (70, 90):
        assert f"share of samples with the same class: smile {share}%" in page
    assert re.search(r"<h2>[^<]*FFHQ[^<]*</h2>", page)
    assert "<li>bar 0</li>" in page and "<li>bar 1</li>" in page


def test_far_starts_are_told_by_the_title_of_their_attribute(tmp_path: Path) -> None:
    made = {"start_warning": "far", "start_distance": {"target": 0.9}}
    fake_run(tmp_path, "alpha", "long_hair", made=made)
    assert "median distance is 0.9 σ (long hair)" in report_of(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("fit_seconds", "| alpha | smile | 0.5 | 1.500 |"),
        ("wrong_direction", "| alpha | smile | 0.5 | −0.300 (−0.369 to −0.231) |"),
        ("accuracy", "| alpha | smile | 0.5 | 0.500 (0.431–0.569) |"),
    ],
)
def test_a_published_number_of_any_column(tmp_path: Path, metric: str, said: str) -> None:
    """One without an interval, and one with a sign."""
    folder = fake_run(tmp_path, "alpha", "smile", metric_rows(wrong_direction=-0.3))
    config = OmegaConf.load(folder / "config.yaml")
    config.published = {"source": "P", "metric": metric, "values": {"alpha": {"smile": 0.5}}}
    OmegaConf.save(config, folder / "config.yaml")
    seal_folder(folder)
    report_of(tmp_path)
    assert said in (tmp_path / "report" / "table.md").read_text(encoding="utf-8")


def test_the_page_writes_a_published_number_by_the_title_of_its_column(tmp_path: Path) -> None:
    """AD is an abbreviation, in a heading too."""
    folder = fake_run(tmp_path, "alpha", "smile")
    config = OmegaConf.load(folder / "config.yaml")
    config.published = {
        "source": "P",
        "setting": "faces",
        "metric": "ad_at",
        "values": {"alpha": {"smile": 0.5}},
    }
    OmegaConf.save(config, folder / "config.yaml")
    seal_folder(folder)
    assert "faces. AD: the paper's numbers" in report_of(tmp_path).read_text(encoding="utf-8")


def test_only_a_page_with_images_offers_to_show_them(tmp_path: Path) -> None:
    for name, pictures in (("without", None), ("with", torch.zeros(1, 3, 3, 8, 8).byte())):
        fake_run(tmp_path / name, "alpha", "smile", pictures=pictures)
        text = report_of(tmp_path / name).read_text(encoding="utf-8")
        assert ("Click a number to see its" in text) == (pictures is not None)


def test_paired_differences_are_listed_by_the_titles_of_their_columns(tmp_path: Path) -> None:
    value = np.random.default_rng(0).random(200)
    for method in ("alpha", "beta"):
        samples = start_samples(accuracy=(value > 0.5).astype(float), ad_at=value)
        samples["x"] = np.where(samples["metric"] == "ad_at", 1.0, np.nan)
        fake_run(tmp_path, method, "smile", samples=samples)
    text = report_of(tmp_path).read_text(encoding="utf-8")
    assert '<td class="t" data-v="ad_at">AD</td>' in text
    assert '<option value="ad_at">AD</option>' in text


def test_a_row_that_lost_seeds_says_how_many_it_has(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile", seed=0)
    fake_run(tmp_path, "alpha", "smile", seed=1, status="failed", reason="no disk")
    page = report_of(tmp_path)
    assert "<td>only 1 seed</td>" in page.read_text(encoding="utf-8")
    text = (page.parent / "table.md").read_text(encoding="utf-8")
    assert "- only 1 seed: alpha on smile: seed 1 failed: no disk" in text


# -- figures that fail -----------------------------------------------------------------------------
def blank(theme: Theme) -> Figure:
    figure = new_figure(5.5, 2.0)
    figure.add_subplot()
    return figure


def one_blank(records: Records, theme: Theme) -> list[Drawing]:
    return [Drawing("blank", "Blank", "", blank)]


def damaged(records: Records, theme: Theme) -> list[Drawing]:
    def draw(theme: Theme) -> Figure:
        raise EditbenchError("these pictures are damaged")

    return [Drawing("damaged", "Damaged", "", draw)]


def test_a_figure_is_prepared_once_and_drawn_for_the_page_and_for_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = []
    drawn_at = []

    def draw(theme: Theme) -> Figure:
        drawn_at.append(theme.width)
        return blank(theme)

    def prepare(records: Records, theme: Theme) -> list[Drawing]:
        prepared.append(theme.width)
        return [Drawing("blank", "Blank", "", draw)]

    monkeypatch.setattr(f"{__name__}.one_blank", prepare)
    fake_run(tmp_path, "alpha", "smile", metrics={"m": {"figure": f"{__name__}.one_blank"}})
    page = report_of(tmp_path, draws=("blank",), style=Style(column="one"))
    for kind in ("svg", "pdf", "png"):
        assert (page.parent / "figures" / f"blank.{kind}").exists()
    # 0.74 is the factor by which type is made smaller for print; a column has 3.3 inches.
    assert prepared == [None] and drawn_at == [None, pytest.approx(3.3 / 0.74)]


def test_a_figure_of_damaged_pictures_costs_itself_alone(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile", metrics={"m": {"figure": f"{__name__}.damaged"}})
    page = report(tmp_path, files=False).read_text(encoding="utf-8")
    assert "these pictures are damaged" in page and "<h3>Accuracy</h3>" in page


def test_a_figure_that_a_metric_gains_later_draws_finished_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReportFiles, "_draw_one", lambda *_: "<svg/>")  # its title tells enough
    options = {"_target_": "a.Metric"}
    fake_run(tmp_path, "alpha", "smile", metrics={"m": options, "locality": options})
    (tmp_path / "conf" / "metric").mkdir(parents=True)
    file = tmp_path / "conf" / "metric" / "m.yaml"
    file.write_text(f"_target_: a.Metric\nfigure: {__name__}.one_blank\n")
    style = Style(folders=(tmp_path / "conf",))
    assert "<h3>Blank</h3>" in report_of(tmp_path, draws=("blank",), style=style).read_text()
    # That of a metric of the package is known without a folder.
    shipped = {"locality": "editbench.metrics.locality.figure.draw"}
    assert metric_figures(load(tmp_path)) == shipped


def test_no_figure_of_means_where_there_are_none(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile")
    fake_run(tmp_path, "alpha", "age", status="skipped", reason="no control")
    page = report(tmp_path, files=False).read_text(encoding="utf-8")
    assert "<h3>Accuracy</h3>" in page and "figure trade" not in page


class Shaky(LayoutEngine):
    """Places panels as the solver does, to rounding."""

    _adjust_compatible = False
    _colorbar_gridspec = True

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error

    def execute(self, fig: Figure) -> None:
        (part,) = fig.subfigs
        places = np.array([[0.1 + self.error, 0.1], [0.9, 0.9 - self.error]])
        part.bbox_relative.set_points(places)
        for axes in fig.axes:
            axes.set_position([0.2, 0.2 + self.error, 0.7, 0.7 - self.error])
            axes.set_in_layout(True)


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_the_last_digits_of_a_layout_change_no_byte(kind):
    made = set()
    for error in (0.0, 1e-13, -1e-13):
        figure = new_figure(4.0, 3.0)
        figure.set_layout_engine(Shaky(error))
        axes = figure.subfigures(1, 1).subplots()
        axes.plot([0, 1], [1 / 3, 2 / 3])
        made.add(figures.render(figure, kind))
        # A smaller figure is laid out again.
        assert axes.get_in_layout()
    assert len(made) == 1


def replace_table(folder: Path, file: str, table: pd.DataFrame) -> None:
    table.to_parquet(folder / f"{file}.parquet")
    (folder / "checksums.json").unlink()
    seal_folder(folder)


@pytest.mark.parametrize(
    ("file", "column", "wrong"),
    [("rows", "value", "high"), ("samples", "start", np.nan), ("samples", "start", 0.5)],
)
def test_a_record_with_values_of_a_wrong_kind_is_left_out(tmp_path, file, column, wrong):
    folders = {}
    for method in ("alpha", "beta"):
        samples = start_samples(accuracy=np.array([0.0, 1.0]))
        folders[method] = fake_run(tmp_path, method, "smile", samples=samples)
    table = pd.read_parquet(folders["beta"] / f"{file}.parquet")
    table[column] = table[column].astype(object)
    table.loc[0, column] = wrong
    kind = "str" if isinstance(wrong, str) else "float64"
    replace_table(folders["beta"], file, table.astype({column: kind}))
    found = load(tmp_path)
    assert found.runs["method"].tolist() == ["alpha"]
    assert [problem.name for problem in found.problems] == [folders["beta"].name]


def test_missing_values_of_a_record_are_missing_in_its_table(tmp_path):
    rows = metric_rows().drop(columns=["version", "higher_is_better"])
    rows.loc[0, "note"] = None
    replace_table(fake_run(tmp_path, "alpha", "smile"), "rows", rows)
    fake_run(tmp_path, "beta", "smile", metric_rows().assign(newer=1.0))
    found = load(tmp_path).rows
    first = found[found["run_id"].str.startswith("alpha")]
    assert len(first) == len(rows) and first["note"].iloc[0] == ""
    assert first[["version", "higher_is_better"]].isna().all(axis=None)
    second = found[found["run_id"].str.startswith("beta")]
    assert (second["version"] == 1.0).all() and "newer" not in found
    better = dict(zip(second["metric"], second["higher_is_better"]))
    assert better["accuracy"] is True and better["ad"] is False and pd.isna(better["path_length"])


def test_a_carriage_return_does_not_end_a_line_of_markdown() -> None:
    assert markdown_safe("one\r\ntwo\rthree\n| four") == "one two three \\| four"
