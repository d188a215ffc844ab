"""Where the compiler keeps operands and locals, and what it knows of them."""

import pytest
import wasm_builder as wasm
from jit_modules import MEMORY, Function, build, instantiate
from wasm_builder import exported

from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.codegen.compiler import FunctionCompiler
from asm_libcalls.toy_jit.codegen.layout import CodeLayout
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.frontend.validator import validate_function
from asm_libcalls.toy_jit.link.listing import listing
from asm_libcalls.toy_jit.options import CompileOptions
from wasm_encoding import s, u

pytestmark = pytest.mark.usefixtures("machine_code")

PAGE = 1 << 16


def run(signature, body, *arguments, locals_=""):
    return instantiate({"f": Function(signature, body, locals_)}, **MEMORY).exports["f"](*arguments)


def const(value):
    return f"i32.const {s(value).hex()}"


def machine_code(signature, body, locals_=""):
    """Return the machine instructions of a function."""
    pytest.importorskip("capstone", reason="pip install capstone, to disassemble")
    options = toy_jit.compile_options(listing=True)
    module = toy_jit.Module(build({"f": Function(signature, body, locals_)}, **MEMORY), options)
    return [line.text for line in listing(module, 0) if line.code]


LOOP = "loop 40 {} local.get 00 i32.const 7f i32.add local.tee 00 br_if 00 end"
"""The body of a loop, as often as local 0 says."""


# -- results in registers of locals


def test_a_counter_is_changed_in_place():
    """The decrement sets the flags that the branch takes, and is no copy."""
    code = machine_code("i32 -> i32", LOOP.format("") + " local.get 00")
    at = code.index("add esi, -1")
    assert code[at + 1].startswith("jne ")


def test_an_operand_is_read_before_its_local_is_set():
    body = "local.get 00 local.get 00 i32.const 01 i32.add local.set 00 local.get 00 i32.sub"
    assert run("i32 -> i32", body, 7) == -1
    # Each iteration adds 1 to the counter, and takes 2 away.
    loop = LOOP.replace("i32.const 7f", "i32.const 7e")
    loop = loop.format(body + " local.get 01 i32.add local.set 01") + " local.get 01"
    assert run("i32 -> i32", loop, 9, locals_="i32") == -9


def test_many_operands_that_read_one_local():
    """More than there are registers for, and more than are kept out of the frame."""
    for count in (3, 20, 150):
        body = "local.get 00 " * count + "local.get 00 i32.const 01 i32.add local.set 00 "
        body += "i32.add " * (count - 1) + "local.get 00 i32.add"
        assert run("i32 -> i32", body, 5) == 5 * count + 6


def test_fibonacci_numbers():
    """Two locals take each other's values in a loop."""
    body = LOOP.format("local.get 02 local.get 01 local.get 02 i32.add local.set 02 local.set 01")
    body = f"i32.const 01 local.set 02 {body} local.get 01"
    assert run("i32 -> i32", body, 30, locals_="i32 i32") == 832040


def test_not_commutative_instructions_with_the_target_on_the_right():
    body = LOOP.format("local.get 00 local.get 01 i32.sub local.set 01") + " local.get 01"
    expected = 0
    for i in range(10, 0, -1):
        expected = i - expected
    assert run("i32 -> i32", body, 10, locals_="i32") == expected
    floats = LOOP.format("local.get 00 f64.convert_i32_u local.get 01 f64.div local.set 01")
    expected = 1.0
    for i in range(10, 0, -1):
        expected = i / expected
    start = "f64.const 000000000000f03f local.set 01 "
    assert run("i32 -> f64", start + floats + " local.get 01", 10, locals_="f64") == expected


def test_a_float_in_the_frame_is_compared_with_0():
    for verb, expected in (("gt", 1), ("lt", 0), ("ge", 1), ("le", 0), ("eq", 0), ("ne", 1)):
        assert run("f64 -> i32", f"local.get 00 f64.const {'00' * 8} f64.{verb}", 2.5) == expected


