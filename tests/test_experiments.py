"""Experiments: every file is whole at every budget, names its source, and prints the paper's numbers beside ours."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class
from omegaconf import OmegaConf

from editbench.bank.spec import StartsSpec
from editbench.base.conf import CONF, group_options, read_yaml
from editbench.base.files import seal_folder
from editbench.base.instantiate import LABELS
from editbench.figures.theme import Theme
from editbench.report.load import load
from editbench.report.published import published
from editbench.report.text_tables import published_markdown
from editbench.worlds.faces import load_scorer
from tests.fake_records import fake_run, metric_rows, report_of

THIRD_PARTY = {
    "digiface",
    "ffhq",
    "ffhq_latents",
    "mnist_digits",
}  # of data that others published, and of no table
ALL = group_options("experiment")
OWN = {
    "demo",
    "entanglement_dial",
    "linearity_dial",
    "curvature_dial",
    "ground_truth",
    "ground_truth_cd",
    "real_images",
}  # that no paper has
PAPERS = {name: config for name, config in ALL.items() if name not in THIRD_PARTY | OWN}
METHODS = group_options("method")
BUDGETS = ("demo", "curves", "standard", "paper")
PAPER = {  # methods.md, part C: GradCtrl Table 1
    ("interfacegan", "gender"): 0.5859,
    ("interfacegan", "smile"): 0.9033,
    ("interfacegan", "eyeglasses"): 0.5946,
    ("interfacegan", "age"): 0.5620,
    ("ganspace", "gender"): 0.2770,
    ("ganspace", "smile"): 0.6146,
    ("ganspace", "eyeglasses"): "x",
    ("ganspace", "age"): 0.0063,
    ("stylespace", "gender"): 0.0812,
    ("stylespace", "smile"): 0.7390,
    ("stylespace", "eyeglasses"): 0.3510,
    ("stylespace", "age"): 0.0034,
    ("gradctrl", "gender"): 0.6937,
    ("gradctrl", "smile"): 0.9254,
    ("gradctrl", "eyeglasses"): 0.6626,
    ("gradctrl", "age"): 0.6139,
}


@pytest.fixture(scope="module")
def judge():
    return load_scorer("judge")


@pytest.fixture(scope="module")
def composed():
    """Overrides -> configuration, without the checks of names that the command line has."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield functools.cache(lambda *words: compose("run", overrides=list(words)))


def sweep(config: dict, budget: str, name: str) -> dict[str, list[str]]:
    """What `run -m` sweeps: the experiment's lists, and those of its own preset for the budget."""
    own = CONF / "preset" / f"{name}_{budget}.yaml"
    params = dict(config["hydra"]["sweeper"]["params"])
    if own.exists():
        more = OmegaConf.to_container(OmegaConf.load(own))
        params |= ((more.get("hydra") or {}).get("sweeper") or {}).get("params", {})
    parsed = [
        OverridesParser.create().parse_override(f"{key}={value}") for key, value in params.items()
    ]
    return {
        one.key_or_group: list(one.sweep_string_iterator())
        if one.is_sweep_override()
        else [one.get_value_element_as_str()]
        for one in parsed
    }


def methods_of(name: str, budget: str) -> list[str]:
    """The methods that an experiment sweeps, or its one."""
    alone = PAPERS[name].get("method", {}).get("name", "gradctrl")
    return sweep(PAPERS[name], budget, name).get("method", [alone])


def sets_methods(name: str, budget: str) -> bool:
    """Whether an experiment, or its own preset for the budget, has settings for its methods."""
    own = CONF / "preset" / f"{name}_{budget}.yaml"
    preset = read_yaml(own) if own.exists() else {}
    return "method" in PAPERS[name] or "method" in preset


def test_a_straight_path_may_depend_on_the_start_where_poses_are_edited(composed):
    """A pose between two others is the target of starts on either side of it."""
    seen = []
    for name, config in PAPERS.items():
        params = sweep(config, "demo", name)
        for method in ("interfacegan", "interfacegan_conditional"):
            if method in params.get("method", []) and "yaw" in params.get("attribute", []):
                job = composed(f"experiment={name}", "budget=demo", f"method={method}")
                assert job.method.multiclass == "pairwise", f"{name}, {method}"
                seen.append(name)
    assert {"chen2022_multiclass", "khrulkov2021_cd"} <= set(seen)


