"""Files and folders beneath a preopen: the result and the errors of each call."""

import os
import stat
import struct
import time

import pytest
from wasi_guest import ALL_RIGHTS, FOLLOW, RESULT, Guest

from asm_libcalls.toy_jit.wasi.abi import FdFlag, FileType, OFlag, Right
from asm_libcalls.toy_jit.wasi.descriptors import MAXIMUM
from asm_libcalls.toy_jit.wasi.errors import Errno

pytestmark = pytest.mark.usefixtures("machine_code", "resolver")

CREAT, DIRECTORY, EXCL, TRUNC = OFlag.CREAT, OFlag.DIRECTORY, OFlag.EXCL, OFlag.TRUNC


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "preopened"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_bytes(b"0123456789")
    (folder / "link").symlink_to("file")
    (folder / "to_sub").symlink_to("sub")
    return folder


@pytest.fixture
def guest(folder):
    with Guest(preopens={"/data": folder}) as guest:
        yield guest


def fdstat(guest, fd):
    guest.ok("fd_fdstat_get", fd, 2048)
    return struct.unpack_from("<BxH4xQQ", guest.memory, 2048)


def filestat(guest, fd):
    guest.ok("fd_filestat_get", fd, 2048)
    return struct.unpack_from("<QQB7xQQQQQ", guest.memory, 2048)


# -- reading and writing


def test_read_write_seek(guest, folder):
    fd = guest.open("new", CREAT | EXCL, writes=True)
    assert fd == 4
    assert guest.write(fd, b"hello world") == 11
    guest.ok("fd_seek", fd, -5, 2, RESULT)
    assert guest.u64() == 6
    guest.ok("fd_tell", fd, RESULT)
    assert guest.u64() == 6
    assert guest.read(fd, 3) == b"wor"
    assert guest.write(fd, b"LD!", 9) == 3
    guest.ok("fd_tell", fd, RESULT)
    assert guest.u64() == 9
    assert guest.read(fd) == b"LD!"
    assert guest.read(fd) == b""
    guest.ok("fd_sync", fd)
    guest.ok("fd_datasync", fd)
    guest.ok("fd_close", fd)
    assert (folder / "new").read_bytes() == b"hello worLD!"
    assert guest.call("fd_close", fd) == Errno.BADF
    assert guest.open("new", CREAT | EXCL) == Errno.EXIST


def test_several_buffers(guest):
    fd = guest.open("file")
    vectors = guest.put(struct.pack("<8I", 3000, 2, 3100, 0, 3200, 3, 3300, 100))
    guest.ok("fd_read", fd, vectors, 4, RESULT)
    assert guest.u32() == 10
    found = [bytes(guest.memory[at : at + n]) for at, n in ((3000, 2), (3200, 3), (3300, 5))]
    assert found == [b"01", b"234", b"56789"]
    guest.ok("fd_pread", fd, vectors, 1, 4, RESULT)
    assert bytes(guest.memory[3000:3002]) == b"45"


def test_more_buffers_than_the_host_takes(guest, folder):
    """What is left of them the guest writes next, as of every short write."""
    fd = guest.open("many", CREAT, writes=True)
    guest.memory[40000:40001] = b"x"
    vectors = 8192
    for i in range(1500):
        struct.pack_into("<II", guest.memory, vectors + 8 * i, 40000, 1)
    guest.ok("fd_write", fd, vectors, 1500, RESULT)
    written = guest.u32()
    assert 0 < written <= 1500
    assert (folder / "many").read_bytes() == b"x" * written


def test_seeking(guest):
    fd = guest.open("file")
    assert guest.call("fd_seek", fd, -1, 0, RESULT) == Errno.INVAL
    assert guest.call("fd_seek", fd, 0, 3, RESULT) == Errno.INVAL
    guest.ok("fd_seek", fd, 1 << 40, 0, RESULT)
    assert guest.u64() == 1 << 40
    assert guest.read(fd) == b""


