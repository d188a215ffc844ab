"""Globals: numbers bit for bit, references with counts, and mutability."""

import copy
import ctypes
import gc
import math
import weakref

import pytest

import asm_libcalls
from asm_libcalls import Global, Instance, VMExternRef
from asm_libcalls.runtime import externref_boxes


class Thing:
    """Something with a weakref."""


NUMBERS = [
    ("i32", 5, 5, 5),
    ("i32", -1, -1, 0xFFFFFFFF),
    ("i32", 0xFFFFFFFF, -1, 0xFFFFFFFF),
    ("i32", -(2**31), -(2**31), 0x80000000),
    ("i64", -1, -1, 2**64 - 1),
    ("i64", 2**64 - 1, -1, 2**64 - 1),
    ("i64", 2**63 - 1, 2**63 - 1, 2**63 - 1),
    ("f32", 1.5, 1.5, 0x3FC00000),
    ("f32", 0.1, 0.10000000149011612, 0x3DCCCCCD),
    ("f32", -0.0, -0.0, 0x80000000),
    ("f64", 0.1, 0.1, 0x3FB999999999999A),
    ("f64", -math.inf, -math.inf, 0xFFF0000000000000),
    ("f64", 3, 3.0, 0x4008000000000000),
]


@pytest.mark.parametrize(("value_type", "given", "read", "bits"), NUMBERS)
def test_numbers(value_type, given, read, bits):
    for global_ in (Global(value_type, given), Global(value_type, mutable=True)):
        if global_.mutable:
            global_.value = given
        assert global_.value == read
        assert type(global_.value) is type(read)
        assert math.copysign(1, global_.value) == math.copysign(1, read)
        assert global_.bits == bits
    global_.bits = 0
    global_.bits = bits
    assert global_.value == read


@pytest.mark.parametrize(("value_type", "bits"), [("f32", 0x7FA00001), ("f64", 0x7FF4000000000001)])
def test_every_nan_by_its_bits(value_type, bits):
    global_ = Global(value_type, mutable=True)
    global_.bits = bits
    assert global_.bits == bits
    assert math.isnan(global_.value)


@pytest.mark.parametrize("value_type", ["i32", "i64", "f32", "f64"])
def test_numbers_start_at_zero(value_type):
    assert Global(value_type).value == 0
    assert Global(value_type).bits == 0


@pytest.mark.parametrize("value_type", ["funcref", "externref"])
def test_references_start_at_null(value_type):
    assert Global(value_type).value is None
    assert Global(value_type).bits == 0


def test_only_the_low_bytes_of_a_narrow_global_count():
    global_ = Global("i32", 5)
    ctypes.c_uint64.from_address(global_.definition_address).value = 0xFFFFFFFF_00000007
    assert global_.value == 7
    assert global_.bits == 7


@pytest.mark.parametrize(
    ("value_type", "value", "error"),
    [
        ("i32", 2**32, OverflowError),
        ("i32", -(2**31) - 1, OverflowError),
        ("i32", 1.0, TypeError),
        ("i32", "1", TypeError),
        ("i32", None, TypeError),
        ("i64", 2**64, OverflowError),
        ("f32", "1.0", TypeError),
        ("f64", None, TypeError),
        ("f64", 1j, TypeError),
        ("funcref", "x", TypeError),
        ("funcref", 5, TypeError),
    ],
)
def test_refuses_values(value_type, value, error):
    with pytest.raises(error, match=r"^Global\(\): value must be"):
        Global(value_type, value)
    global_ = Global(value_type, mutable=True)
    before = global_.bits
    with pytest.raises(error, match=r"^Global\.value must be"):
        global_.value = value
    assert global_.bits == before


def test_refuses_types():
    for bad in ("i8", "", None, 5, "vmctx", "pointer"):
        with pytest.raises(
            ValueError, match="value_type must be one of i32, i64, f32, f64, v128, f"
        ):
            Global(bad)


def test_refuses_patterns():
    global_ = Global("i32", mutable=True)
    for bad, error in ((-1, OverflowError), (2**32, OverflowError), ("x", TypeError)):
        with pytest.raises(error, match=r"Global\.bits must be a bit pattern"):
            global_.bits = bad
    with pytest.raises(
        TypeError, match="the bits of a reference cannot be set: <Global mutable externref None>"
    ):
        Global("externref", mutable=True).bits = 5


def test_immutable():
    global_ = Global("i32", 5)
    for write in (
        lambda: setattr(global_, "value", 6),
        lambda: setattr(global_, "bits", 6),
    ):
        with pytest.raises(AttributeError, match="the Global is immutable: <Global i32 5>"):
            write()
    assert global_.value == 5
    assert repr(Global("f64", 1.5, True)) == "<Global mutable f64 1.5>"


def test_externref_counts():
    first, second = VMExternRef(Thing()), VMExternRef("second")
    global_ = Global("externref", first, True)
    assert first.strong_count() == 2
    assert global_.value is first.value
    assert global_.bits == first.as_raw()
    global_.value = second
    assert (first.strong_count(), second.strong_count()) == (1, 2)
    global_.value = second
    assert second.strong_count() == 2
    global_.value = None
    assert second.strong_count() == 1
    assert global_.bits == 0
    value = Thing()
    ref = weakref.ref(value)
    global_.value = value
    del value
    assert ref() is global_.value
    global_.close()
    assert ref() is None


