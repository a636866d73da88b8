"""The public interface: run jobs, read their records, show pictures, edit codes, call networks.

Everything here calls what the commands call, so the numbers are those of `editbench run` and
`editbench report`. The examples of the docstrings are run by tests/test_api.py.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from editbench import report as reports
from editbench.base.conf import check_folders, describe_options, groups, quoted
from editbench.base.devices import device_of
from editbench.base.errors import EditbenchError, UnknownName, WrongType
from editbench.base.spaces import Codes
from editbench.base.spaces import Space as Space  # a name of the interface
from editbench.base.user_code import search_folders
from editbench.base.validation import check_at_least
from editbench.inversion.store import Inversion
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.report import Style
from editbench.report.load import SEED_COLUMNS, Results
from editbench.report.paired import paired_table
from editbench.report.strip_figure import draw_strip
from editbench.report.strips import strips_of_record
from editbench.run.component import Component
from editbench.run.compose import compose_settings, sweep_settings
from editbench.run.edit import FittedRun
from editbench.run.job import check_devices
from editbench.run.loading import check_device, load_network, load_networks
from editbench.run.option_files import name_files
from editbench.run.overrides import check_overrides, check_words_have_effect
from editbench.run.protocol import check_protocols
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.run.workers import WorkerKilled, run_jobs

PathLike = str | os.PathLike[str]
# Configuration folders of a user.
Folders = PathLike | Sequence[PathLike]

FOLDER = "editbench_folder"  # key of DataFrame.attrs with the folder of a trajectory's record


# -- running and loading ---------------------------------------------------------------------------
def run(
    overrides: str | Sequence[str] = "",
    *,
    config_dirs: Folders = (),
    workers: int = 1,
) -> Runs:
    """Run one job, or every job of a sweep, and return their records.

    A job whose record exists is not repeated. Jobs that were skipped, because the method does not
    support the attribute, or that failed are listed in `Runs.status()` with the reason. If you edit
    a module of your own, call `importlib.reload` or start a new process: Python keeps what it has
    imported.

    Args:
        overrides: overrides as for `editbench run`, as one string or a list. Comma-separated values
            make a sweep over their product.
        config_dirs: one folder or several with options of your own, as for `--config-dir`. Their
            `_target_` can run any code, so use only configuration from people you trust.
        workers: number of processes; with 1, the jobs run in this process, in order. With more, a
            script needs the usual `if __name__ == "__main__":`.

    Returns:
        The records of these jobs, without other records of the folder.

    Raises:
        UnknownName: an option or key does not exist; the message has the nearest one.
        EditbenchError: a value is wrong, a job failed before it had a record, or a worker ended
            before its job.

    Examples:
        >>> import editbench as eb
        >>> small = "budget=demo bank.n=2560 bank.shard=1280 starts.n=56 engine.sweep_steps=4"
        >>> runs = eb.run(f"method=random,interfacegan attribute=smile {small}")
        >>> [run.method for run in runs]
        ['interfacegan', 'random']
    """
    _check_whole("workers", workers, example=1)
    check_at_least("workers", workers, 1)
    words = _words(overrides)
    words, folders = name_files(words, _folders(config_dirs))
    check_overrides(words, folders)
    # All settings are checked before the first network is loaded.
    composed = list(sweep_settings(words, folders))
    jobs = [settings for _, settings in composed]
    check_words_have_effect(jobs, words)
    check_protocols(jobs)
    check_devices(jobs)
    roots = {settings.out for settings in jobs}
    if len(roots) > 1:
        raise EditbenchError("out must be one folder for all jobs of a call of run")
    found: set[str] = set()
    try:
        for settings, outcome in run_jobs(jobs, workers, [of_job for of_job, _ in composed]):
            if not outcome.run_id:
                raise EditbenchError(f"{settings.title}: {outcome.reason}")
            found.add(outcome.run_id)
    except WorkerKilled:
        # A worker imports the script that called this. Without the condition it calls this again,
        # which Python refuses.
        raise WorkerKilled(
            "a worker ended before its job. In a script, put this call below `if __name__ == "
            '"__main__":`. If it stands there, memory may have run out: finished work is kept; call '
            "again with fewer workers"
        ) from None
    return Runs(reports.load(roots.pop(), found).with_failures())


def load(root: PathLike = "runs") -> Runs:
    """Read the records of a runs folder.

    Args:
        root: the folder that jobs wrote to (`out` of the configuration).

    Raises:
        EditbenchError: the folder is missing or has no record.

    Examples:
        >>> import editbench as eb
        >>> runs = eb.load("runs")
        >>> runs["random", "smile"].status
        'done'
    """
    return Runs(reports.load(_path("root", root)).with_failures())


class Runs:
    """Records of one runs folder, sorted by setting and seed, then by attribute and method.

    Iteration yields each `Run`, and `runs[method, attribute]` or `runs[method, attribute, seed]`
    finds one. Records that cannot be read are listed in `problems`.

    Args:
        results: the records, as reports read them.

    Examples:
        >>> import editbench as eb
        >>> runs = eb.load("runs")
        >>> len(runs), runs.problems
        (2, [])
        >>> table = runs.table()
        >>> sorted({"method", "attribute", "metric", "value", "low", "high"} - set(table.columns))
        []
        >>> runs.means()["method"].tolist()
        ['interfacegan', 'random']
        >>> runs.paired()[["a", "b", "attribute", "n"]].values.tolist()[0]
        ['interfacegan', 'random', 'smile', 8]
        >>> runs.report("page").name
        'index.html'
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def __len__(self) -> int:
        return len(self._results.runs)

    def __iter__(self) -> Iterator[Run]:
        for name in self._results.runs["run_id"]:
            yield Run(self._results.root / name)

    def __getitem__(self, key: str | tuple[str, str] | tuple[str, str, int]) -> Run:
        """The run of a method on an attribute.

        Args:
            key: method and attribute, and the seed if there are several. The method is a name, or a
                label of the report, which distinguishes variants. A run id, the name of the run's
                folder, distinguishes runs that differ in something else.

        Raises:
            UnknownName: there is no such run.
            EditbenchError: several runs fit, or the key has another form.
        """
        table = self._results.runs
        if isinstance(key, str) and key in set(table["run_id"]):
            return Run(self._results.root / key)
        if not isinstance(key, tuple) or len(key) not in (2, 3):
            raise EditbenchError(
                f"runs[{key!r}]: select a run as runs[method, attribute], runs[method, attribute, "
                "seed] or runs[run_id]"
            )
        method, attribute, *seed = key
        of_attribute = table[table["attribute"] == attribute]
        chosen = of_attribute[of_attribute["label"] == method]
        if chosen.empty:
            chosen = of_attribute[of_attribute["method"] == method]
        if seed:
            _check_whole("seed", seed[0])
            chosen = chosen[chosen["seed"] == seed[0]]
        if chosen.empty:
            # In brackets, since the list of them has commas too.
            known = [f"[{row.label}, {row.attribute}, {row.seed}]" for row in table.itertuples()]
            raise UnknownName("run", f"[{', '.join(map(str, key))}]", known)
        if len(chosen) > 1:
            found = []
            for row in chosen.to_dict("records"):
                # The name of a setting has the seed if there are several.
                setting = row["setting"] or f"seed {row['seed']}"
                found.append(f"{row['run_id']} ({row['label']}, {setting}, {row['status']})")
            raise EditbenchError(
                f"{len(chosen)} runs of {method} on {attribute}: {'; '.join(found)}. Give the "
                "seed as a third key, the label instead of the method, or the id of one: "
                f"runs['{chosen['run_id'].iloc[0]}']"
            )
        return Run(self._results.root / str(chosen["run_id"].iloc[0]))

    def __repr__(self) -> str:
        counts = self._results.runs["status"].value_counts()
        parts = [f"{count} {status}" for status, count in counts.items()]
        return f"<Runs in '{self._results.root}': {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        """The status of every run, which a notebook shows."""
        return self.status().to_html(index=False)

    @property
    def problems(self) -> list[str]:
        """Records that could not be read, each with its reason."""
        return [f"{problem.name}: {problem.reason}" for problem in self._results.problems]

    def status(self) -> pd.DataFrame:
        """One row per run.

        Returns:
            Columns method (with its variant), attribute, seed, status ('done', 'skipped' or
            'failed'), reason, seconds and run_id.
        """
        names = ["label", "attribute", "seed", "status", "reason", "seconds", "run_id"]
        return self._results.runs[names].rename(columns={"label": "method"})

    def table(self) -> pd.DataFrame:
        """The numbers of all metrics, one row per run and number.

        A curve has one row for each of its points. A run whose search found no control is 'skipped',
        but has accuracy and success rate 0, so that a mean over runs counts it as a failure.

        Returns:
            Columns method (with its variant), attribute, seed and run_id, and the columns of the
            metrics' rows. Among these are `metric`, `value`, `low` and `high` (95 % interval; NaN
            if there is none), `count` (how many starts
            or other values it is over), `note` (why a number should not be read),
            and `x`: the effect in sigma, step or strength at which a number is measured, or NaN.
        """
        runs = self.status()[["method", "attribute", "seed", "run_id"]]
        # A row is one run here, with one seed.
        rows = self._results.rows.drop(columns=list(SEED_COLUMNS))
        return runs.merge(rows, on="run_id", how="inner")

    def means(self) -> pd.DataFrame:
        """Average each method over its attributes, as a report does (`means.csv`).

        The seeds of a method are pooled, and all methods are compared on the same attributes and
        starts.

        Returns:
            One row per setting and method, the best accuracy first and floors last, with the
            columns of `means.csv`. Among these are `accuracy` and `ad_at` (AD at an effect), their
            95 % intervals `accuracy_low` to `accuracy_high` and `ad_at_low` to `ad_at_high`, and
            `accuracy_note` and `ad_at_note`, why there is no such mean.
        """
        settings = reports.every_setting(self._pooled())
        return pd.concat([one.means for one in settings], ignore_index=True)

    def paired(self) -> pd.DataFrame:
        """Test the differences of all pairs of methods, as a report does (`paired.csv`).

        Both methods of a pair edit the same starts, and the seeds of a method are pooled. The tests
        are paired bootstraps, for accuracy and AD at an effect.

        Returns:
            One row per setting, attribute, number and pair, with the columns of `paired.csv`. Among
            these are `a` and `b` (methods with their variants), `difference` (mean of a - b over
            the `n` starts that both have), `low` and `high` (its 95 % interval), `p`, and `p_holm`:
            adjusted for all pairs of the attribute and number. With fewer than ten common starts
            there is only the difference.
        """
        return paired_table(self._pooled())

    def _pooled(self) -> Results:
        """The records with the seeds of a method pooled, as a report reads them."""
        ids = set(self._results.runs["run_id"])
        return reports.load(self._results.root, ids, by_seed=False).with_failures()

    def report(self, out: PathLike | None = None, *, config_dirs: Folders = ()) -> Path:
        """Write the report of these runs: index.html, tables and figures.

        Args:
            out: folder of the report; None for `report` in the runs folder.
            config_dirs: one folder or several with options of your own, whose titles and papers the
                report shows.

        Returns:
            The path of the page.
        """
        folder = None if out is None else _path("out", out)
        folders = _folders(config_dirs)
        check_folders(folders)
        root = self._results.root
        style = replace(Style.of_runs(root), folders=tuple(folders))
        return reports.report(root, folder, set(self._results.runs["run_id"]), style=style)


class Run:
    """The record of one job.

    Args:
        folder: of the record.

    Raises:
        BadFile: the folder has no record, or a file of it was altered.

    Examples:
        >>> import editbench as eb
        >>> run = eb.load("runs")["random", "smile"]
        >>> run.method, run.attribute, run.seed
        ('random', 'smile', 0)
        >>> walks = run.trajectory()
        >>> int(walks["step"].min())
        0
        >>> run.config()["starts"]["n"]
        56
    """

    def __init__(self, folder: PathLike) -> None:
        self._record = Record.read(_path("folder", folder))
        self._fitted: dict[str, FittedRun] = {}  # by device, once `edit` was called

    def __repr__(self) -> str:
        return f"<Run {self.method} x {self.attribute}, seed {self.seed}: {self.status}>"

    @property
    def folder(self) -> Path:
        """Folder of the record."""
        return self._record.folder

    @property
    def status(self) -> str:
        """Status of the job: 'done', 'skipped' or 'failed'."""
        return str(self._record.status["status"])

    @property
    def reason(self) -> str:
        """Why the job was skipped or failed; '' if it was done."""
        return str(self._record.status.get("reason", ""))

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self._record.status["method"])

    @property
    def attribute(self) -> str:
        """Name of the edited attribute."""
        return str(self._record.status["attribute"])

    @property
    def seed(self) -> int:
        """Seed of the method's own randomness."""
        return int(self._record.status["seed"])

    def config(self) -> dict[str, Any]:
        """The configuration that the job was run with."""
        return self._record.config()

    def provenance(self) -> dict[str, Any]:
        """Versions, hashes and costs of the job."""
        return self._record.provenance()

    def rows(self) -> pd.DataFrame:
        """The numbers of its metrics, see `Runs.table`.

        Raises:
            EditbenchError: the job was skipped or failed.
        """
        if self.status != "done":
            raise EditbenchError(f"{self!r} has no numbers: {self.reason}")
        return self._record.rows()

    def trajectory(self) -> pd.DataFrame:
        """Every decoded step of every walk, in long form.

        Returns:
            One row per step, sorted by start and step, with the columns `start` (index in the
            bank), `source` and `target` (classes), `step` (0 is the unedited start), `path` (length
            of the walk so far, in the method's own unit), `crossed`, `stopped` (the first
            crossing), `finite`, the columns of observations, `logit:NAME` for each logit of the
            judge, and `effect` (change of the target's log-odds towards the target class, in
            sigma).

        Raises:
            EditbenchError: the job was skipped, or failed before its walks had ended.
        """
        if self.status != "done" and not self._record.walked:
            raise EditbenchError(f"{self!r} has no walks: {self.reason}")
        walks = self._record.trajectories()
        table = walks.table.assign(effect=walks.effect)
        # `strip` needs the folder to find the pictures.
        table.attrs[FOLDER] = str(self.folder)
        return table

    def generator(self, device: str = "cpu") -> Generator:
        """The generator of the job, in evaluation mode and without gradients of its weights.

        Args:
            device: 'cpu', 'cuda', 'cuda:1'.
        """
        return load_networks(self._settings(device)).generator

    def judge(self, device: str = "cpu") -> Scorer:
        """The judge of the job, for all attributes of its scorer, see `editbench.judge`.

        Args:
            device: 'cpu', 'cuda', 'cuda:1'.
        """
        return load_networks(self._settings(device)).judge

    def edit(self, codes: Codes, steps: float, target: str | int | None = None) -> Codes:
        """Edit codes of your own with the method of the job, as it was fitted.

        Steps have the length that they have in the job, and the samples do not stop at the decision
        boundary. The bank and the fit are read from the cache of the job (`cache` of its
        configuration, which may be relative to the working folder), and are made again if they are
        not there. A method that draws a direction for each start draws one for each row.

        Args:
            codes: n samples of the job's generator in Z, W or W+, such as `editbench.codes` and
                `editbench.inverted` return; their device is that of the computation.
            steps: number of steps, at least 0. Between two whole steps, codes are interpolated.
            target: class to walk to, by name or index. None means the target of the job, and if it
                has none the other class of each sample, as the judge sees it.

        Returns:
            n codes, for `decode` of the generator.

        Raises:
            EditbenchError: the job was skipped or failed; its code, networks or files have changed
                since; or codes are not finite.
            SpaceMismatch: the codes do not fit the generator or the method.
            UnknownName: the attribute has no such class.

        Examples:
            >>> import editbench as eb
            >>> run = eb.load("runs")["interfacegan", "smile"]
            >>> gan = run.generator()
            >>> start = eb.codes(gan, count=4, seed=1)
            >>> edited = run.edit(start, steps=6, target="smiling")
            >>> tuple(gan.decode(edited).shape)
            (4, 3, 32, 32)
        """
        if self.status != "done":
            raise EditbenchError(f"{self!r} has no fitted method: {self.reason}")
        if not isinstance(codes, Codes):
            raise WrongType(
                "edit takes Codes, such as editbench.codes(generator, count=4), not "
                f"{type(codes).__name__}"
            )
        device = str(codes.values.device)
        if device not in self._fitted:
            self._fitted[device] = FittedRun(self._record, self._settings(device))
        return self._fitted[device].edit(codes, steps, target)

    def _settings(self, device: str) -> Settings:
        """Settings of the job on this device."""
        # A job finds a user's modules in its working folder. Python itself searches the folder of
        # the script, which may be another one.
        search_folders(Path.cwd())
        return Settings.from_config(self.config()).with_values(device=_device_name(device))


