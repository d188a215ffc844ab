"""Error numbers of WASI, and their mapping from an OSError of the host.

Source: witx of wasi_snapshot_preview1, ``errno``.
"""

from __future__ import annotations

import errno
from enum import IntEnum

Errno = IntEnum(
    "Errno",
    "SUCCESS TOOBIG ACCES ADDRINUSE ADDRNOTAVAIL AFNOSUPPORT AGAIN ALREADY BADF BADMSG BUSY "
    "CANCELED CHILD CONNABORTED CONNREFUSED CONNRESET DEADLK DESTADDRREQ DOM DQUOT EXIST FAULT "
    "FBIG HOSTUNREACH IDRM ILSEQ INPROGRESS INTR INVAL IO ISCONN ISDIR LOOP MFILE MLINK MSGSIZE "
    "MULTIHOP NAMETOOLONG NETDOWN NETRESET NETUNREACH NFILE NOBUFS NODEV NOENT NOEXEC NOLCK NOLINK "
    "NOMEM NOMSG NOPROTOOPT NOSPC NOSYS NOTCONN NOTDIR NOTEMPTY NOTRECOVERABLE NOTSOCK NOTSUP "
    "NOTTY NXIO OVERFLOW OWNERDEAD PERM PIPE PROTO PROTONOSUPPORT PROTOTYPE RANGE ROFS SPIPE SRCH "
    "STALE TIMEDOUT TXTBSY XDEV NOTCAPABLE",
    start=0,
)
"""Error numbers, the results of all calls."""


class WasiError(Exception):
    """A call fails with an error number of WASI."""

    def __init__(self, number: Errno) -> None:
        super().__init__(number)
        self.number = number


_BY_HOST = {
    number: Errno[name[1:]]
    for number, name in errno.errorcode.items()
    if name[1:] in Errno.__members__
}
_BY_HOST[errno.E2BIG] = Errno.TOOBIG
_BY_HOST[errno.EOPNOTSUPP] = Errno.NOTSUP


def errno_of(error: OSError) -> Errno:
    """Return WASI's number for an error of the host, or IO if it has none."""
    return _BY_HOST.get(error.errno or 0, Errno.IO)
