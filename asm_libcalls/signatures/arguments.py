"""Arguments from Python: how errors show them, and conversions that many functions share."""

from __future__ import annotations

from _operator import index as _index  # importing operator takes longer
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LONGEST = 60
_MOST_BITS = 256
_MOST_ITEMS = 10_000_000  # as many as a table has elements


def shown(value: object) -> str:
    """Return the text of a value for an error message, shortened; never raise.

    Python refuses to print integers of more than 4300 digits, also inside other objects.
    """
    if issubclass(type(value), int):  # `__class__` may be another
        bits = int.bit_length(value)  # type: ignore[arg-type]
        if bits > _MOST_BITS:
            return f"an integer of {bits} bits"
    try:
        text = repr(value)
    except Exception:
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def shown_address(address: int) -> str:
    """Return the text of what should be an address for an error message."""
    return f"{address:#x}" if address.bit_length() <= 64 else shown(address)


def type_shown(value: object, expected: type) -> str:
    """Return the name of a value's type for an error message.

    It has the module too if its name is that of the class that was expected.
    """
    type_ = type(value)
    name = type_.__name__
    return f"{type_.__module__}.{name}" if name == expected.__name__ else name


def address_from(value: Any, where: str) -> int:
    """Return an integer that should be an address; TypeError for any other object."""
    try:
        return _index(value)
    except TypeError:
        raise TypeError(f"{where} must be an int, got {type(value).__name__}") from None


def printable(name: str) -> str:
    """Return a name with escapes for control characters, ends of lines and lone surrogates.

    A module's names may come from an attacker, who must not write to a terminal or a log.
    """
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun in the singular or the plural: "1 page", "2 memories"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def describe(value: object) -> str:
    """Return the type and the text of a value for an error message; see :func:`shown`."""
    name, text = type(value).__name__, shown(value)
    return text if text.startswith((name, "an ")) else f"{name} {text}"


def integer(
    value: Any,
    where: str,
    expected: str = "an integer",
    lowest: int = 0,
    highest: int | None = None,
    unit: str = "",
) -> int:
    """Return an integer in a range, by default one that is not negative.

    `expected` is what it must be, for example ``"a number of bytes (int)"``. Raise TypeError if it
    is no integer, and ValueError outside of the range.
    """
    try:
        number = _index(value)
    except TypeError:
        raise TypeError(f"{where} must be {expected}, got {describe(value)}") from None
    if lowest <= number and (highest is None or number <= highest):
        return number
    if highest is not None:
        must = f"be in {_bound(lowest)} .. {_bound(highest)}{unit and ' '}{unit}"
    else:
        must = f"be at least {lowest}" if lowest else "not be negative"
    raise ValueError(f"{where} must {must}, got {shown(number)}")


def _bound(number: int) -> str:
    power = (number + 1).bit_length() - 1
    return f"2**{power}-1" if power >= 32 and number + 1 == 1 << power else str(number)


def one_of(value: object, names: tuple[str, ...], where: str) -> str:
    """Return the name that a value equals, or raise ValueError."""
    for name in names:  # return our string, not an object that only compares equal
        if isinstance(value, str) and value == name:
            return name
    raise ValueError(f"{where} must be one of {', '.join(names)}, got {shown(value)}")


def iterator_of(value: Any) -> Iterator[Any]:
    """Return ``iter(value)``; TypeError for pointers of ctypes too.

    They have items without an end: reading them ends the process.
    """
    cls = type(value)
    if not hasattr(cls, "__iter__") and not hasattr(cls, "__len__"):
        raise TypeError(f"{cls.__name__} has no end")
    return iter(value)


def first_items(iterator: Iterator[Any], most: int) -> list[Any]:
    """Return the first items of an iterator, which may have no end: at most `most` and one more."""
    return [*islice(iterator, most + 1)]


def number_of(items: list[Any], most: int) -> str:
    """Return the number of items that :func:`first_items` has read, for an error message."""
    return str(len(items)) if len(items) <= most else f"more than {most}"


def all_items(iterator: Iterator[Any], where: str) -> list[Any]:
    """Return the items of an iterator; ValueError if it has more than any object here can have."""
    items = first_items(iterator, _MOST_ITEMS)
    if len(items) > _MOST_ITEMS:
        raise ValueError(f"{where} must have at most {_MOST_ITEMS} items, and has more")
    return items


def pairs_of(mapping: Any, where: str, expected: str) -> list[tuple[Any, Any]]:
    """Return the keys and values of a mapping; raise as :func:`all_items`, or TypeError."""
    try:
        items = mapping.items()
    except AttributeError:
        raise TypeError(f"{where} must be {expected}, got {describe(mapping)}") from None
    return all_items(iterator_of(items), where)


def items_of(value: Any, where: str, expected: str, most: int | None = None) -> list[Any]:
    """Return the items of an iterable that has an order, and is no text; TypeError for others.

    With `most`, return at most one item more than that, so that the caller can refuse it. Else
    raise as :func:`all_items`.
    """
    if not isinstance(value, (str, bytes, set, frozenset)):
        try:
            iterator = iterator_of(value)
        except TypeError:
            pass
        else:
            return all_items(iterator, where) if most is None else first_items(iterator, most)
    raise TypeError(f"{where} must be {expected}, got {describe(value)}")


def refuse_closed(value: Any, where: str) -> None:
    """Raise ValueError, with the argument's name, if a value is a closed object with a buffer."""
    if getattr(value, "closed", False) is True:
        raise ValueError(f"{where}: the {type(value).__name__} is closed")


def bytes_of(value: Any, where: str) -> bytes:
    """Return the bytes of an object with the buffer protocol; TypeError for numbers and others.

    Raise ValueError if it is closed.
    """
    if type(value) is bytes:
        return value
    refuse_closed(value, where)
    try:
        with memoryview(value) as view:
            # The memory of a number, such as c_void_p(address), is never meant.
            if view.ndim:
                return view.tobytes()
    except TypeError:
        pass
    except ValueError as error:  # a released memoryview
        raise ValueError(f"{where}: {error}") from error
    raise TypeError(f"{where} must be bytes-like, got {describe(value)}")
