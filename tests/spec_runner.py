"""Runs one file of the official WebAssembly spec tests, as wast2json writes them.

Every assertion is made, and every failure is collected: the report of a file names the line of
each. The one thing that is left out, and counted, is what only the text format can say: a module
in text that is malformed as text.
"""

import json
import struct
from pathlib import Path

import asm_libcalls
from asm_libcalls import toy_jit

_CANONICAL = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}
_SIGN = {"f32": 1 << 31, "f64": 1 << 63}
_WIDTHS = {"i8": 8, "i16": 16, "i32": 32, "i64": 64, "f32": 32, "f64": 64}


class HostObject:
    """The host object that an externref "N" of the data stands for."""

    def __init__(self, number):
        self.number = number


def spectest():
    """Make the module that the tests import from."""

    def f32(value):
        return struct.unpack("<f", struct.pack("<f", value))[0]

    printers = (
        "print", "print_i32", "print_i64", "print_f32", "print_f64", "print_i32_f32",
        "print_f64_f64",
    )  # fmt: skip
    return {
        "global_i32": asm_libcalls.Global("i32", 666),
        "global_i64": asm_libcalls.Global("i64", 666),
        "global_f32": asm_libcalls.Global("f32", f32(666.6)),
        "global_f64": asm_libcalls.Global("f64", 666.6),
        "table": asm_libcalls.Table("funcref", 10, 20),
        "memory": asm_libcalls.Memory(1, 2),
        **{name: lambda *arguments: None for name in printers},
    }


class SpecFile:
    """A file of commands, and the modules and instances that they make."""

    def __init__(self, path):
        self.path = Path(path)
        self.objects = {}
        self.imports = {"spectest": spectest()}
        self.named = {}
        self.current = None
        self.failures = []
        self.assertions = 0
        self.malformed_text = 0

    def run(self):
        """Run all commands; return the failures, a line each."""
        for command in json.loads(self.path.read_text())["commands"]:
            try:
                getattr(self, command["type"])(command)
            except Exception as error:
                line = command.get("line")
                self.failures.append(
                    f"{self.path.stem}:{line}: {command['type']}: {type(error).__name__}: {error}"
                )
        return self.failures

    # -- commands

    def module(self, command):
        self.current = None
        self.current = self._instantiate(command)
        if command.get("name"):
            self.named[command["name"]] = self.current

    def register(self, command):
        self.imports[command["as"]] = self._instance(command).exports

    def action(self, command):
        self._act(command["action"])

    def assert_return(self, command):
        self.assertions += 1
        results = self._act(command["action"])
        expected = command["expected"]
        if len(results) != len(expected):
            raise AssertionError(f"{len(results)} results, expected {len(expected)}")
        for result, value in zip(results, expected, strict=True):
            if not self._matches(result, value):
                raise AssertionError(f"got {result!r}, expected {value}")

    def assert_trap(self, command):
        self.assertions += 1
        self._expect_trap(lambda: self._act(command["action"]), command["text"])

    def assert_exhaustion(self, command):
        self.assertions += 1
        self._expect_trap(lambda: self._act(command["action"]), command["text"])

    def assert_uninstantiable(self, command):
        self.assertions += 1
        self._expect_trap(lambda: self._instantiate(command), command["text"])

    def assert_unlinkable(self, command):
        self.assertions += 1
        self._expect(toy_jit.LinkError, lambda: self._instantiate(command))

    def assert_invalid(self, command):
        self.assertions += 1
        binary = self._binary(command)
        self._expect(toy_jit.InvalidModule, lambda: toy_jit.Module(binary))

    def assert_malformed(self, command):
        if command.get("module_type") == "text":
            self.malformed_text += 1
        else:
            self.assert_invalid(command)

    # -- their parts

    def _binary(self, command):
        # Some converters keep a module that is quoted as text, and say where its binary is.
        name = command.get("binary_filename") or command["filename"]
        binary = (self.path.parent / name).read_bytes()
        if not name.endswith(".wasm"):
            raise AssertionError(f"{name} is text, and the data has no binary of it")
        return binary

    def _instantiate(self, command):
        return toy_jit.Instance(toy_jit.Module(self._binary(command)), self.imports)

    def _instance(self, command):
        return self.named[command["name"]] if command.get("name") else self.current

    def _act(self, action):
        instance = self.named[action["module"]] if action.get("module") else self.current
        export = instance.exports[action["field"]]
        if action["type"] == "get":
            value_type = export.value_type
            return ((export.value if value_type.endswith("ref") else export.bits),)
        return export.call_bits(*(self._value(v) for v in action["args"]))

    def _value(self, value):
        if value["type"] in ("externref", "funcref"):
            if value["value"] == "null":
                return None
            return self.objects.setdefault(value["value"], HostObject(value["value"]))
        return _pattern(value)

    def _matches(self, result, expected):
        value_type, text = expected["type"], expected.get("value")
        if value_type == "v128":
            lane_type = expected["lane_type"]
            width = _WIDTHS[lane_type]
            assert len(text) * width == 128
            return result >> 128 == 0 and all(
                self._matches(
                    result >> i * width & (1 << width) - 1, {"type": lane_type, "value": lane}
                )
                for i, lane in enumerate(text)
            )
        if value_type == "externref":
            return result is self._value(expected)
        if value_type == "funcref":
            if text == "null":
                return result is None
            return isinstance(result, toy_jit.Func)
        if text in ("nan:canonical", "nan:arithmetic"):
            canonical = _CANONICAL[value_type]
            if text == "nan:canonical":
                return result & ~_SIGN[value_type] == canonical
            return result & canonical == canonical
        return result == _pattern(expected)

    def _expect(self, kind, do):
        try:
            do()
        except kind:
            return
        raise AssertionError(f"no {kind.__name__}")

    def _expect_trap(self, do, text):
        try:
            do()
        except asm_libcalls.Trap as trap:
            message = str(trap)
            if not (message.startswith(text) or text.startswith(message)):
                raise AssertionError(f"trapped with {message!r}, expected {text!r}") from None
            return
        raise AssertionError(f"no trap, expected {text!r}")


def _pattern(value):
    """Return the bits of a number: some converters write them as a signed integer."""
    if value["type"] == "v128":
        width = _WIDTHS[value["lane_type"]]
        lanes = [int(lane) % (1 << width) for lane in value["value"]]
        assert len(lanes) * width == 128
        return sum(lane << i * width for i, lane in enumerate(lanes))
    return int(value["value"]) % (1 << _WIDTHS[value["type"]])