@pytest.mark.parametrize("call", ["fd_pread", "fd_pwrite"])
def test_offsets_beyond_the_host(guest, call):
    fd = guest.open("file", writes=True)
    vector = guest.put(struct.pack("<II", 3000, 2))
    assert guest.call(call, fd, vector, 1, -1, RESULT) == Errno.INVAL
    assert guest.call(call, fd, vector, 1, 1 << 63, RESULT) == Errno.INVAL


def test_appending(guest, folder):
    fd = guest.open("file", writes=True, flags=FdFlag.APPEND)
    assert fdstat(guest, fd)[1] == FdFlag.APPEND
    assert guest.write(fd, b"ab") == 2
    guest.ok("fd_fdstat_set_flags", fd, 0)
    guest.ok("fd_seek", fd, 0, 0, RESULT)
    assert guest.write(fd, b"X") == 1
    guest.ok("fd_fdstat_set_flags", fd, FdFlag.APPEND | FdFlag.NONBLOCK)
    assert guest.write(fd, b"c") == 1
    assert (folder / "file").read_bytes() == b"X123456789abc"
    assert fdstat(guest, fd)[1] == FdFlag.APPEND | FdFlag.NONBLOCK
    assert guest.call("fd_fdstat_set_flags", fd, FdFlag.SYNC) == Errno.NOTSUP
    assert guest.call("fd_fdstat_set_flags", fd, 32) == Errno.INVAL


def test_how_it_was_opened(guest, folder):
    readable, writable = guest.open("file"), guest.open("file", writes=True)
    assert guest.write(readable, b"x") == Errno.BADF
    assert guest.call("fd_filestat_set_size", readable, 3) == Errno.BADF
    assert guest.call("fd_allocate", readable, 0, 100) == Errno.BADF
    only = guest.call("path_open", 3, FOLLOW, "file", 0, Right.FD_WRITE, 0, 0, RESULT)
    assert only == Errno.SUCCESS
    only = guest.u32()
    assert guest.read(only) == Errno.BADF
    assert guest.write(only, b"abc") == 3
    guest.ok("fd_filestat_set_size", writable, 4)
    assert (folder / "file").read_bytes() == b"abc3"
    guest.ok("fd_allocate", writable, 2, 6)
    assert (folder / "file").stat().st_size == 8


def test_truncating(guest, folder):
    guest.open("file", TRUNC, writes=True)
    assert (folder / "file").read_bytes() == b""


@pytest.mark.parametrize("advice", range(8))
def test_advice(guest, advice):
    fd = guest.open("file")
    expected = Errno.SUCCESS if advice < 6 else Errno.INVAL
    assert guest.call("fd_advise", fd, 0, 10, advice) == expected


# -- opening


def test_opening_what_is_not_there(guest):
    assert guest.open("nothing") == Errno.NOENT
    assert guest.open("nothing/x") == Errno.NOENT
    assert guest.open("file/x") == Errno.NOTDIR
    assert guest.open("file/") == Errno.NOTDIR
    assert guest.open("file", DIRECTORY) == Errno.NOTDIR
    assert guest.open("sub", writes=True) == Errno.ISDIR
    assert guest.open("new/", CREAT) == Errno.ISDIR
    assert guest.open("sub", CREAT | DIRECTORY) == Errno.INVAL
    assert guest.open("file", 16) == Errno.INVAL
    assert guest.open("file", flags=32) == Errno.INVAL
    assert guest.open("file", fd=99) == Errno.BADF
    assert guest.open("file", fd=1) == Errno.NOTDIR
    assert guest.open("x", fd=guest.open("file")) == Errno.NOTDIR


def test_links(guest, folder):
    assert guest.read(guest.open("link")) == b"0123456789"
    assert guest.open("link", follow=0) == Errno.LOOP
    assert guest.open("to_sub", DIRECTORY, follow=0) in (Errno.LOOP, Errno.NOTDIR)
    assert not isinstance(guest.open("to_sub/", DIRECTORY, follow=0), Errno)
    (folder / "dangling").symlink_to("sub/made")
    assert guest.open("dangling") == Errno.NOENT
    assert guest.open("dangling", CREAT | EXCL, writes=True) == Errno.EXIST
    fd = guest.open("dangling", CREAT, writes=True)
    guest.write(fd, b"x")
    assert (folder / "sub" / "made").read_bytes() == b"x"


