"""What the `type` of a settings block names, found with or without mmsegmentation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch.nn import Module

from rfclip.checks import check_block, near, shown

_Class = TypeVar("_Class", bound=type)


class Registry:
    """Classes by name; registries of mmengine can share them.

    Args:
        what: the settings block that these classes serve, e.g. 'method'.
        offers: what a class must define itself to be one of them, e.g. '__call__'; a registry of mmengine has others.
    """

    def __init__(self, what: str, offers: str = "__init__") -> None:
        self.what = what
        self.offers = offers
        self._classes: dict[str, type] = {}
        self._others: list[Any] = []

    def register(self, cls: _Class) -> _Class:
        """Know a class by its name; to be used as a decorator. A later class of the same name takes its place."""
        self._classes[cls.__name__] = cls
        for other in self._others:
            other.register_module(module=cls, force=True)
        return cls

    def share(self, other: Any) -> None:
        """Register all classes, now and later, in a registry of mmengine too, and find there what is not here."""
        if other in self._others:
            return
        self._others.append(other)
        for cls in self._classes.values():
            other.register_module(module=cls, force=True)

    def get(self, name: str) -> Any:
        """Return the class of a name, 'mmseg.' before it or not; None if there is none."""
        spelt = all(part.isidentifier() for part in name.split("."))  # of others mmengine imports a part, or raises
        found = (other.get(name) for other in self._others if spelt)
        return self._classes.get(name.removeprefix("mmseg.")) or next(filter(None, found), None)

    def names(self) -> tuple[str, ...]:
        """The names that were registered here, in that order."""
        return tuple(self._classes)

    def complete(self) -> tuple[str, ...]:
        """The names of those classes, in the same order, that can be built of their type alone."""
        return tuple(
            name
            for name, cls in self._classes.items()
            if all(each.default is not each.empty for each in inspect.signature(cls).parameters.values())
        )

    def build(self, settings: object, also: Sequence[str] = ()) -> Any:
        """Build from a settings block; a default scope of mmengine has no part in it.

        Args:
            settings: dict of `type` (a name or a class) and its arguments; not modified.
            also: entries that may stand in the block and are not the type's.

        Raises:
            ValueError: an unknown type.
            TypeError: no dict, a type that is none of these, or entries that it does not take.
        """
        if not isinstance(settings, Mapping):
            raise TypeError(f"{self.what} must be a dict such as dict(type={self.names()[0]!r}), got {shown(settings)}")
        kind = settings.get("type")
        taker = self.get(kind) if isinstance(kind, str) else kind
        if not callable(taker):
            raise ValueError(
                f"{self.what}.type {shown(kind)} is not registered{near(kind, self.names())}; there are "
                f"{', '.join(self.names())}"
            )
        if isinstance(taker, type) and not any(self.offers in vars(cls) for cls in taker.__mro__ if cls is not Module):
            raise TypeError(
                f"{self.what}.type {shown(kind)} is no {self.what}, which defines {self.offers}; there are "
                f"{', '.join(self.names())}"
            )
        arguments = {key: value for key, value in settings.items() if key != "type"}
        check_block(f"{self.what} {getattr(taker, '__name__', kind)}", arguments, taker, also)
        return taker(**{key: value for key, value in arguments.items() if key not in also})