@pytest.mark.parametrize("value", [0, False, "", (), 0.0])
def test_a_false_value_of_an_externref(value):
    global_ = Global("externref", mutable=True)
    global_.value = value
    assert global_.value is value
    if type(value) is not int:  # the 0 that is every type's default stands for null
        assert Global("externref", value).value is value
    assert Global("externref", VMExternRef(value)).value is value


def test_a_dead_global_drops_its_value():
    value = VMExternRef(Thing())
    global_ = Global("externref", value)
    del global_
    assert value.strong_count() == 1


def test_funcref_keeps_its_instance():
    instance = Instance(functions=[(1, 2), (3, 4)])
    ref = weakref.ref(instance)
    global_ = Global("funcref", instance.functions[1], True)
    assert global_.value == instance.functions[1]
    assert global_.bits == instance.functions[1].as_raw()
    del instance
    assert global_.value.type_index == 4
    global_.value = None
    gc.collect()
    assert ref() is None


def test_libcalls_read_and_swap(binding):
    value, new = VMExternRef(Thing()), VMExternRef("new")
    global_ = Global("externref", value, True)
    instance = Instance(globals=[Global("i64"), global_])
    get, set_ = (
        binding.libcalls[name] for name in ("externref_global_get", "externref_global_set")
    )
    assert get(instance, 1) == value.as_raw()
    assert value.strong_count() == 3  # the activations table has one
    set_(instance, 1, new)
    assert (value.strong_count(), new.strong_count()) == (2, 2)
    asm_libcalls.gc(instance)
    assert value.strong_count() == 1
    set_(instance, 1, None)
    assert get(instance, 1) == 0
    assert new.strong_count() == 1
    assert len(instance.activations_table) == 0


def test_the_old_value_is_dropped_last(binding):
    seen = []

    class Looks:
        def __del__(self):
            seen.append(global_.value)

    global_ = Global("externref", Looks(), True)
    instance = Instance(globals=[global_])
    new = VMExternRef("new")
    binding.libcalls["externref_global_set"](instance, 0, new)
    assert seen == ["new"]
    global_.value = Looks()
    global_.value = "newer"
    assert seen == ["new", "newer"]


def test_destructor_that_raises_is_heard(binding):
    error = ValueError("from a destructor")

    class Raises:
        def __del__(self):
            raise error

    global_ = Global("externref", Raises(), True)
    instance = Instance(globals=[global_])
    with pytest.raises(ValueError, match="from a destructor") as caught:
        binding.libcalls["externref_global_set"](instance, 0, VMExternRef("new"))
    assert caught.value is error
    assert global_.value == "new"


def test_closed():
    global_ = Global("externref", "x", True)
    global_.close()
    global_.close()
    assert global_.closed
    assert repr(global_) == "<Global closed>"
    value = VMExternRef("y")
    for use in (
        lambda: global_.value,
        lambda: global_.bits,
        lambda: setattr(global_, "value", value),
        lambda: setattr(global_, "bits", 1),
        lambda: global_.definition_address,
    ):
        with pytest.raises(ValueError, match="the Global is closed"):
            use()
    assert value.strong_count() == 1


def test_is_not_copied():
    for make_copy in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="Global objects cannot be copied"):
            make_copy(Global("externref", "x"))


@pytest.mark.parametrize("name", ["externref_global_get", "externref_global_set"])
def test_at_their_addresses_the_libcalls_know_the_type_too(name):
    libcall = asm_libcalls.LIBCALLS[name]
    call = asm_libcalls.catch_traps(libcall.address, libcall.signature)
    number, reference = Global("i32", 1, mutable=True), Global("externref", None, mutable=True)
    instance = Instance(globals=[number, reference])
    arguments = [None] * (len(libcall.signature.parameters) - 2)
    with pytest.raises(TypeError, match="global 0 has type i32, not externref"):
        call(instance.vmctx, 0, *arguments)
    reference.close()
    with pytest.raises(ValueError, match="global 1 is closed"):
        call(instance.vmctx, 1, *arguments)


def test_of_bits_or_a_reference():
    """A float's NaN keeps its bits; everything else is its Python value."""
    for value_type, pattern in (("f32", 0x7FA00001), ("f64", 0xFFF4000000000001)):
        made = Global.from_bits_or_reference(value_type, pattern, True)
        assert (made.value_type, made.mutable, made.bits) == (value_type, True, pattern)
    made = Global.from_bits_or_reference("i32", -1, False)
    assert (made.value_type, made.mutable, made.value) == ("i32", False, -1)
    thing = Thing()
    assert Global.from_bits_or_reference("externref", thing, False).value is thing


def test_a_closed_global_takes_nothing():
    global_ = Global("i64", 5, mutable=True)
    global_.close()
    for change in (
        lambda: setattr(global_, "bits", 6),
        lambda: setattr(global_, "value", 6),
        lambda: global_.swap_raw(externref_boxes.Counts((0,))),
    ):
        with pytest.raises(ValueError, match="closed"):
            change()