def test_descriptors_are_limited(guest):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 (names)
    fds = []
    while not isinstance(fd := guest.open("file"), Errno):
        fds.append(fd)
    assert fd == Errno.MFILE
    assert len(fds) == MAXIMUM - 4
    assert fds == list(range(4, MAXIMUM))
    guest.ok("fd_close", 100)
    assert guest.open("file") == 100
    guest.wasi.close()
    guest.wasi.close()
    after = os.listdir("/proc/self/fd")  # noqa: PTH208
    assert len(after) == len(before) - 1  # the preopened folder's is closed too
    assert guest.call("fd_close", 4) == Errno.BADF


def test_descriptors_are_closed_with_the_guest(folder):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    guest = Guest(preopens={"/data": folder})
    for _ in range(5):
        guest.open("file")
    del guest
    import gc

    gc.collect()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_renumber(guest):
    first, second = guest.open("file"), guest.open("sub", DIRECTORY)
    guest.ok("fd_renumber", first, second)
    assert guest.read(second) == b"0123456789"
    assert guest.call("fd_tell", first, RESULT) == Errno.BADF
    guest.ok("fd_renumber", second, second)
    assert guest.call("fd_renumber", second, 77) == Errno.BADF
    assert guest.call("fd_renumber", 77, second) == Errno.BADF


# -- rights


def test_rights_that_are_given_up(guest):
    fd = guest.open("file", writes=True)
    _, _, rights, _ = fdstat(guest, fd)
    guest.ok("fd_fdstat_set_rights", fd, rights & ~Right.FD_READ, 0)
    assert guest.read(fd) == Errno.NOTCAPABLE
    assert guest.call("fd_fdstat_set_rights", fd, rights, 0) == Errno.NOTCAPABLE
    assert guest.write(fd, b"x") == 1


PATH_RIGHTS = {
    Right.PATH_OPEN: ("path_open", 3, 0, "file", 0, 0, 0, 0, RESULT),
    Right.PATH_CREATE_FILE: ("path_open", 3, 0, "file", CREAT, 0, 0, 0, RESULT),
    Right.PATH_FILESTAT_SET_SIZE: ("path_open", 3, 0, "file", TRUNC, 0, 0, 0, RESULT),
    Right.PATH_CREATE_DIRECTORY: ("path_create_directory", 3, "d"),
    Right.PATH_LINK_SOURCE: ("path_link", 3, 0, "file", 3, "hard"),
    Right.PATH_LINK_TARGET: ("path_link", 3, 0, "file", 3, "hard"),
    Right.PATH_READLINK: ("path_readlink", 3, "link", 2048, 10, RESULT),
    Right.PATH_RENAME_SOURCE: ("path_rename", 3, "file", 3, "moved"),
    Right.PATH_RENAME_TARGET: ("path_rename", 3, "file", 3, "moved"),
    Right.PATH_FILESTAT_GET: ("path_filestat_get", 3, 0, "file", 2048),
    Right.PATH_FILESTAT_SET_TIMES: ("path_filestat_set_times", 3, 0, "file", 1, 2, 5),
    Right.PATH_SYMLINK: ("path_symlink", "file", 3, "soft"),
    Right.PATH_REMOVE_DIRECTORY: ("path_remove_directory", 3, "sub"),
    Right.PATH_UNLINK_FILE: ("path_unlink_file", 3, "file"),
    Right.FD_READDIR: ("fd_readdir", 3, 2048, 100, 0, RESULT),
    Right.FD_FILESTAT_GET: ("fd_filestat_get", 3, 2048),
    Right.FD_FDSTAT_SET_FLAGS: ("fd_fdstat_set_flags", 3, 0),
    Right.FD_SYNC: ("fd_sync", 3),
    Right.FD_DATASYNC: ("fd_datasync", 3),
    Right.FD_FILESTAT_SET_TIMES: ("fd_filestat_set_times", 3, 1, 2, 5),
}