def _folders(config_dirs: Folders) -> list[Path]:
    """One folder or several as a list."""
    if isinstance(config_dirs, str | os.PathLike):
        config_dirs = [config_dirs]
    if not isinstance(config_dirs, Sequence):
        raise WrongType(
            f"config_dirs={config_dirs!r} must be a folder or a list of folders, () for none"
        )
    return [_path("config_dirs", folder) for folder in config_dirs]


def _path(name: str, value: PathLike) -> Path:
    """The path of a folder.

    Args:
        name: of the argument, for the message.
        value: that a user gave.
    """
    if not isinstance(value, str | os.PathLike):
        raise WrongType(f"{name}={value!r} must be the path of a folder, such as {name}='runs'")
    return Path(value)


def _device_name(device: str | torch.device) -> str:
    """The name of a device, as the key `device` of a run has it."""
    if not isinstance(device, str | torch.device):
        raise WrongType(f"device={device!r} must be a name: 'cpu', 'cuda' or 'cuda:0'")
    return str(device)


def _words(overrides: str | Sequence[str]) -> list[str]:
    """The overrides as a list of words. As in the command, `+experiment=x` is `experiment=x`."""
    words = overrides
    if isinstance(overrides, str):
        try:
            words = shlex.split(overrides)
        except ValueError as error:  # a quotation mark that is never closed
            raise EditbenchError(
                f"overrides {overrides!r} cannot be parsed as a command line: {error}"
            ) from error
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise WrongType(
            "run takes the words of a command line, a string or a list, such as 'method=random "
            f"seed=0,1', not {type(overrides).__name__}"
        )
    # Accepted but not needed, since commas make a sweep.
    words = [word for word in words if word not in ("-m", "--multirun")]
    for word in words:
        if word.startswith("-"):
            raise EditbenchError(
                f"{word} is a flag of the command, but run takes overrides: pass folders with "
                "options of your own as the argument config_dirs"
            )
    return [word[1:] if word.startswith("+experiment=") else word for word in words]


