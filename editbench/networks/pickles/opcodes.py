"""The opcodes of pickle, protocols 0 to 5, as actions on the machine, and the loop that carries them out.

Opcodes that run code or fetch from elsewhere (extension registry, out-of-band buffers) are refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from editbench.networks.pickles.atoms import ATOMS, DAMAGED, SINGLETONS, Cursor
from editbench.networks.pickles.keys import as_key
from editbench.networks.pickles.limits import Budget, Refused
from editbench.networks.pickles.machine import Builder, Machine

Action = Callable[[Machine], Any]
STOP = pickle.STOP[0]


def execute(
    cursor: Cursor,
    budget: Budget,
    table: dict[str, Builder],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle at the cursor, which is left behind its STOP opcode; arguments as for Machine."""
    machine = Machine(cursor, budget, table, persistent)
    data, began = cursor.data, cursor.at
    try:
        while True:
            if cursor.at >= len(data):
                raise Refused(DAMAGED.format("it ends in the middle"))
            code = data[cursor.at]
            cursor.at += 1
            if code in ATOMS:
                budget.opcode(8 if code in SINGLETONS else 40)
                machine.stack.append(ATOMS[code](cursor))
                continue
            budget.opcode(8)
            if code == STOP:
                return machine.stack.pop()
            if code in ACTIONS:
                ACTIONS[code](machine)
            else:
                raise Refused(
                    DAMAGED.format(
                        f"opcode {code:#04x} at position {cursor.at - 1:,} is none of pickle's"
                    )
                    if cursor.at - 1 > began
                    else "it is not a pickle; check that it is the right file"
                )
    except (IndexError, ValueError, OverflowError, TypeError) as error:
        raise Refused(
            DAMAGED.format(f"{type(error).__name__} at position {cursor.at:,}")
        ) from error


def _refuse(what: str) -> Action:
    def action(machine: Machine) -> None:
        raise Refused(f"it uses {what}, which data never need; do not trust the file")

    return action


def _onto(method: Callable[[Machine, Any, Any], None]) -> Action:
    """An action of the last value on the one below it, which stays."""

    def action(machine: Machine) -> None:
        value = machine.stack.pop()
        method(machine, machine.stack[-1], value)

    return action


def _marked(method: Callable[[Machine, Any, list], None]) -> Action:
    """An action of the values since the mark on the one below it, which stays."""

    def action(machine: Machine) -> None:
        values = machine.items()
        method(machine, machine.stack[-1], values)

    return action


def _call(number: int) -> Action:
    """REDUCE, NEWOBJ and NEWOBJ_EX: the last 2 or 3 values are a function, its arguments, and named ones."""
    return lambda machine: machine.push(machine.call(*machine.top(number)))


def _fold(number: int) -> Action:
    return lambda machine: machine.push(tuple(machine.top(number)))


def _text(machine: Machine) -> str:
    return machine.cursor.line().decode("utf-8")


def _inst(machine: Machine) -> None:
    args = tuple(machine.items())
    machine.find(_text(machine), _text(machine))
    machine.push(machine.call(machine.stack.pop(), args))


def _obj(machine: Machine) -> None:
    cls, *args = machine.items()
    machine.push(machine.call(cls, tuple(args)))


def _setitem(machine: Machine) -> None:
    pair = machine.top(2)
    machine.assign(machine.stack[-1], pair)


def _dict(machine: Machine) -> None:
    values = machine.items()
    machine.push({})
    machine.assign(machine.stack[-1], values)


def _frozenset(machine: Machine) -> None:
    values = machine.items()
    machine.budget.take(136 * len(values))
    machine.push(frozenset([as_key(machine.budget, value, k) for k, value in enumerate(values)]))


def _index(machine: Machine) -> int:
    line = machine.cursor.line()
    if not line.isdigit() or len(line) > 18:
        raise Refused(DAMAGED.format("an entry of its memo has no number"))
    return int(line)


ACTIONS: dict[int, Action] = {
    code[0]: action
    for code, action in {
        pickle.MARK: Machine.mark,
        pickle.POP: lambda m: m.stack.pop() if m.stack else m.items(),
        pickle.POP_MARK: Machine.items,
        pickle.DUP: lambda m: m.stack.append(m.stack[-1]),
        pickle.PERSID: lambda m: m.fetch(_text(m)),
        pickle.BINPERSID: lambda m: m.fetch(m.stack.pop()),
        pickle.REDUCE: _call(2),
        pickle.NEWOBJ: _call(2),
        pickle.NEWOBJ_EX: _call(3),
        pickle.INST: _inst,
        pickle.OBJ: _obj,
        pickle.BUILD: _onto(Machine.build),
        pickle.GLOBAL: lambda m: m.find(_text(m), _text(m)),
        pickle.STACK_GLOBAL: lambda m: m.find(*m.top(2)),
        pickle.APPEND: _onto(lambda m, target, value: m.append(target, [value])),
        pickle.APPENDS: _marked(Machine.append),
        pickle.SETITEM: _setitem,
        pickle.SETITEMS: _marked(Machine.assign),
        pickle.ADDITEMS: _marked(Machine.add),
        pickle.EMPTY_DICT: lambda m: m.push({}),
        pickle.EMPTY_LIST: lambda m: m.push([]),
        pickle.EMPTY_SET: lambda m: m.push(set()),
        pickle.EMPTY_TUPLE: lambda m: m.stack.append(()),
        pickle.DICT: _dict,
        pickle.LIST: lambda m: m.push(m.items()),
        pickle.TUPLE: lambda m: m.push(tuple(m.items())),
        pickle.FROZENSET: _frozenset,
        pickle.TUPLE1: _fold(1),
        pickle.TUPLE2: _fold(2),
        pickle.TUPLE3: _fold(3),
        pickle.GET: lambda m: m.recall(_index(m)),
        pickle.BINGET: lambda m: m.recall(m.cursor.number("<B")),
        pickle.LONG_BINGET: lambda m: m.recall(m.cursor.number("<I")),
        pickle.PUT: lambda m: m.keep(_index(m)),
        pickle.BINPUT: lambda m: m.keep(m.cursor.number("<B")),
        pickle.LONG_BINPUT: lambda m: m.keep(m.cursor.number("<I")),
        pickle.MEMOIZE: lambda m: m.keep(len(m.memo)),
        pickle.PROTO: Machine.protocol,
        pickle.FRAME: Machine.frame,
        pickle.EXT1: _refuse("the extension registry"),
        pickle.EXT2: _refuse("the extension registry"),
        pickle.EXT4: _refuse("the extension registry"),
        pickle.NEXT_BUFFER: _refuse("out-of-band buffers"),
        pickle.READONLY_BUFFER: _refuse("out-of-band buffers"),
    }.items()
}
