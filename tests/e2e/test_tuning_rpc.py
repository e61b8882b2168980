"""Tuning on boards behind a TVM RPC tracker: a tracker and two servers on this machine, of which one is killed."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from planish.backends.tvm.lower import lower
from planish.backends.tvm.operators.workload import space
from planish.backends.tvm.tuning import cost_rpc
from planish.backends.tvm.tuning.candidates import Candidate, subject
from planish.backends.tvm.tuning.cost import Measured, Unavailable
from planish.backends.tvm.tuning.cost_local import LocalTime
from planish.backends.tvm.tuning.cost_rpc import RemoteTime
from planish.backends.tvm.tuning.tracker import Tracker
from planish.errors import UsageError
from planish.targets.registry import resolve

from ..integer_layers import matmul


def _candidates() -> list[Candidate]:
    program, _ = lower(matmul(4), resolve("host"))
    ((kernel, choice),) = program.choices.items()
    found = subject(program, kernel)
    return [Candidate(found, choice.scheduled(config)) for config in space(choice.workload)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A TVM service in a process group of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", *command], start_new_session=True, **quiet)
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _eventually(what: Callable[[], bool]) -> None:
    for _ in range(240):
        try:
            if what():
                return
        except Unavailable:
            pass
        time.sleep(0.25)
    pytest.fail("the RPC services did not start in a minute")


def test_a_tracker_that_does_not_answer_is_named_with_what_starts_it() -> None:
    port = _free_port()
    with pytest.raises(Unavailable) as caught:
        RemoteTime(resolve("host"), f"127.0.0.1:{port}", "pi")
    assert "does not answer" in caught.value.what and str(port) in caught.value.where
    assert "tvm.exec.rpc_tracker" in caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["board", "board:", ":9190", "board:x", "board:99999"])
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="not the address"):
        Tracker.parse(text)


def test_what_answers_but_is_no_tracker_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with subprocess.Popen(
            [sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {port})).recv(9)"]
        ) as _client:
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.0 ")
            connection.close()
    with pytest.raises(Unavailable, match="does not answer"):
        Tracker("127.0.0.1", port).boards()


@pytest.mark.skipif(importlib.util.find_spec("tornado") is None, reason="the tracker needs tornado")
def test_two_boards_measure_and_when_one_is_killed_the_other_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_rpc, "_WAIT_S", 4.0)
    port, address = _free_port(), ""
    tracker = Tracker("127.0.0.1", port)
    address = str(tracker)
    ends = ("--host", "127.0.0.1", "--port")
    server = ("tvm.exec.rpc_server", "--tracker", address, "--key", "here", *ends)
    ports = [_free_port(), _free_port()]
    with (
        _running("tvm.exec.rpc_tracker", *ends, str(port), "--port-end", str(port + 1)),
        _running(*server, str(ports[0]), "--port-end", str(ports[0] + 1)) as first,
        _running(*server, str(ports[1]), "--port-end", str(ports[1] + 1)) as second,
    ):
        candidates = _candidates()
        local = LocalTime(resolve("host")).measure(candidates[:1])[0]
        _eventually(lambda: tracker.boards().get("here") == 2)
        with pytest.raises(UsageError, match="no board called 'pi'; it has here"):
            RemoteTime(resolve("host"), address, "pi")
        cost = RemoteTime(resolve("host"), address, "here")
        assert cost.name == "RPC time, here"
        both = cost.measure((candidates * 2)[:4])
        _kill(first)
        one = cost.measure((candidates * 2)[:4])
        for outcome in (*both, *one):
            assert isinstance(outcome, Measured) and isinstance(local, Measured)
            assert outcome.digest == local.digest, "the boards compute the same bits as this machine"
            assert 0 < outcome.value < 1e-2
        _kill(second)
        with pytest.raises(Unavailable, match="no board 'here' answers any more"):
            cost.measure(candidates[:1])