# -- pictures --------------------------------------------------------------------------------------
def strip(walks: pd.DataFrame | Run, start: int = 0) -> Figure:
    """Draw the pictures of one walk: the source first, then small to large steps.

    Above each picture is the achieved effect on the target, in sigma. The first picture to which
    the judge assigns the target class has a frame.

    Args:
        walks: a run, or its `trajectory()`.
        start: number, from 0, among the starts whose pictures the record keeps, in the order of the
            bank; `engine.pictures` sets how many are kept.

    Returns:
        A matplotlib figure, which a notebook shows.

    Raises:
        WrongType: `walks` is no run or trajectory, or `start` is no whole number.
        EditbenchError: the record keeps no pictures, or fewer.

    Examples:
        >>> import editbench as eb
        >>> walks = eb.load("runs")["interfacegan", "smile"].trajectory()
        >>> figure = eb.strip(walks, start=3)
        >>> len(figure.axes) > 1
        True
    """
    _check_whole("start", start)
    kept = strips_of_record(_record_of(walks))
    if not 0 <= start < len(kept):
        raise EditbenchError(
            f"start={start}: the record keeps images of {len(kept)} starts, counted from 0; "
            "engine.pictures sets how many"
        )
    return draw_strip(kept[start])


def _record_of(walks: object) -> Path:
    """The folder of a run's record, from the run or its trajectory."""
    if isinstance(walks, Run):
        return walks.folder
    if not isinstance(walks, pd.DataFrame):
        raise WrongType(
            "strip takes a run, such as runs[method, attribute], or its trajectory(), not "
            f"{type(walks).__name__}"
        )
    if FOLDER not in walks.attrs:
        raise EditbenchError(
            "these walks do not say which run they belong to (pandas loses that in some "
            "operations): pass the run itself to strip"
        )
    return Path(walks.attrs[FOLDER])