@pytest.mark.parametrize("right", PATH_RIGHTS)
def test_each_call_needs_its_right(guest, right):
    _, _, rights, inheriting = fdstat(guest, 3)
    assert rights & right
    guest.ok("fd_fdstat_set_rights", 3, rights & ~right, inheriting)
    assert guest.call(*PATH_RIGHTS[right]) == Errno.NOTCAPABLE


@pytest.mark.parametrize("right", PATH_RIGHTS)
def test_each_call_needs_no_other_right(guest, right):
    needed = right
    if right in (Right.PATH_CREATE_FILE, Right.PATH_FILESTAT_SET_SIZE):
        needed |= Right.PATH_OPEN
    for pair in (
        (Right.PATH_LINK_SOURCE, Right.PATH_LINK_TARGET),
        (Right.PATH_RENAME_SOURCE, Right.PATH_RENAME_TARGET),
    ):
        if right in pair:
            needed |= pair[0] | pair[1]
    guest.ok("fd_fdstat_set_rights", 3, needed, 0)
    guest.ok(*PATH_RIGHTS[right])


def test_rights_are_inherited(guest):
    _, _, rights, inheriting = fdstat(guest, 3)
    guest.ok("fd_fdstat_set_rights", 3, rights, inheriting & ~Right.FD_WRITE)
    assert guest.write(guest.open("file", writes=True), b"x") == Errno.NOTCAPABLE
    sub = guest.open("sub", DIRECTORY)
    assert guest.write(guest.open("x", CREAT, fd=sub, writes=True), b"x") == Errno.NOTCAPABLE


# -- what a file is


def test_types(guest, folder):
    os.mkfifo(folder / "fifo")
    assert fdstat(guest, 3)[0] == FileType.DIRECTORY
    assert fdstat(guest, guest.open("file"))[0] == FileType.REGULAR_FILE
    for name, filetype in (
        ("file", FileType.REGULAR_FILE),
        ("sub", FileType.DIRECTORY),
        ("link", FileType.SYMBOLIC_LINK),
        ("fifo", FileType.UNKNOWN),
    ):
        guest.ok("path_filestat_get", 3, 0, name, 2048)
        assert guest.memory[2048 + 16] == filetype


def test_filestat(guest, folder):
    os.link(folder / "file", folder / "second")
    os.utime(folder / "file", ns=(1_000_000_007, 2_000_000_011))
    expected = (folder / "file").stat()
    found = filestat(guest, guest.open("file"))
    assert found == (
        expected.st_dev, expected.st_ino, FileType.REGULAR_FILE, 2, 10, 1_000_000_007,
        2_000_000_011, expected.st_ctime_ns,
    )  # fmt: skip
    for path, follow in (("file", 0), ("link", FOLLOW)):
        guest.ok("path_filestat_get", 3, follow, path, 2048)
        assert struct.unpack_from("<QQB7xQQQQQ", guest.memory, 2048) == found
    assert guest.call("path_filestat_get", 3, 0, "file/", 2048) == Errno.NOTDIR
    guest.ok("path_filestat_get", 3, 0, "to_sub/", 2048)
    assert guest.memory[2048 + 16] == FileType.DIRECTORY


