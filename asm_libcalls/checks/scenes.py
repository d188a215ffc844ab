"""Base classes for the checkers of stateful families: an instance in a known state, and its model.

A case is the numbers of a call without its vmctx; a reference is its index in the scene. Each
implementation has its own :class:`Scene`, which is reset before each case; the oracle has a model
of it in plain Python lists. The result or the trap is compared, and the whole state afterwards: a
trap must change nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from random import Random
from typing import Any, ClassVar

from asm_libcalls.checks.engine import Checker, Implementation, Outcome, observe, served_functions
from asm_libcalls.libcall import Libcall

U32_MAXIMUM = 0xFFFFFFFF

State = tuple[tuple[str, Any], ...]
"""The state that a libcall of the family may change, by name."""


class Scene(ABC):
    """An instance with the objects that a family's libcalls work on."""

    @abstractmethod
    def reset(self) -> None:
        """Restore the initial state."""

    @abstractmethod
    def patterns(self, libcall: Libcall, case: Sequence[int]) -> list[int]:
        """Return the bit patterns of a case, the vmctx included."""

    @abstractmethod
    def state(self) -> State:
        """Return the state that may have changed."""

    def result(self, pattern: int) -> int:
        """Return a result without addresses, equal in every scene."""
        return pattern


class Model(ABC):
    """The oracle: the scene in plain Python, with a method for each libcall of the family."""

    @abstractmethod
    def state(self) -> State:
        """Return the state that may have changed, as :meth:`Scene.state` does."""


class SceneChecker(Checker):
    """A checker of a family whose libcalls work on an instance."""

    # `scene`, `model`: classes to instantiate for each implementation, and for the oracle
    scene: Callable[[], Scene]
    model: Callable[[], Any]
    # the edge values of each parameter, by its name in the table
    values: ClassVar[Mapping[str, Sequence[int]]]
    # the parameters that are free numbers, and the number of bits to try of each
    between: ClassVar[Mapping[str, int]]

    def parameters(self, libcall: Libcall) -> tuple[str, ...]:
        """Return the names of the numbers in a case."""
        return tuple(name for name in libcall.declaration.parameters if name != "vmctx")

    def choices(self, libcall: Libcall, parameter: str) -> Sequence[int]:
        """Return the edge values of a parameter of a libcall."""
        return self.values[parameter]

    def is_legal(self, libcall: Libcall, case: Sequence[int]) -> bool:
        """Return whether a validated module may make this call."""
        return True

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, ...]]:
        """Yield every legal combination of the edge values."""
        choices = [self.choices(libcall, name) for name in self.parameters(libcall)]
        return (case for case in product(*choices) if self.is_legal(libcall, case))

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, ...]]:
        """Yield legal calls: indices out of the edge values, free numbers also between them.

        Without a free number nothing is yielded: the edge cases are all cases.
        """
        names = self.parameters(libcall)
        while self.between.keys() & set(names):
            case = tuple(self._random(libcall, name, source) for name in names)
            if self.is_legal(libcall, case):
                yield case

    def _random(self, libcall: Libcall, name: str, source: Random) -> int:
        choices = self.choices(libcall, name)
        if name in self.between and source.getrandbits(2):
            return source.getrandbits(source.getrandbits(5) % self.between[name] + 1)
        return choices[source.getrandbits(16) % len(choices)]

    def implementations(self, libcall: Libcall) -> dict[str, Implementation]:
        """Return the implementations, the one that serves first, each with its scene or model."""
        found: dict[str, Implementation] = {
            name: partial(_run_in_scene, libcall, function, self.scene())
            for name, function in served_functions(libcall).items()
        }
        found["oracle"] = partial(_run_in_model, libcall.name, self.model)
        return found

    def describe_inputs(self, libcall: Libcall, case: Sequence[int]) -> dict[str, dict[str, str]]:
        """Return the numbers of a case."""
        return {
            name: {"type": "number", "bits": f"{number:#x}", "text": str(number)}
            for name, number in zip(self.parameters(libcall), case, strict=True)
        }


def _run_in_scene(
    libcall: Libcall, function: Callable[..., int], scene: Scene, case: Sequence[int]
) -> Outcome:
    try:
        scene.reset()
        outcome = observe(function, *scene.patterns(libcall, case))
        result = outcome.result
        if result is not None:
            result = None if libcall.signature.result is None else scene.result(result)
        return outcome._replace(result=result, effects=scene.state())
    except Exception as error:  # this call, or an earlier one, has corrupted the scene
        return Outcome(None, error=f"the state cannot be read: {type(error).__name__}: {error}")


def _run_in_model(name: str, make_model: Callable[[], Any], case: Sequence[int]) -> Outcome:
    model = make_model()
    outcome = observe(getattr(model, name), *case)
    return outcome._replace(effects=model.state())
