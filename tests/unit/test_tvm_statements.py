"""The lines that members of a team walk: what they share, what one of them does, and what they pass over."""

from planish.backends.tvm.control import Block, Close, Open
from planish.backends.tvm.statements import Statement, ordered

_LOOP, _BRANCH = Block(0, 3, "i", 4), Block(1, 2, condition="c")


def _call(name: str, extent: int | None = None) -> Statement:
    return Statement(f"{name}()", extent)


def _team(statements: list[Statement]) -> list[str]:
    return [line.strip() for line in ordered(statements, team=True)][1:]


def test_one_thread_runs_the_calls_in_order() -> None:
    edges = [Statement("for (...) {", None, Open(_LOOP)), _call("f", 8), Statement("}", None, Close(_LOOP))]
    assert list(ordered(edges, team=False)) == ["for (...) {", "f();", "}"]


def test_calls_that_are_not_shared_and_follow_each_other_are_one_statement() -> None:
    lines = _team([_call("f"), _call("g"), _call("h", 8)])
    one, many = (f"for (range_t range = {{0}}; take(&walk, {extent}, &range);)" for extent in (1, 8))
    assert lines == [f"{one} {{", "f();", "g();", "}", many, "h(, range.start, range.stop);"]


def test_a_loop_of_what_is_not_shared_is_one_statement() -> None:
    lines = _team([Statement("for (i) {", None, Open(_LOOP)), _call("f"), Statement("}", None, Close(_LOOP))])
    assert lines[1:] == ["for (i) {", "f();", "}", "}"] and "take(&walk, 1," in lines[0]


def test_a_branch_that_is_not_taken_skips_as_many_statements_as_are_in_it() -> None:
    """A shared call and a group of others, four times, and the statement of the inner condition each time."""
    body = [_call("f", 8), _call("g"), _call("h")]
    inner = [Statement("if (d) {", None, Open(Block(4, 5, condition="d"))), _call("k", 8)]
    inner.append(Statement("}", None, Close(inner[0].edge.block)))  # type: ignore[union-attr]
    loop = [Statement("for (i) {", None, Open(_LOOP)), *body, *inner, Statement("}", None, Close(_LOOP))]
    lines = _team([Statement("if (c) {", None, Open(_BRANCH)), *loop, Statement("}", None, Close(_BRANCH))])
    assert [line for line in lines if "skip = " in line] == [
        f"range.skip = {4 * (1 + 1 + 2)};",
        "if (c) { range.skip = 0; }",
        "range.skip = 1;",
        "if (d) { range.skip = 0; }",
    ]
