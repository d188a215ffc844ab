"""Standard streams: the objects that a user may give, and the guest's view of them."""

import copy
import io
import os
import pickle
import pty
import sys

import pytest
from wasi_guest import RESULT, Guest

from asm_libcalls.toy_jit.wasi import Preview1
from asm_libcalls.toy_jit.wasi.abi import FileType, Right
from asm_libcalls.toy_jit.wasi.errors import Errno

pytestmark = pytest.mark.usefixtures("machine_code")


def filetype(guest, fd):
    guest.ok("fd_fdstat_get", fd, 2048)
    return guest.memory[2048]


def rights(guest, fd):
    guest.ok("fd_fdstat_get", fd, 2048)
    return guest.u64(2048 + 8)


# -- stdin


def all_of(guest):
    parts = []
    while part := guest.read(0, 4):
        assert not isinstance(part, Errno), part
        parts.append(part)
    return b"".join(parts)


def opened(path, mode):
    path.write_bytes(b"some text")
    return path.open(mode)


INPUTS = {
    "bytes": lambda path: b"some text",
    "bytearray": lambda path: bytearray(b"some text"),
    "memoryview": lambda path: memoryview(b"some text"),
    "BytesIO": lambda path: io.BytesIO(b"some text"),
    "StringIO": lambda path: io.StringIO("some text"),
    "TextIOWrapper": lambda path: io.TextIOWrapper(io.BytesIO(b"some text")),
    "binary file": lambda path: opened(path, "rb"),
    "text file": lambda path: opened(path, "r"),
    "descriptor": lambda path: os.open(opened(path, "rb").name, os.O_RDONLY),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", INPUTS)
def test_stdin(tmp_path, kind):
    with Guest(stdin=INPUTS[kind](tmp_path / "file")) as guest:
        assert all_of(guest) == b"some text"
        assert guest.read(0) == b""
        assert guest.write(0, b"x") == Errno.BADF


def test_stdin_is_empty_if_nothing_is_said():
    with Guest() as guest:
        assert guest.read(0) == b""
        assert filetype(guest, 0) == FileType.UNKNOWN


def test_an_object_that_only_reads_text():
    class Reader:
        def __init__(self):
            self.parts = ["ä", "", "more"]

        def read(self, count):
            return self.parts.pop(0)

    with Guest(stdin=Reader()) as guest:
        assert guest.read(0, 1) == "ä".encode()[:1]  # and the rest is not lost
        assert guest.read(0, 10) == "ä".encode()[1:]
        assert guest.read(0) == b""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(5, "broken"), Errno.IO),
        (io.UnsupportedOperation("read"), Errno.BADF),
        (BrokenPipeError(32, "pipe"), Errno.PIPE),
        (MemoryError(), Errno.NOMEM),
    ],
)
def test_what_a_stream_raises_as_an_error_number(error, expected):
    stream = Raising(error)
    with Guest(stdin=stream, stdout=stream) as guest:
        assert guest.read(0) == expected
        assert guest.write(1, b"x") == expected


