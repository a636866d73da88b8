"""torch.export archives by anybody (.pt2), read without running code of theirs.

torch.export.load alone would: it unpickles the example inputs and any tensor marked so, resolves
the names of operators by attribute (torch.anything), executes the text of guards, evaluates the
text of symbolic sizes, and imports modules that the layout of arguments names. Here the archive is
first rebuilt from what an inference needs: plain tensors, a graph whose operators are all
registered ATen or prims (or arithmetic on sizes), no guards, no example inputs, sizes that are
arithmetic on symbols, and one tensor in, tensors in plain containers out.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from editbench.base.errors import BadFile, Unsupported
from editbench.networks.external import fix_modes
from editbench.networks.torchscript import (
    COPY_AGAIN,
    DAMAGE,
    OLD_EXPORT,
    check_whole,
    expect_kind,
    open_archive,
    telling_line,
)

REMEDY = (
    "export it again with this torch, from 2.8 on: "
    "torch.export.save(torch.export.export(module.eval(), (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), PATH)"
)
# Operators of PyTorch itself; those of extensions can do anything.
NAMESPACES = ("aten", "prims")
# Of these two, the names that read or write files.
DISK = ("aten.from_file", "aten.save")
# Functions of Python that graphs call on sizes.
ARITHMETIC = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(ceil|floor|trunc)|torch\.sym_(int|float|max|min|not|sum)"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
)
# Text of a size as sympy writes it; torch evaluates it as Python.
SIZE = re.compile(
    r"(?:\b(?:Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|Equality|"
    r"Unequality|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|positive|nonnegative|integer|"
    r"True|False|[su]\d+)\b|'[su]\d+'|\d|[-+*/()<>=, ])*"
)
LAYOUTS = ("in_spec", "out_spec")
# Types of a layout that import nothing.
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
CONTEXTS = (None, "null", "[]")
# Members of an archive, after torch/export/pt2_archive.
GRAPH = "models/model.json"
WEIGHTS = "data/weights/"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
SAMPLE = "data/sample_inputs/model.pt"


class ExportedNetwork(nn.Module):
    """The network of an archive. It has no modes: what its dropout and normalisation do was fixed
    when it was exported.

    Attributes:
        batch: the only number of images it takes, None for any.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.graph = program.module()
        fix_modes(self.graph)
        for parameter in self.graph.parameters():
            parameter.requires_grad_(False)
        inputs = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        # Of the inputs alone: parameters and buffers are placeholders, too.
        shapes = [
            inputs[str(name)].meta["val"].shape
            for name in program.graph_signature.user_inputs
            if isinstance(inputs[str(name)].meta.get("val"), Tensor)
        ]
        sizes = tuple(shapes[0]) if shapes else ()
        # A symbol where any number of images is taken, an integer where one alone is.
        self.batch = sizes[0] if sizes and isinstance(sizes[0], int) else None

    def forward(self, images: Tensor) -> Any:
        if self.batch is not None and len(images) != self.batch:
            raise Unsupported(
                f"this network was exported for batches of exactly {self.batch} images and was "
                f"given {len(images)}; {REMEDY}"
            )
        return self.graph(images)


def read_exported(path: Path | str) -> ExportedNetwork:
    """The network of a torch.export archive, on the host.

    Raises:
        BadFile: missing, cut off, of another kind, of another torch, or with something that is not
            plain tensors and operators; the message names it.
    """
    expect_kind(path, "export", REMEDY)
    clean = rebuild(path)
    try:
        with warnings.catch_warnings():
            # torch warns of the archive's version, which its reader checks.
            warnings.simplefilter("ignore")
            return ExportedNetwork(torch.export.load(clean))
    except Exception as error:  # its reader raises whatever it stumbles over
        raise BadFile(
            f"{path}: torch could not read it ({type(error).__name__}: {telling_line(error)}); "
            f"{REMEDY}"
        ) from error