def _check_whole(name: str, value: object, example: int = 0) -> None:
    if not isinstance(value, int | np.integer):
        raise WrongType(f"{name}={value!r} must be a whole number, as in {name}={example}")


# -- networks --------------------------------------------------------------------------------------
def generator(
    name: str = "faces32",
    device: str = "cpu",
    *,
    data: PathLike | None = None,
    config_dirs: Folders = (),
    **options: Any,
) -> Generator:
    """Load a generator, in evaluation mode and without gradients of its weights.

    Args:
        name: of an option of the group `generator`, see `options("generator")`, or a YAML file.
        device: 'cpu', 'cuda', 'cuda:1'.
        data: folder of third-party inputs, as the key `data` of a run; None for its default.
        config_dirs: one folder or several with options of your own, as for `run`.
        **options: keys of its configuration, such as `weights` or `truncation_psi`.

    Raises:
        UnknownName: there is no such generator or key.
        EditbenchError: it cannot be built, for example without its weights.

    Examples:
        >>> import editbench as eb
        >>> gan = eb.generator("faces32")
        >>> images = gan.decode(eb.codes(gan, count=2, seed=0))
        >>> tuple(images.shape)
        (2, 3, 32, 32)
    """
    words = [f"generator={name}"]
    words += [f"generator.{key}={_written(value)}" for key, value in options.items()]
    network: Generator = _ready("generator", _settings(words, data, config_dirs).generator, device)
    return network


