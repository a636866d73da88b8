"""The structure of LaTeX tables."""

from __future__ import annotations

import re


def check_structure(text: str) -> list[tuple[int, list[list[str]]]]:
    """Environments nest, braces balance, nothing special is bare, rows have their columns ->
    [(columns, rows)].
    """
    stack, tabulars = [], []
    # Comments may hold anything, and space between rows is no row.
    text = re.sub(r"^%.*\n", "", text, flags=re.M).replace("\\addlinespace[1.5pt]\n", "")
    bare = re.sub(r"\\[\\{}$&#_%]", "", text)  # escaped characters and line ends
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    for sign in "#_%^~":
        assert sign not in re.sub(r"\\label\{[^}]*\}", "", bare), sign
    assert bare.isprintable() or set(filter(lambda c: not c.isprintable(), bare)) == {"\n"}
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    for shape, body in re.findall(
        r"\\begin\{tabular\}\{((?:[^{}]|\{[^{}]*\})*)\}(.*?)\\end\{tabular\}", text, re.S
    ):
        columns = len(re.sub(r"\{[^}]*\}", "", shape))
        assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [
            1,
            1,
            1,
        ]
        body = re.sub(r"\\(top|mid|bottom)rule", "", body)
        rows = [re.split(r"(?<!\\)&", row) for row in body.split(r"\\")[:-1]]
        assert rows and all(len(row) == columns for row in rows), (columns, rows)
        assert not any(row[0].strip().startswith("[") for row in rows), (
            "an argument of the line end before it"
        )
        tabulars.append((columns, rows))
    assert "&" not in re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", bare, flags=re.S)
    return tabulars
