"""Signatures as text: canonical spelling, and what is refused."""

import copy

import pytest

from asm_libcalls.signatures import Signature


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("()", "()"), ("(  )", "()"), ("( i64,i64 )->i64", "(i64, i64) -> i64"),
     ("(vmctx)", "(vmctx)"), ("(f32 , pointer) -> f64", "(f32, pointer) -> f64")],
)  # fmt: skip
def test_signature(text, canonical):
    signature = Signature(text)
    assert signature == canonical
    assert Signature(signature) is signature
    assert copy.deepcopy(signature).parameters == signature.parameters


@pytest.mark.parametrize(
    "text",
    ["", "i32", "(i32", "i32)", "(i32,)", "(,)", "(i33)", "(i32) -> ", "(i32) -> i32 -> i32",
     "(i32) i32", "(I32)", "((i32))"],
)  # fmt: skip
def test_not_a_signature(text):
    with pytest.raises(ValueError, match=r"^signature "):
        Signature(text)


@pytest.mark.parametrize("text", [None, 1, b"(i32)"])
def test_signature_of_another_type(text):
    with pytest.raises(TypeError, match="a signature must be a str"):
        Signature(text)
