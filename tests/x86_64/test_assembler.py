"""Sequences of instructions: invalid ones are refused, with the reason."""

import pytest

pytest.importorskip("peachpy", reason="what is tested here is assembled by PeachPy")

from peachpy.x86_64 import JMP, LABEL, RET, Label

from asm_libcalls.x86_64.assembler import sequence


def test_a_label_that_is_defined_twice():
    def body():
        here = Label("here")
        LABEL(here)
        LABEL(here)
        RET()

    with pytest.raises(ValueError, match="the label here is defined twice"):
        sequence("f", body)


def test_a_label_that_is_not_defined():
    def body():
        JMP(Label("nowhere"))
        RET()

    with pytest.raises(ValueError, match="the label nowhere is not defined"):
        sequence("f", body)


def test_labels_are_symbols():
    def body():
        end = Label("end")
        JMP(end)
        RET()
        LABEL(end)
        RET()

    routine = sequence("f", body)
    assert routine.labels == {"f.end": 3}
    assert bytes(routine.code) == bytes.fromhex("eb01 c3 c3")