@pytest.fixture(scope="module")
def first_job(composed):
    """(experiment, budget, method) -> configuration of its first job, by default of its first method."""

    def compose_first(name: str, budget: str, method: str | None = None):
        params = sweep(PAPERS[name], budget, name)
        params.pop("method", None)
        method = method or methods_of(name, budget)[0]
        words = [f"{key}={values[0]}" for key, values in params.items()]
        return composed(f"experiment={name}", f"budget={budget}", f"method={method}", *words)

    return compose_first


def test_the_experiments_of_the_brief_are_there():
    assert set(PAPERS) >= {
        "chen2022_table1",
        "chen2022_fig7a",
        "chen2022_fig7b",
        "chen2022_samples",
        "chen2022_multiclass",
        "khrulkov2021_cd",
        "cherepkov2021_table1",
    }


@pytest.mark.parametrize("name", PAPERS)
def test_a_name_is_an_author_a_year_and_a_thing(name):
    assert re.fullmatch(r"[a-z]+(19|20)\d\d_[a-z0-9_]+", name)
    text = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    year = re.search(r"\d{4}", name).group()
    assert text[1].startswith("# ") and year in text[1]
    assert any(f"editbench run -m experiment={name} budget=demo" in line for line in text)
    assert PAPERS[name]["name"] == name and PAPERS[name]["out"] == f"runs/{name}"


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", PAPERS)
def test_its_jobs_compose_with_attributes_and_methods_that_exist(name, budget, judge, first_job):
    params = sweep(PAPERS[name], budget, name)
    methods = methods_of(name, budget)
    named = params.get("attribute", [PAPERS[name]["attribute"]])
    assert set(methods) <= set(METHODS) and set(named) <= set(judge.attributes.names)
    # What the demo changes of a method alone, test_conformance.py composes and builds. Only an
    # experiment with settings for all its methods may not suit one of them.
    every = budget == "demo" and sets_methods(name, budget)
    for method in methods if every else methods[:1]:
        cfg = first_job(name, budget, method)
        assert cfg.name == name and cfg.method.name == method
        options = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in cfg.method.items()
            if key not in (*LABELS, "_target_")
        }
        get_class(cfg.method["_target_"])(**options)
        asked = cfg.evaluated or judge.attributes.names
        assert set(named) <= set(asked) <= set(judge.attributes.names)
        candidates = round(cfg.bank.n * (1 - cfg.bank.fit - cfg.bank.tune))
        # Both readings of near fit; whoever starts anywhere has no pool.
        readings = {cfg.starts.near, "any" if cfg.starts.near == "any" else "target"}
        for near in readings:
            StartsSpec(**{**cfg.starts, "near": near}).check_enough(candidates, len(asked))
        if cfg.target is not None:
            judge.attributes.class_index(cfg.attribute, cfg.target)


@pytest.mark.parametrize("name", sorted(THIRD_PARTY | OWN))
def test_an_experiment_of_no_paper_composes(name, composed):
    cfg = composed(f"experiment={name}")
    assert cfg.name == name
    # `editbench demo` gives the demo's folder by itself.
    assert cfg.out == (f"runs/{name}" if name != "demo" else "runs")


@pytest.mark.parametrize("name", PAPERS)
def test_metrics_are_built_and_produce_what_was_published(name, judge, first_job):
    cfg = first_job(name, "standard")
    produced = {"served"}
    for part in cfg.metric.values():
        metric = get_class(part["_target_"])(
            **{key: value for key, value in part.items() if key not in ("_target_", *LABELS)}
        )
        produced |= set(metric.produces)
    assert cfg.published.metric in produced
    if "control_disentanglement" in cfg.metric:
        steps = cfg.metric.control_disentanglement.steps
        assert cfg.engine.max_steps >= cfg.engine.sweep_steps >= steps and cfg.starts.near == "any"
        assert steps * cfg.method.delta == pytest.approx(
            METHODS["neural_ode"]["horizon"]
        )  # t runs over T
    if "logit_scatter" in cfg.metric:
        scatter = cfg.metric.logit_scatter
        assert scatter.other in (cfg.evaluated or judge.attributes.names)
        assert scatter.other != cfg.attribute
        judge.attributes.class_index(cfg.attribute, scatter.source)
        judge.attributes.class_index(scatter.other, scatter.other_class)