def test_flags_are_not_used_behind_a_merge():
    """At the end of the block, the flags are those of another path."""
    body = (
        "block 40 local.get 00 br_if 00 local.get 01 i32.const 7f i32.add local.set 01 end "
        "local.get 01 if 7f i32.const 01 else i32.const 02 end "
        "local.get 01 i32.add local.get 01 i32.add local.get 01 i32.add"
    )
    assert run("i32 i32 -> i32", body, 0, 1) == 2
    assert run("i32 i32 -> i32", body, 1, 1) == 4
    assert run("i32 i32 -> i32", body, 1, 0) == 2


@pytest.mark.parametrize("condition", range(2))
def test_a_selected_value_may_be_that_of_the_target(condition):
    for pair in ("00 local.get 01", "01 local.get 00"):
        body = f"local.get {pair} local.get 02 select local.set 00 " + "local.get 00 i32.add " * 3
        body = "i32.const 00 " + body.replace("i32.const 00 ", "")
        left, right = (5, 9) if pair.startswith("00") else (9, 5)
        expected = 3 * (left if condition else right)
        assert run("i32 i32 i32 -> i32", body, 5, 9, condition) == expected


# -- memory


def test_a_load_is_the_operand_of_the_next_instruction():
    code = machine_code("i32 f64 -> f64", "local.get 01 local.get 00 f64.load 03 08 f64.mul")
    assert sum("[r14 + " in line for line in code) == 1
    assert any("mulsd" in line and "[r14 + " in line for line in code)


@pytest.mark.parametrize("verb", ["add", "sub", "mul", "and", "or", "xor", "lt_s", "ge_u", "eq"])
def test_operands_in_memory(verb):
    """The address is in the register of the target, of the left operand, or of neither."""
    stored = "i32.const 08 i32.const 0b i32.store 02 00 "
    operand = f"i32.load 02 00 i32.{verb}"
    bodies = (
        f"local.get 01 local.get 00 {operand}",
        f"local.get 01 local.get 00 {operand} local.set 00 local.get 00",
        f"local.get 01 local.get 00 {operand} local.set 01 local.get 01",
        f"i32.const 03 local.get 00 {operand}",
        f"local.get 01 local.get 00 i32.const 04 i32.add i32.const 04 i32.sub {operand}",
    )
    results = {
        run("i32 i32 -> i32", stored + body + tail, 8, 3)
        for body in bodies
        for tail in ("", " local.get 00 local.get 00 i32.sub i32.add")
    }
    expected = {"add": 14, "sub": -8, "mul": 33, "and": 3, "or": 11, "xor": 8, "lt_s": 1}
    assert results == {expected.get(verb, 0)}


def test_an_address_is_checked_once():
    checks = ("[r13 + 8]", "i32.load 02 00")
    once = "local.get 00 {1} local.get 00 i32.load 02 00 i32.add".format(*checks)
    assert sum(checks[0] in line for line in machine_code("i32 -> i32", once)) == 1
    farther = "local.get 00 {1} local.get 00 i32.load 02 04 i32.add".format(*checks)
    assert sum(checks[0] in line for line in machine_code("i32 -> i32", farther)) == 2
    known = "i32.const 08 {1} i32.const 04 i32.load 02 00 i32.add".format(*checks)
    assert sum(checks[0] in line for line in machine_code("i32 -> i32", known)) == 1


@pytest.mark.parametrize(
    "change",
    [
        const(PAGE) + " local.set 00",
        "local.get 00 " + const(PAGE) + " i32.add local.set 00",
        "local.get 00 " + const(PAGE) + " i32.add local.tee 00 drop",
        "local.get 00 if 40 else " + const(PAGE) + " local.set 00 end",
    ],
)
@pytest.mark.parametrize("uses", [0, 3])  # in the frame or in a register
def test_an_address_that_was_set_is_checked_again(change, uses):
    body = f"local.get 00 i32.load 02 00 drop {change} local.get 00 i32.load 02 00"
    body += " local.get 00 i32.add" * uses
    with pytest.raises(IndexError):
        run("i32 -> i32", body, 0)