@pytest.mark.parametrize("by_path", [True, False])
def test_times(guest, folder, by_path):
    def set_times(*values):
        if by_path:
            return guest.call("path_filestat_set_times", 3, FOLLOW, "link", *values)
        return guest.call("fd_filestat_set_times", fd, *values)

    def times():
        status = (folder / "file").stat()
        return status.st_atime_ns, status.st_mtime_ns

    fd = guest.open("file")
    assert set_times(5, 6, 1 | 4) == Errno.SUCCESS
    assert times() == (5, 6)
    assert set_times(7, 8, 4) == Errno.SUCCESS
    assert times() == (5, 8)
    before = time.time_ns()
    assert set_times(7, 8, 2) == Errno.SUCCESS
    assert before <= times()[0] <= time.time_ns()
    assert times()[1] == 8
    assert set_times(7, 8, 8) == Errno.SUCCESS
    assert before <= times()[1] <= time.time_ns()
    for flags in (3, 12, 15, 16):
        assert set_times(7, 8, flags) == Errno.INVAL
    assert set_times(1 << 63, 8, 1) == Errno.INVAL
    assert set_times(-1, 8, 0) == Errno.SUCCESS  # a value that is not used


# -- names


def test_folders(guest, folder):
    guest.ok("path_create_directory", 3, "made/")
    assert guest.call("path_create_directory", 3, "made") == Errno.EXIST
    (folder / "made/x").touch()
    assert guest.call("path_remove_directory", 3, "made") == Errno.NOTEMPTY
    guest.ok("path_unlink_file", 3, "made/x")
    assert guest.call("path_unlink_file", 3, "made") == Errno.ISDIR
    assert guest.call("path_unlink_file", 3, "made/") == Errno.ISDIR
    assert guest.call("path_unlink_file", 3, "file/") == Errno.NOTDIR
    assert guest.call("path_unlink_file", 3, "to_sub/") == Errno.NOTDIR
    assert guest.call("path_remove_directory", 3, "to_sub/") == Errno.NOTDIR
    assert guest.call("path_remove_directory", 3, "file") == Errno.NOTDIR
    guest.ok("path_remove_directory", 3, "made/")
    for path in (".", "..", "sub/.", "sub/.."):
        for name in ("path_remove_directory", "path_unlink_file", "path_create_directory"):
            assert guest.call(name, 3, path) != Errno.SUCCESS
    assert sorted(os.listdir(folder)) == ["file", "link", "sub", "to_sub"]  # noqa: PTH208


def test_rename(guest, folder):
    guest.ok("path_rename", 3, "file", 3, "sub/moved")
    assert (folder / "sub/moved").read_bytes() == b"0123456789"
    guest.ok("path_rename", 3, "link", 3, "sub/link")  # itself
    assert (folder / "sub/link").is_symlink()
    assert guest.call("path_rename", 3, "nothing", 3, "x") == Errno.NOENT
    assert guest.call("path_rename", 3, "sub/moved/", 3, "x") == Errno.NOTDIR
    assert guest.call("path_rename", 3, "sub/moved", 3, "x/") == Errno.NOTDIR
    assert guest.call("path_rename", 3, "sub", 3, "sub/below") == Errno.INVAL
    assert guest.call("path_rename", 3, "sub", 3, ".") == Errno.BUSY
    guest.ok("path_rename", 3, "sub/", 3, "x/")
    assert (folder / "x/moved").exists()


def test_links_of_both_kinds(guest, folder):
    guest.ok("path_link", 3, 0, "file", 3, "hard")
    assert (folder / "hard").stat().st_ino == (folder / "file").stat().st_ino
    assert guest.call("path_link", 3, FOLLOW, "file", 3, "other") == Errno.INVAL
    assert guest.call("path_link", 3, 0, "file", 3, "hard") == Errno.EXIST
    assert guest.call("path_link", 3, 0, "file/", 3, "other") == Errno.NOTDIR
    assert guest.call("path_link", 3, 0, "file", 3, "other/") == Errno.NOENT
    assert guest.call("path_link", 3, 0, "sub", 3, "other") == Errno.PERM
    guest.ok("path_symlink", "sub/any thing", 3, "soft")
    assert str((folder / "soft").readlink()) == "sub/any thing"
    assert guest.call("path_symlink", "x", 3, "soft") == Errno.EXIST
    assert guest.call("path_symlink", "", 3, "other") == Errno.NOENT
    for size, expected in ((100, b"sub/any thing"), (3, b"sub"), (0, b"")):
        guest.ok("path_readlink", 3, "soft", 2048, size, RESULT)
        assert bytes(guest.memory[2048 : 2048 + guest.u32()]) == expected
    assert guest.call("path_readlink", 3, "file", 2048, 10, RESULT) == Errno.INVAL


