"""Talking to a TVM RPC tracker: which boards it has, and one of them when it is free; every wait has an end."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from ....errors import UsageError
from .cost import Unavailable

__all__ = ["Tracker"]

# of tvm/rpc/base.py, which cannot be imported without loading the compiler
_MAGIC = 0x2F271
_REQUEST, _SUMMARY, _SUCCESS = 4, 6, 0
_CONNECT_S = 5.0


@dataclass(frozen=True)
class Tracker:
    """The address of a tracker."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Tracker:
        """`HOST:PORT`."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise UsageError(f"{text!r} is not the address of a tracker", where="--rpc", hint="write HOST:PORT")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def boards(self) -> dict[str, int]:
        """How many boards the tracker has under each name."""
        found: dict[str, int] = {}
        for server in self._ask([_SUMMARY], _CONNECT_S)["server_info"]:
            name = str(server.get("key", "")).partition(":")[2]  # it says `server:NAME`
            found[name] = found.get(name, 0) + 1
        return found

    def request(self, key: str, seconds: float) -> tuple[str, int, str]:
        """Host, port and match key of a free board, waited for so long; Unavailable when none comes free."""
        host, port, match = self._ask([_REQUEST, key, "", 1], seconds)
        return str(host), int(port), str(match)

    def _ask(self, message: list[Any], seconds: float) -> Any:
        try:
            with socket.create_connection((self.host, self.port), _CONNECT_S) as connection:
                connection.settimeout(seconds)
                connection.sendall(struct.pack("<i", _MAGIC))
                if struct.unpack("<i", _exactly(connection, 4))[0] != _MAGIC:
                    raise ConnectionError("what answers is no TVM RPC tracker")
                body = json.dumps(message).encode()
                connection.sendall(struct.pack("<i", len(body)) + body)
                answer = json.loads(_exactly(connection, struct.unpack("<i", _exactly(connection, 4))[0]))
        except (OSError, ValueError, struct.error) as error:
            late = isinstance(error, TimeoutError) and message[0] == _REQUEST
            raise Unavailable(
                f"no board {message[1]!r} came free in {seconds:.0f} s"
                if late
                else f"the RPC tracker does not answer: {error}",
                where=f"--rpc {self}",
                hint="check the boards"
                if late
                else f"start it: python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port {self.port}",
            ) from error
        if answer[0] != _SUCCESS:
            raise Unavailable(f"the RPC tracker refuses: {answer}", where=f"--rpc {self}", hint="check its version")
        return answer[1]


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("it closed the connection")
        data += piece
    return data