def rebuild(path: Path | str) -> io.BytesIO:
    """A new archive with the members that are needed, checked, and nothing else."""
    try:
        with open_archive(path) as archive:
            check_whole(path, archive)
            names = archive.namelist()
            if OLD_EXPORT in names:
                raise BadFile(
                    f"{path}: written by torch.export of a torch before 2.8, whose weights are "
                    f"pickles (this is torch {torch.__version__}); {REMEDY}. With an older torch "
                    "save a TorchScript file: torch.jit.script(module.eval()).save(PATH)"
                )
            # torch finds members by the first folder; a second one could hide others.
            top = {name.partition("/")[0] for name in names}
            members = {name.partition("/")[2]: name for name in names}
            if len(top) != 1:
                raise BadFile(f"{path}: an archive with several folders; {COPY_AGAIN}")
            if GRAPH not in members or not all(name in members for name in CONFIGS):
                raise BadFile(
                    f"{path}: written by another version of torch.export, whose parts are pickles; "
                    f"{REMEDY}"
                )
            content = {
                name: archive.read(members[name])
                for name in members
                if name.startswith(("data/weights/", "data/constants/"))
                or name in (GRAPH, *CONFIGS)
                or name in ("archive_format", "archive_version", ".data/version", "byteorder")
            }
        program = json.loads(content[GRAPH])
        configs = [json.loads(content[name])["config"] for name in CONFIGS]
        _check(path, program, configs)
    except (*DAMAGE, KeyError, TypeError, AttributeError) as error:
        raise BadFile(
            f"{path}: damaged inside ({type(error).__name__}: {telling_line(error)}); {COPY_AGAIN}"
        ) from error
    # Text that torch would execute; the shapes are checked without it.
    program["guards_code"] = []
    # Without example inputs, which are a pickle.
    content |= {GRAPH: json.dumps(program).encode(), SAMPLE: b""}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"network/{name}", data)
    out.seek(0)
    return out


def _check(path: Path | str, program: dict[str, Any], configs: list[dict[str, Any]]) -> None:
    """Raise BadFile for a pickled tensor, an operator that is none, or a size that is not
    arithmetic.
    """
    for config in configs:
        for name, entry in config.items():
            plain = re.fullmatch(r"(weight|tensor)_\d+", str(entry["path_name"]))
            if entry["use_pickle"] or not plain:
                raise BadFile(
                    f"{path}: '{name}' is stored as a pickle, which is not read; {REMEDY}"
                )
    # A stack, as a nest could be deeper than recursion allows.
    waiting: list[tuple[str, Any]] = [("", program)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
            if "target" in value and "inputs" in value and not known_operator(str(value["target"])):
                raise BadFile(
                    f"{path}: its graph calls '{value['target']}', which is not a known operator "
                    f"on tensors; such a file is not run. {REMEDY}"
                )
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]
        elif isinstance(value, str) and key == "expr_str" and not SIZE.fullmatch(value):
            raise BadFile(
                f"{path}: the size '{value[:80]}' is not arithmetic; such a file is not run"
            )
        elif isinstance(value, str) and key in LAYOUTS:
            _check_layout(path, json.loads(value))


def _check_layout(path: Path | str, layout: Any) -> None:
    """Raise BadFile for a layout of arguments or results that is more than tensors in plain
    containers.
    """
    waiting = [layout]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("type") not in CONTAINERS or value.get("context") not in CONTEXTS:
                raise BadFile(
                    f"{path}: its input or output is a '{value.get('type')}' with names; export a "
                    f"network that takes images and returns a tensor of logits. {REMEDY}"
                )
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def known_operator(target: str) -> bool:
    """Whether the target of a graph's node is a registered operator that stays with tensors."""
    if ARITHMETIC.fullmatch(target):
        return True
    return target.startswith("torch.ops.") and target.removeprefix("torch.ops.") in _registered()


@lru_cache(maxsize=1)
def _registered() -> frozenset[str]:
    """'aten.conv2d.default', ...: every operator of NAMESPACES but those that touch the disk."""
    found = set()
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        if space in NAMESPACES and f"{space}.{name}" not in DISK:
            found.add(f"{space}.{name}.{schema.overload_name or 'default'}")
    return frozenset(found)
