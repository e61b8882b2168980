"""The latency table: every contender has its turn in every round; means are over models, in one precision."""

from planish.tools.bench.latency import interleaved, ratios
from planish.tools.bench.threads import two_threads


def test_contenders_take_turns_and_an_interruption_does_not_count() -> None:
    order: list[str] = []

    def contender(name: str, times: list[float]):
        def run(count: int) -> list[float]:
            order.append(name)
            return (times * count)[:count]

        return run

    found = interleaved({"a": contender("a", [30.0]), "b": contender("b", [40.0, 40.0, 900.0])}, rounds=4)
    assert found == {"a": 30.0, "b": 40.0}
    assert order[2:] == ["a", "b", "b", "a", "a", "b", "b", "a"], "after a warm-up each round starts with another one"


def test_threads_are_compared_within_each_round() -> None:
    """The machine is twice as fast in the last round: that changes no ratio but the one of the leasts."""
    team = iter([6.0, 6.0, 4.0])
    one = iter([10.0, 10.0, 11.0, 10.0, 11.0, 5.0, 5.5])  # to count calls, then alone and beside another in each round
    found = two_threads(lambda _: [next(team)], lambda _: [next(one)], lambda _: [11.0], calls_ms=20.0, rounds=3)
    assert found == {"two_threads": 0.6, "two_threads_least": 0.8, "two_at_once": 0.55}


def test_ratios_compare_like_with_like() -> None:
    rows = [
        {"ms": {"planish_int8": 1.0, "planish_float": 6.0, "onnxruntime_int8": 2.0, "onnxruntime_float": 3.0}},
        {"ms": {"planish_int8": 4.0, "planish_float": 1.0, "onnxruntime_int8": 2.0, "onnxruntime_float": 2.0}},
    ]
    assert ratios(rows) == {
        "planish_int8 / onnxruntime_int8": 1.0,
        "planish_float / onnxruntime_float": 1.0,
    }