def test_a_check_behind_a_branch_is_of_its_path():
    body = "local.get 01 if 40 local.get 00 i32.load 02 00 drop end local.get 00 i32.load 02 00"
    for flag in (0, 1):
        assert run("i32 i32 -> i32", body, 8, flag) == 0
        with pytest.raises(IndexError):
            run("i32 i32 -> i32", body, PAGE, flag)


def test_the_last_bytes_of_memory():
    for size, name in ((1, "i32.load8_u 00"), (4, "i32.load 02"), (8, "i64.load 03")):
        result = name[:3]
        for offset in (0, 1, 1000, PAGE - size):
            last = PAGE - size - offset
            for address in ("local.get 00", const(last)):
                body = f"{address} {name} {u(offset).hex()}"
                assert run(f"i32 -> {result}", body, last) == 0
            for address in ("local.get 00", const(last + 1)):
                with pytest.raises(IndexError):
                    run(f"i32 -> {result}", f"{address} {name} {u(offset).hex()}", last + 1)


def test_known_addresses_are_checked_up_to_the_highest():
    body = f"i32.const 04 i32.load 02 00 drop {const(PAGE - 3)} i32.load 02 00"
    with pytest.raises(IndexError):
        run("-> i32", body)


@pytest.mark.parametrize("address", ["local.get 00", "i32.const 08"])
def test_a_call_may_close_the_memory(address):
    load = f"{address} i32.load 02 00"
    functions = {"f": Function("i32 -> i32", f"{load} drop call 00 {load}")}
    binary = build(functions, {"close": "->"}, exports=[exported("memory", 2, 0)], **MEMORY)

    def close():
        instance.exports["memory"].close()

    instance = toy_jit.Instance(toy_jit.Module(binary), {"m": {"close": close}})
    with pytest.raises(IndexError):
        instance.exports["f"](8)


@pytest.mark.parametrize("offset", [0x7FFFFFFB, 0x7FFFFFFC, 0x80000000, 0xFFFFFFFF])
def test_far_offsets(offset):
    for address in ("local.get 00", "i32.const 00", "i32.const 7f"):
        with pytest.raises(IndexError):
            run("i32 -> i32", f"{address} i32.load 02 {u(offset).hex()}", 0xFFFFFFFF)
    with pytest.raises(IndexError):
        run("i32 -> ", f"local.get 00 i32.const 05 i32.store 02 {u(offset).hex()}", 5)


def test_far_offsets_within_memory():
    """The memory is half of the address space and a page; only one page of it is written."""
    size = (1 << 31) + PAGE
    body = "local.get 00 i32.const 07 i32.store8 00 {0} local.get 00 i32.load8_u 00 {0}"
    offset = u(size - 1000).hex()
    functions = {"f": Function("i32 -> i32", body.format(offset))}
    f = instantiate(functions, memories=[b"\x00" + u(size // PAGE)]).exports["f"]
    assert f(999) == 7
    with pytest.raises(IndexError):
        f(1000)


def test_a_stored_value_is_kept_while_the_address_is_loaded():
    """The address is in the frame, and the value in the register that is free last."""
    body = "local.get 00 local.get 01 i32.const 03 i32.add i32.store 02 00 "
    body += "i32.const 08 i32.load 02 00"
    assert run("i32 i32 -> i32", body, 8, 4) == 7


def test_sums_wrap_around_before_they_are_addresses():
    body = "local.get 00 i32.const 10 i32.add i32.load 02 00"
    stored = "i32.const 08 i32.const 07 i32.store 02 00 "
    assert run("i32 -> i32", stored + body, 0xFFFFFFF8) == 7
    with pytest.raises(IndexError):
        run("i32 -> i32", stored + body, 0xFFFFFFE8)


def test_the_compiler_of_functions_has_few_attributes():
    """CPython reads the attributes of an object that has more than 30 slower."""
    decoded = decode_module(wasm.EVERYTHING)
    compiler = FunctionCompiler(CodeLayout(decoded, CompileOptions()))
    for function in range(decoded.imported_functions, len(decoded.functions)):
        compiler.compile(validate_function(decoded, function), decoded.functions[function].type)
    assert len(vars(compiler)) <= 30