class Raising:
    closed = False

    def __init__(self, error):
        self.error = error

    def read(self, count):
        raise self.error

    def write(self, data):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), UnicodeError("u"), RuntimeError("y"), TypeError("t"), KeyError("k"),
        AssertionError("a"), KeyboardInterrupt(), OSError("without a number"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_else_a_stream_raises_is_for_the_caller(error):
    stream = Raising(error)
    with Guest(stdin=stream, stdout=stream) as guest:
        for use in (lambda: guest.read(0), lambda: guest.write(1, b"x")):
            with pytest.raises(type(error)) as caught:
                use()
            assert caught.value is error


def test_a_closed_stream_is_an_error_number():
    stream, given = Raising(ValueError("I/O operation on closed file")), io.BytesIO(b"x")
    with Guest(stdin=given, stdout=stream) as guest:
        stream.closed = True
        given.close()
        assert guest.read(0) == guest.write(1, b"x") == Errno.BADF


@pytest.mark.parametrize("count", [-5, -1, 2, 10**9, 1 << 300])
def test_a_write_of_another_count_than_it_can_be(count):
    class Writer:
        def write(self, data):
            return count

    message = r"stdout: the result of write\(\) must "
    with Guest(stdout=Writer()) as guest, pytest.raises(ValueError, match=message):
        guest.write(1, b"x")


def test_a_read_of_no_bytes():
    class Reader:
        def read(self, count):
            return 5

    message = r"stdin: the result of read\(\) must be bytes-like, got int 5"
    with Guest(stdin=Reader()) as guest, pytest.raises(TypeError, match=message):
        guest.read(0)


# -- stdout and stderr


@pytest.mark.parametrize(("fd", "name"), [(1, "stdout"), (2, "stderr")])
def test_python_s_own_streams(capsys, fd, name):
    """The current ones, at each write."""
    with Guest() as guest:
        print("before", file=getattr(sys, name))
        guest.write(fd, b"hello \xc3\xa4\n")
        print("after", file=getattr(sys, name))
        assert guest.read(fd) == Errno.BADF
    assert getattr(capsys.readouterr(), name[3:]) == "before\nhello ä\nafter\n"


def test_python_s_own_descriptors(capfd):
    with Guest() as guest:
        print("before")
        guest.write(1, b"hello\n")
        print("after")
    assert capfd.readouterr().out == "before\nhello\nafter\n"


def test_python_without_a_stream(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with Guest() as guest:
        assert guest.write(1, b"x") == Errno.BADF


def test_outputs(tmp_path):
    binary, text = io.BytesIO(), io.StringIO()
    with Guest(stdout=binary, stderr=text) as guest:
        assert guest.write(1, b"\xff\0") == 2
        for byte in "ä€".encode():  # a character in pieces
            assert guest.write(2, bytes([byte])) == 1
    assert binary.getvalue() == b"\xff\0"
    assert text.getvalue() == "ä€"
    with (tmp_path / "out").open("w") as file:
        file.write("first ")  # it is in Python's buffer still
        with Guest(stdout=file) as guest:
            guest.write(1, b"second")
            assert filetype(guest, 1) == FileType.REGULAR_FILE
            guest.ok("fd_filestat_get", 1, 2048)
            assert guest.u64(2048 + 32) == 12
    assert (tmp_path / "out").read_text() == "first second"


def test_a_stream_that_takes_a_part():
    class Raw(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            return 3

    with Guest(stdout=Raw()) as guest:
        assert guest.write(1, b"12345") == 3


def test_a_terminal():
    """It is one for the guest, since it cannot be moved in: wasi-libc's isatty asks that."""
    leader, follower = pty.openpty()
    with Guest(stdin=follower, stdout=follower) as guest:
        for fd in (0, 1):
            assert filetype(guest, fd) == FileType.CHARACTER_DEVICE
            assert not rights(guest, fd) & (Right.FD_SEEK | Right.FD_TELL)
        assert guest.write(1, b"hello") == 5
        assert os.read(leader, 5) == b"hello"
        os.write(leader, b"typed\n")
        assert guest.read(0) == b"typed\n"
        assert guest.call("fd_seek", 0, 0, 0, RESULT) == Errno.SPIPE
    with Guest(stdin=os.open(os.devnull, os.O_RDONLY)) as guest:
        assert rights(guest, 0) & Right.FD_SEEK
    os.close(leader)
    os.close(follower)


def test_other_calls_on_streams():
    with Guest(stdin=b"x", stdout=io.BytesIO()) as guest:
        for fd in (0, 1):
            assert guest.call("fd_seek", fd, 0, 0, RESULT) == Errno.SPIPE
            assert guest.call("fd_tell", fd, RESULT) == Errno.SPIPE
            assert guest.call("fd_filestat_set_size", fd, 0) == Errno.BADF
            assert guest.call("fd_advise", fd, 0, 0, 0) == Errno.BADF
            guest.ok("fd_filestat_get", fd, 2048)
            guest.ok("fd_sync", fd)
            assert guest.call("fd_filestat_set_times", fd, 0, 0, 5) == Errno.NOTSUP
            for name, count in (("sock_recv", 5), ("sock_send", 4), ("sock_shutdown", 1)):
                assert guest.call(name, fd, *[0] * count) == Errno.NOTSOCK
        assert guest.write(1, b"x", 0) == Errno.SPIPE
        assert guest.call("sock_shutdown", 9, 0) == Errno.BADF
        assert guest.call("proc_raise", 9) == Errno.NOSYS


# -- what is refused

WRONG = [
    ({"args": "prog"}, TypeError, "args must be a sequence of str or bytes, got str"),
    ({"args": [1]}, TypeError, r"args\[0\] must be a str or bytes, got int"),
    ({"args": ["a", "b\0"]}, ValueError, r"args\[1\] must not have a NUL"),
    ({"env": ["A=1"]}, TypeError, "env must be a mapping, got list"),
    ({"env": {"A=": "1"}}, ValueError, "'A=' is not a name of an environment variable"),
    ({"env": {"": "1"}}, ValueError, "'' is not a name"),
    ({"env": {"A": 1}}, TypeError, r"env\['A'\] must be a str or bytes, got int"),
    ({"stdin": "text"}, TypeError, r"stdin must be None, bytes, a file descriptor, or have read"),
    ({"stdin": True}, TypeError, "stdin must be .* got bool"),
    ({"stdout": b"x"}, TypeError, r"stdout must be None, a file descriptor, or have write\(\)"),
    ({"stdout": 987654}, ValueError, "stdout: 987654 is not an open file descriptor"),
    ({"stderr": -1}, ValueError, "stderr: -1 is not an open file descriptor"),
    ({"preopens": ["/"]}, TypeError, "preopens must be a mapping, got list"),
    ({"preopens": {"": "/"}}, ValueError, "a name in preopens must not be empty"),
    ({"preopens": {"/": 3.5}}, TypeError, "float"),
    ({"preopens": {"/": "/nothing/here"}}, FileNotFoundError, "nothing"),
    ({"preopens": {"/": __file__}}, NotADirectoryError, "test_streams"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG)
def test_wrong_arguments(options, kind, message):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 (names)
    with pytest.raises(kind, match=message):
        Preview1(**options)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(copier):
    """Closing a copy would close the descriptors, and a copy could run a program once more."""
    with Preview1() as wasi, pytest.raises(TypeError, match=r"^Preview1 objects .* descriptors$"):
        copier(wasi)


def test_it_is_a_mapping_of_imports():
    with Preview1(args=["prog", "x"]) as wasi:
        assert list(wasi) == ["wasi_snapshot_preview1"]
        assert len(wasi) == 1
        assert len(wasi["wasi_snapshot_preview1"]) == 46
        with pytest.raises(KeyError):
            wasi["env"]
        assert {**wasi, "env": {}}.keys() == {"wasi_snapshot_preview1", "env"}
        assert repr(wasi) == "<Preview1 'prog x'>"