def codes(gan: Generator, count: int, seed: int = 0) -> Codes:
    """Draw codes of new samples, in W if the generator has it, otherwise in Z.

    They are not samples of a bank.

    Args:
        gan: a generator.
        count: number of samples.
        seed: of the draw, which is the same on every device.

    Returns:
        Codes whose `values` have the shape (count, w_dim) or (count, z_dim).

    Examples:
        >>> import editbench as eb
        >>> gan = eb.generator("faces32")
        >>> start = eb.codes(gan, count=5, seed=1)
        >>> start.values.shape[0]
        5
    """
    if not isinstance(gan, Generator):
        raise WrongType(
            f"codes takes a generator, such as generator('faces32'), not {type(gan).__name__}"
        )
    _check_whole("count", count)
    _check_whole("seed", seed)
    check_at_least("count", count, 0)
    source = torch.Generator().manual_seed(int(seed))
    z: Tensor = torch.randn(int(count), gan.z_dim, generator=source)
    z = z.to(device_of(gan))
    with torch.no_grad():
        return gan.latent(z)


def inverted(folder: PathLike) -> Codes:
    """Read the codes of real images that `editbench invert` found.

    Args:
        folder: of the inversion, the option --out of the command.

    Returns:
        Codes of all images, in the order of the inversion's `table.parquet`, which has their names.

    Raises:
        BadFile: the folder is not a finished inversion, or was altered.

    Examples:
        >>> import editbench as eb
        >>> images = eb.inverted("photos")
        >>> images.space.name, len(images)
        ('W', 3)
        >>> edited = eb.load("runs")["interfacegan", "smile"].edit(images, steps=6)
    """
    found = Inversion(_path("folder", folder))
    return Codes(found.space, found.codes(np.arange(len(found))))