@pytest.mark.parametrize("name", PAPERS)
def test_a_source_is_named_and_numbers_are_numbers_or_absent(name):
    block = PAPERS[name]["published"]
    assert set(block) - {"resolution"} == {"source", "setting", "metric", "values"}
    assert len(block["source"]) > 20
    assert block["setting"]
    assert re.search(r"\b20\d\d\b", block["source"]).group() == re.search(r"\d{4}", name).group()
    for method, per in (block["values"] or {}).items():
        assert method in METHODS
        for value in per.values():
            assert value == "x" or isinstance(value, (int, float))


def test_table_1_of_chen_is_the_papers():
    values = PAPERS["chen2022_table1"]["published"]["values"]
    assert {
        (method, attribute): value
        for method, per in values.items()
        for attribute, value in per.items()
    } == PAPER


@pytest.mark.parametrize("name", ["chen2022_table1", "chen2022_fig7a"])
def test_methods_that_draw_examples_are_compared_over_several_seeds(name):
    seeds = {budget: sweep(PAPERS[name], budget, name)["seed"] for budget in BUDGETS}
    # The demo's budget is for minutes; `editbench demo` has five seeds of its own.
    assert seeds.pop("demo") == ["0"]
    assert set(map(len, seeds.values())) == {5}


@pytest.mark.parametrize("budget", BUDGETS)
def test_paper_budgets_have_the_papers_counts(budget, first_job):
    cfg = first_job("chen2022_table1", budget)
    counts = {
        "demo": (24000, 600),
        "curves": (24000, 600),
        "standard": (50000, 1400),
        "paper": (500000, 3000),
    }
    assert (cfg.bank.n, cfg.starts.n) == counts[budget]
    cfg = first_job("khrulkov2021_cd", budget)
    assert cfg.starts.n / 7 == {"demo": 120, "curves": 120, "standard": 400, "paper": 2000}[budget]


@pytest.mark.parametrize(
    "file", sorted((CONF / "preset").glob("*.yaml")), ids=lambda file: file.stem
)
def test_a_preset_belongs_to_a_method_or_an_experiment(file):
    method, infix, experiment = file.stem.partition("_in_")
    if infix:
        assert method in METHODS and experiment in ALL
        return
    stem, _, budget = file.stem.rpartition("_")
    assert budget in BUDGETS and (stem in METHODS or stem in ALL)


def test_the_documentation_lists_every_experiment():
    text = (CONF.parent / "docs" / "experiments.md").read_text()
    for name in ALL:
        assert f"experiment={name}" in text, f"{name} is not in docs/experiments.md"


# -- in the report ---------------------------------------------------------------------------------
def published_run(root: Path, method: str, attribute: str, block: dict, **more) -> None:
    folder = fake_run(root, method, attribute, **more)
    config = OmegaConf.load(folder / "config.yaml")
    OmegaConf.save(OmegaConf.merge(config, {"published": block}), folder / "config.yaml")
    seal_folder(folder)