def test_readdir(guest, folder):
    assert sorted(guest.names(3)) == [".", "..", "file", "link", "sub", "to_sub"]
    for i in range(100):
        (folder / "sub" / f"{i:03}{'x' * (i % 50)}").touch()
    expected = sorted([".", "..", *os.listdir(folder / "sub")])  # noqa: PTH208
    sub = guest.open("sub", DIRECTORY)
    assert sorted(guest.names(sub)) == expected
    (folder / "sub" / "later").touch()
    assert sorted(guest.names(sub)) == sorted([*expected, "later"])
    guest.ok("fd_readdir", sub, 2048, 100, -1, RESULT)  # a cookie beyond the end
    assert guest.u32() == 0
    assert guest.call("fd_readdir", guest.open("file"), 2048, 100, 0, RESULT) == Errno.NOTDIR


def test_readdir_tells_types_and_inodes(guest, folder):
    guest.ok("fd_readdir", 3, 4096, 4096, 0, RESULT)
    data, at, found = bytes(guest.memory[4096 : 4096 + guest.u32()]), 0, {}
    while at < len(data):
        _, inode, length, filetype = struct.unpack_from("<QQII", data, at)
        found[data[at + 24 : at + 24 + length].decode()] = inode, filetype
        at += 24 + length
    for name, filetype in (
        ("file", FileType.REGULAR_FILE),
        ("sub", FileType.DIRECTORY),
        ("link", FileType.SYMBOLIC_LINK),
    ):
        assert found[name] == ((folder / name).lstat().st_ino, filetype)
    own = folder.stat().st_ino
    assert found["."] == found[".."] == (own, FileType.DIRECTORY)


# -- preopened folders


def test_preopens(folder):
    with Guest(preopens={"/data": folder, "second": folder / "sub"}) as guest:
        for fd, name in ((3, b"/data"), (4, b"second")):
            guest.ok("fd_prestat_get", fd, 2048)
            assert struct.unpack_from("<B3xI", guest.memory, 2048) == (0, len(name))
            guest.ok("fd_prestat_dir_name", fd, 2048, len(name))
            assert bytes(guest.memory[2048 : 2048 + len(name)]) == name
            short = guest.call("fd_prestat_dir_name", fd, 2048, len(name) - 1)
            assert short == Errno.NAMETOOLONG
        for fd in (0, 5):
            assert guest.call("fd_prestat_get", fd, 2048) == Errno.BADF
            assert guest.call("fd_prestat_dir_name", fd, 2048, 10) == Errno.BADF
        guest.ok("fd_close", 3)
        assert guest.call("fd_prestat_get", 3, 2048) == Errno.BADF


def test_directories_are_not_read_as_files(guest):
    assert guest.read(3) == Errno.BADF
    assert guest.write(3, b"x") == Errno.BADF
    assert guest.call("fd_seek", 3, 0, 0, RESULT) == Errno.BADF
    assert guest.call("fd_tell", 3, RESULT) == Errno.BADF
    assert guest.call("fd_filestat_set_size", 3, 0) == Errno.BADF


def test_modes_of_what_is_made(guest, folder):
    mask = os.umask(0)
    os.umask(mask)
    guest.open("new", CREAT, writes=True)
    guest.ok("path_create_directory", 3, "made")
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((folder / "made").stat().st_mode) == 0o777 & ~mask


def test_errors_of_the_host_are_told(guest, folder):
    name = "x" * 255
    guest.ok("path_create_directory", 3, name)
    assert guest.call("path_create_directory", 3, name + "x") == Errno.NAMETOOLONG
    if os.geteuid():
        (folder / "sub").chmod(0)
        assert guest.open("sub/x") == Errno.ACCES
    assert ALL_RIGHTS