def judge(
    name: str = "faces",
    device: str = "cpu",
    *,
    data: PathLike | None = None,
    config_dirs: Folders = (),
) -> Scorer:
    """Load the judge of a scorer: the classifier that the benchmark measures with.

    Args:
        name: of an option of the group `scorer`, see `options("scorer")`, or a YAML file.
        device: 'cpu', 'cuda', 'cuda:1'.
        data: folder of third-party inputs, as the key `data` of a run; None for its default.
        config_dirs: one folder or several with options of your own, as for `run`.

    Returns:
        A network: images (N, C, H, W) in [-1, 1] -> logits (N, width). Its `attributes` describe
        the columns.

    Raises:
        UnknownName: there is no such scorer.
        EditbenchError: it cannot be built, for example without its weights.

    Examples:
        >>> import editbench as eb
        >>> gan = eb.generator("faces32")
        >>> judge = eb.judge("faces")
        >>> logits = judge(gan.decode(eb.codes(gan, count=2)))
        >>> judge.attributes.labels(logits, "smile").shape[0]
        2
    """
    return _scorer("judge", name, device, data, config_dirs)


def teacher(
    name: str = "faces",
    device: str = "cpu",
    *,
    data: PathLike | None = None,
    config_dirs: Folders = (),
) -> Scorer:
    """Load the teacher of a scorer: the classifier that methods learn from.

    Args:
        name: of an option of the group `scorer`, see `options("scorer")`, or a YAML file.
        device: 'cpu', 'cuda', 'cuda:1'.
        data: folder of third-party inputs, as the key `data` of a run; None for its default.
        config_dirs: one folder or several with options of your own, as for `run`.

    Returns:
        A network: images (N, C, H, W) in [-1, 1] -> logits (N, width). Its `attributes` describe
        the columns.

    Raises:
        UnknownName: there is no such scorer.
        EditbenchError: it cannot be built, for example without its weights.

    Examples:
        >>> import editbench as eb
        >>> eb.teacher("faces").attributes.names == eb.judge("faces").attributes.names
        True
    """
    return _scorer("teacher", name, device, data, config_dirs)