def test_published_numbers_stand_beside_ours(tmp_path):
    block = {
        "source": "Chen, Table 1",
        "setting": "FFHQ",
        "metric": "accuracy",
        "values": {
            "alpha": {"gender": 0.6937, "smile": 0.9254, "age": "x"},
            "beta": {"smile": 0.0063},
            "gamma": {"age": 0.1},
        },
    }
    published_run(tmp_path, "alpha", "smile", block, rows=metric_rows(0.7312))
    published_run(tmp_path, "alpha", "age", block, rows=metric_rows(0.25))
    published_run(tmp_path, "beta", "smile", block, status="skipped", reason="no control")
    (one,) = published(load(tmp_path), Theme({}))
    rows = {(row["method"], row["attribute"]): row for row in one.rows}
    assert rows["alpha", "smile"]["paper"] == "0.9254" and rows["alpha", "smile"]["value"] == 0.7312
    assert rows["alpha", "smile"]["ours"].startswith("0.731 (")
    assert rows["alpha", "age"]["paper"] == "no control" and rows["alpha", "age"]["value"] == 0.25
    assert rows["alpha", "gender"]["ours"] == "attribute not in these runs"
    assert rows["gamma", "age"]["ours"] == "not run"
    assert rows["beta", "smile"]["ours"] == "skipped"
    page = report_of(tmp_path)
    text, table = page.read_text(), (page.parent / "table.md").read_text()
    for found in (text, table):
        assert "Chen, Table 1" in found
        assert "0.9254" in found
        assert "0.731 (" in found
        assert "0.0063" in found


def test_published_numbers_stand_beside_means_over_seeds_with_their_marks(tmp_path):
    block = {"source": "Chen", "metric": "ad_at", "values": {"alpha": {"smile": 5.0}}}
    for seed, auc in ((0, 0.9), (1, 0.7)):
        rows = metric_rows(note="few")
        published_run(
            tmp_path, "alpha", "smile", block, rows=rows, seed=seed, made={"learned": auc}
        )
    (one,) = published(load(tmp_path, by_seed=False), Theme({}))
    (row,) = one.rows
    assert "†" in row["ours"]
    assert "an AUC of 0.80" in row["why"]


def test_a_count_of_served_attributes_and_a_source_without_numbers(tmp_path):
    block = {
        "source": "Horses",
        "setting": "layer 4",
        "metric": "served",
        "values": {"alpha": {"all": 6}},
    }
    published_run(tmp_path, "alpha", "smile", block)
    published_run(tmp_path, "alpha", "age", block, status="skipped", reason="no control")
    assert published(load(tmp_path), Theme({}))[0].rows[0]["ours"] == "1 of 2"
    published_run(
        tmp_path,
        "beta",
        "smile",
        {"source": "A plot", "setting": "s", "metric": "ad", "values": None},
    )
    found = {one.source: one.rows for one in published(load(tmp_path), Theme({}))}
    assert found["A plot"] == [] and len(found) == 2
    assert "not in the paper" in report_of(tmp_path).read_text()
    assert set(load(tmp_path).runs["setting"]) == {
        ""
    }  # another experiment's block makes no other setting


def test_every_setting_and_variant_stands_beside_the_paper(tmp_path):
    block = {
        "source": "A",
        "setting": "s",
        "metric": "accuracy",
        "values": {"alpha": {"smile": 0.9}},
    }
    published_run(tmp_path, "alpha", "smile", block, rows=metric_rows(0.7))
    for k, share in ((1, 0.4), (2, 0.5)):
        published_run(
            tmp_path,
            "alpha",
            "smile",
            block,
            rows=metric_rows(share),
            starts_n=77,
            method_config={"k": k},
            tag=f"k{k}",
        )
    (one,) = published(load(tmp_path), Theme({}))
    found = [(row["setting"], row["method"], row["value"]) for row in one.rows]
    assert found == [
        ("starts.n 1400", "alpha", 0.7),
        ("starts.n 77", "alpha (k=1)", 0.4),
        ("starts.n 77", "alpha (k=2)", 0.5),
    ]
    text = "\n".join(published_markdown(load(tmp_path), Theme({})))
    assert "| starts.n 77 | alpha (k=2) | smile | 0.9 | 0.500 (" in text


def test_runs_without_a_block_have_no_such_table(tmp_path):
    fake_run(tmp_path, "alpha", "smile")
    assert published(load(tmp_path), Theme({})) == []
    assert "Published:" not in report_of(tmp_path).read_text()


def test_sweeps_are_small_enough_for_minutes_on_two_cores():
    jobs = {
        name: int(np.prod([len(values) for values in sweep(config, "demo", name).values()]))
        for name, config in PAPERS.items()
    }
    assert max(jobs.values()) <= 42
