"""One option of a group that names a class or a function: checked when read, built when needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from editbench.base.conf import LABELS
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.instantiate import build
from editbench.base.validation import check_options, in_yaml


@dataclass(frozen=True)
class Component:
    """One option of a group that names a class or function by `_target_`.

    Args:
        key: its key in the configuration: 'method', 'metric.locality'.
        name: of the option.
        target: dotted name of the class or function.
        options: its keyword arguments, as plain values.
    """

    key: str
    name: str
    target: str
    options: dict[str, Any]

    @classmethod
    def from_config(cls, key: str, config: object, name: str = "") -> Component:
        """A component whose options are arguments of its target.

        Args:
            key: its place in the configuration, for messages; the part before the dot is the group.
            config: its mapping with `_target_`. Keys that only people read are left out of the
                options.
            name: of the option where `config` has no key `name`; '' for the key.

        Raises:
            UnknownName: an option that the target does not take.
            EditbenchError: there is no target, or a value has the wrong kind.
        """
        group = key.partition(".")[0]
        # `~method` or method=null leaves nothing where a mapping is needed.
        if not isinstance(config, dict):
            raise EditbenchError(
                f"{key}={in_yaml(config)} is not an option of '{group}': choose one with "
                f"{group}=NAME (see `editbench list`)"
            )
        target = config.get("_target_")
        if not isinstance(target, str):
            raise EditbenchError(
                f"{key}._target_={in_yaml(target)} must be the dotted name of a class, as in "
                "_target_: my_package.my_module.MyClass"
            )
        unlabelled = {name: value for name, value in config.items() if name not in LABELS}
        del unlabelled["_target_"]
        check_options(key, target, unlabelled)
        return cls(key, str(config.get("name") or name or key), target, unlabelled)

    @property
    def config(self) -> dict[str, Any]:
        """The component as a plain mapping, with `_target_`."""
        return {"_target_": self.target, **self.options}

    def build(self) -> Any:
        """Build the object.

        Raises:
            EditbenchError: its constructor rejects the options; with the constructor's message.
        """
        return build({"name": self.name, **self.config})

    def checked(self) -> Component:
        """This component, after its constructor has checked the values.

        The constructor must be cheap, as it is for editors and metrics.

        Raises:
            EditbenchError: the constructor rejects a value; the message has key and value.
        """
        try:
            self.build()
        except (BadFile, Unsupported):
            pass  # no wrong value: the job itself is then failed or skipped, with this reason
        except EditbenchError as error:
            raise EditbenchError(self._explained(str(error))) from error
        return self

    def _explained(self, message: str) -> str:
        """A constructor's message, prefixed with the key and the value that it is about."""
        # UnknownName has the key in quotation marks.
        if message.startswith(f"{self.key}.") or f"'{self.key}." in message:
            return message
        # A message about two options, "ratio=5 must be ... and min_per_side=1 ...", is put under
        # the one that it names first.
        places: dict[int, str] = {}
        for option in self.options:
            found = re.search(rf"\b{re.escape(option)}\b", message)
            if found:
                places[found.start()] = option
        if not places:
            return f"{self.key}={self.name}: {message}"
        option = places[min(places)]
        value = f"{option}={self.options[option]}"
        # It has all but the group already, be it of an option within this one.
        if message.startswith((value, f"{option}.")):
            return f"{self.key}.{message}"
        if isinstance(self.options[option], dict):
            value = option  # a whole mapping would hide the one wrong value in it
        return f"{self.key}.{value}: {message}"