def _scorer(
    role: str, name: str, device: str, data: PathLike | None, config_dirs: Folders
) -> Scorer:
    scorers = _settings([f"scorer={name}"], data, config_dirs).scorer
    scorer: Scorer = _ready(role, getattr(scorers, role), device)
    return scorer


def _settings(words: list[str], data: PathLike | None, config_dirs: Folders) -> Settings:
    """Settings of a job with these overrides, from which one network is taken."""
    if data is not None:
        words = [*words, f"data={quoted(_path('data', data))}"]
    return compose_settings(words, _folders(config_dirs))


def _ready(role: str, component: Component, device: str) -> Any:
    """Build a network, ready to be called on the device."""
    name = _device_name(device)
    check_device(name)
    return load_network(role, component.config, name)


def _written(value: object) -> str:
    """A value in Hydra's grammar: null, true, a number, or quoted text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return quoted(value)


# -- options ---------------------------------------------------------------------------------------
def options(group: str = "method", *, config_dirs: Folders = ()) -> pd.Series:
    """The options of a group of the configuration, with a short description of each.

    Args:
        group: 'method', 'generator', 'scorer', 'metric', 'budget', 'experiment' and others.
        config_dirs: one folder or several with options of your own, as for `run`.

    Returns:
        Descriptions, indexed by the names of the options.

    Raises:
        UnknownName: there is no such group.

    Examples:
        >>> import editbench as eb
        >>> "gradctrl" in eb.options("method")
        True
    """
    if group not in groups():
        raise UnknownName("group", group, groups())
    folders = _folders(config_dirs)
    check_folders(folders)
    about = describe_options(group, folders)
    return pd.Series(about, name="about", dtype="str").rename_axis(group)
