"""The identities behind the pruning methods, and what the passes do with them on small networks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from planish.errors import UsageError
from planish.ir import shapes
from planish.ir.execute import execute
from planish.ir.layers import layer_of
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.prune.allocate import allocate, choose_levels, fit_budget, give_back
from planish.passes.prune.consumers import believed
from planish.passes.prune.costs import measure
from planish.passes.prune.endpoint import Endpoint, endpoint
from planish.passes.prune.evidence import observe, scale_known
from planish.passes.prune.folding import fold, k_means, merge_map, variance_repair
from planish.passes.prune.reconstruct import gram_reconstruction, refit
from planish.passes.prune.saliency import coupled_bound, fpgm
from planish.passes.prune.structured_obs import Problem, eliminate
from planish.passes.prune.taylor import taylor
from planish.passes.prune.unstructured import down_date, exact_obs, exact_obs_layer, l_obs, n_of_m, obs_blocks


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def spd(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.standard_normal((3 * n, n))
    return x.T @ x / len(x)


def test_gram_reconstruction_is_least_squares_on_the_samples(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((200, 8)), rng.standard_normal((3, 8))
    kept = np.array([0, 2, 3, 7])
    expected = np.linalg.lstsq(x[:, kept], x @ w.T, rcond=None)[0].T
    np.testing.assert_allclose(gram_reconstruction(w, x.T @ x, kept), expected, rtol=1e-9)
    mask = np.isin(np.arange(8), kept)
    np.testing.assert_allclose(gram_reconstruction(w, x.T @ x / 7, mask), expected, rtol=1e-9)


def test_reconstruction_without_a_removal_changes_nothing_whatever_the_ridge(rng: np.random.Generator) -> None:
    w = rng.standard_normal((3, 8))
    np.testing.assert_array_equal(gram_reconstruction(w, spd(rng, 8), np.arange(8), ridge=0.7), w)


def test_refit_keeps_weights_that_already_fit_and_moves_the_bias(rng: np.random.Generator) -> None:
    x, w, b = rng.standard_normal((100, 6)) + 2, rng.standard_normal((4, 6)), rng.standard_normal(4)
    fitted, offset = refit(w, b, x, x @ w.T + b + 5, ridge=0.5)
    np.testing.assert_allclose(fitted, w, rtol=1e-9)
    np.testing.assert_allclose(offset, b + 5, rtol=1e-9)


def test_unseen_rows_choose_how_far_a_refit_goes(rng: np.random.Generator) -> None:
    """Sixteen runs of four rows alike, as the positions of one picture are: many inputs fit their errors by chance."""
    x = np.repeat(rng.standard_normal((16, 40)), 4, 0)
    w, noise = rng.standard_normal((3, 40)), np.repeat(rng.standard_normal((16, 3)), 4, 0)
    fitted, _ = refit(w, np.zeros(3), x, x @ w.T + noise, ridge=0.1)
    centred = x - x.mean(0)
    gram = centred.T @ centred
    damped = gram + (0.1 + 40 / 64) * np.trace(gram) / 40 * np.eye(40)
    by_chance = np.linalg.solve(damped, centred.T @ noise).T
    assert np.linalg.norm(fitted - w) < 0.3 * np.linalg.norm(by_chance)


def test_refit_within_intervals_counts_only_what_the_activation_lets_through(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((400, 8)), rng.standard_normal((3, 8))
    kept = x[:, :6]
    z = x @ w.T
    end = Endpoint(ir.Value(name="z"), np.ones(3), np.zeros(3), None, 0.0, np.inf)
    y, lowest, highest = end.intervals(z, None)
    np.testing.assert_array_equal(y, z)

    def error(fit: tuple[np.ndarray, np.ndarray]) -> float:
        return float(((np.maximum(kept @ fit[0].T + fit[1], 0) - np.maximum(z, 0)) ** 2).sum())

    plain = refit(w[:, :6], np.zeros(3), kept, y, 0.0)
    clipped = refit(w[:, :6], np.zeros(3), kept, y, 0.0, (lowest, highest))
    assert error(clipped) < 0.95 * error(plain)


def test_intervals_hold_exactly_the_outputs_that_end_the_same(rng: np.random.Generator) -> None:
    gain, shift = np.array([2.0, -0.5]), np.array([1.0, 3.0])
    end = Endpoint(ir.Value(name="z"), gain, shift, ir.Value(name="o"), 0.0, 6.0)
    z, other = rng.uniform(-4, 10, (200, 2)), rng.standard_normal((200, 2))
    y, lowest, highest = end.intervals(z, other)
    np.testing.assert_allclose(gain * y + shift + other, z)
    trial = y + rng.standard_normal(y.shape)
    same = np.isclose(np.clip(gain * trial + shift + other, 0, 6), np.clip(z, 0, 6), atol=1e-12)
    np.testing.assert_array_equal(same, (trial >= lowest) & (trial <= highest))


def test_a_layer_is_compared_behind_its_batch_norm_and_residual_add() -> None:
    from planish.ir.text import parse_model

    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
main (float[1,2,4,4] x) => (float[1,2,4,4] y)
   <float[2,2,1,1] w = seeded(0), float[2] g = {2,3}, float[2] b = {1,1}, float[2] m = {1,2}, float[2] v = {4,9}>
{
   a = Conv (x, w)
   n = BatchNormalization <epsilon = 0.0> (a, g, b, m, v)
   s = Add (n, x)
   y = Relu (s)
}""")
    shapes.infer(model)
    layer = layer_of(model.graph[0])
    assert layer is not None
    end = endpoint(layer, lambda _: True)
    assert (end.value.name, end.low, end.high) == ("s", 0.0, np.inf) and end.other is not None
    np.testing.assert_allclose(end.gain, [1, 1])
    np.testing.assert_allclose(end.shift, [0, -1])
    unknown = endpoint(layer, lambda _: False)
    assert (unknown.value.name, unknown.other, unknown.low) == ("n", None, -np.inf)


def test_down_date_is_the_inverse_of_the_reduced_matrix(rng: np.random.Generator) -> None:
    h = spd(rng, 6)
    rest = [0, 1, 3, 4, 5]
    reduced = down_date(np.linalg.inv(h), 2)
    np.testing.assert_allclose(reduced[np.ix_(rest, rest)], np.linalg.inv(h[np.ix_(rest, rest)]), rtol=1e-9)
    assert not reduced[2].any() and not reduced[:, 2].any()


def test_the_obs_update_is_constrained_least_squares_and_its_loss_is_exact(rng: np.random.Generator) -> None:
    h, w = spd(rng, 7), rng.standard_normal(7)
    pruned, losses = exact_obs(w, np.linalg.inv(h), 3)
    kept = pruned != 0
    assert kept.sum() == 4
    expected = gram_reconstruction(w[None], h, kept)[0]
    np.testing.assert_allclose(pruned[kept], expected, rtol=1e-8)
    difference = pruned - w
    np.testing.assert_allclose(losses.sum(), difference @ h @ difference / 2, rtol=1e-8)
    first, loss = exact_obs(w, np.linalg.inv(h), 1)
    gone = int(np.flatnonzero(first == 0)[0])
    np.testing.assert_allclose(loss[0], w[gone] ** 2 / (2 * np.linalg.inv(h)[gone, gone]))


def test_l_obs_removes_as_many_as_asked_and_exact_obs_is_no_worse(rng: np.random.Generator) -> None:
    h, w = spd(rng, 10), rng.standard_normal((5, 10))
    sparse = l_obs(w, np.linalg.inv(h), 20)
    assert (sparse == 0).sum() == 20

    def loss(rows: np.ndarray) -> float:
        return float(np.einsum("oi,ij,oj->", rows - w, h, rows - w))

    exact = np.stack([exact_obs(r, np.linalg.inv(h), int((s == 0).sum()))[0] for r, s in zip(w, sparse, strict=True)])
    assert loss(exact) <= loss(sparse) + 1e-9
    assert loss(sparse) <= loss(np.where(sparse == 0, 0, w)) + 1e-9


def test_exact_obs_over_a_layer_is_no_worse_than_ranking_once(rng: np.random.Generator) -> None:
    h, w = spd(rng, 10), rng.standard_normal((5, 10))
    inverse = np.linalg.inv(h)

    def loss(rows: np.ndarray) -> float:
        return float(np.einsum("oi,ij,oj->", rows - w, h, rows - w))

    exact = exact_obs_layer(w, inverse, 20)
    assert (exact == 0).sum() == 20
    assert loss(exact) <= loss(l_obs(w, inverse, 20)) + 1e-9


@pytest.mark.parametrize("n, m, width", [(2, 4, 12), (1, 4, 10), (4, 8, 16)])
def test_n_of_m_holds_in_every_bucket(rng: np.random.Generator, n: int, m: int, width: int) -> None:
    row = n_of_m(rng.standard_normal(width), np.linalg.inv(spd(rng, width)), n, m)
    for start in range(0, width, m):
        part = row[start : start + m]
        assert (part != 0).sum() == min(n, len(part))


def test_whole_blocks_go_and_what_stays_is_the_least_squares_solution(rng: np.random.Generator) -> None:
    h, w = spd(rng, 12), rng.standard_normal((7, 12))
    sparse = obs_blocks(w, h, np.arange(12).reshape(4, 3), outputs=2, count=8)
    blocks = np.pad(sparse != 0, ((0, 1), (0, 0))).reshape(4, 2, 4, 3)
    filled = blocks.any((1, 3))
    assert filled.sum() == 4 * 4 - 8 and filled.any(1).all()
    assert (blocks[:3] == filled[:3, None, :, None]).all()
    for row, old in zip(sparse, w, strict=True):
        kept = row != 0
        np.testing.assert_allclose(row[kept], gram_reconstruction(old[None], h, kept)[0], rtol=1e-8)


def test_structured_obs_errors_are_those_of_the_least_squares_solution(rng: np.random.Generator) -> None:
    h, w = spd(rng, 12), rng.standard_normal((4, 12))
    columns = np.arange(12).reshape(6, 2)
    gone = eliminate([Problem(w, h, columns, 2.0)], ridge=0.0)
    for count in range(1, 6):
        kept = np.ones(12, bool)
        kept[columns[gone.order[:count]].ravel()] = False
        error = -w.copy()
        error[:, kept] += gram_reconstruction(w, h, kept)
        np.testing.assert_allclose(gone.errors[count - 1], 2 * np.einsum("oi,ij,oj->", error, h, error), rtol=1e-7)


def test_a_duplicated_channel_is_the_first_to_go_and_costs_nothing(rng: np.random.Generator) -> None:
    x = rng.standard_normal((100, 5))
    x = np.concatenate([x, x[:, 1:2]], axis=1)
    gone = eliminate([Problem(rng.standard_normal((3, 6)), x.T @ x, np.arange(6)[:, None])], ridge=1e-9)
    assert gone.order[0] in (1, 5) and gone.errors[0] < 1e-5


def test_a_parallel_filter_behind_its_batchnorm_is_an_affine_function_of_the_other(rng: np.random.Generator) -> None:
    x, kept = rng.standard_normal((50, 9)), rng.standard_normal(9)
    removed = 1.7 * kept
    gammas, betas, means, deviations = rng.uniform(0.5, 2, (4, 2))

    def norm(u: np.ndarray, i: int) -> np.ndarray:
        return gammas[i] * (u - means[i]) / deviations[i] + betas[i]

    combination = merge_map(np.stack([kept, removed]), np.array([0]), ridge=1e-12)
    s = combination[1, 0]  # of the removed filter and the kept one
    a = s * (gammas[1] / gammas[0]) * (deviations[0] / deviations[1])
    b = gammas[1] / deviations[1] * (s * (means[0] - deviations[0] * betas[0] / gammas[0]) - means[1]) + betas[1]
    np.testing.assert_allclose(norm(x @ removed, 1), a * norm(x @ kept, 0) + b, rtol=1e-9)


def test_a_filter_in_the_span_of_the_kept_ones_is_merged_exactly(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((4, 9))
    rows[3] = 0.3 * rows[0] - 2 * rows[2]
    combination = merge_map(rows, np.array([0, 1, 2]), ridge=1e-12)
    np.testing.assert_allclose(combination[3], [0.3, 0, -2], atol=1e-8)
    np.testing.assert_array_equal(combination[:3], np.eye(3))


def test_averaged_channels_have_the_variance_that_the_repair_undoes(rng: np.random.Generator) -> None:
    n, rho = 4, 0.3
    covariance = np.full((n, n), rho) + (1 - rho) * np.eye(n)
    mean = np.full(n, 1 / n)
    np.testing.assert_allclose(mean @ covariance @ mean, (1 + (n - 1) * rho) / n)
    rows = np.linalg.cholesky(covariance)  # unit rows whose cosines are rho
    factor = variance_repair(rows, np.zeros(n, np.int64))[0]
    np.testing.assert_allclose(factor**2 * (1 + (n - 1) * rho) / n, 1, rtol=1e-9)


def test_folding_identical_channels_changes_nothing(rng: np.random.Generator) -> None:
    first = rng.standard_normal((3, 5))
    w1 = first[[0, 1, 0, 2, 1]]
    w2 = rng.standard_normal((4, 5))
    member = k_means(w1, 3, rng)
    x = rng.standard_normal((20, 5))
    folded = np.maximum(x @ fold(w1, member, 0, "mean").T, 0) @ fold(w2, member, 1, "sum").T
    np.testing.assert_allclose(folded, np.maximum(x @ w1.T, 0) @ w2.T, rtol=1e-9)


def test_fpgm_is_smallest_at_the_median_and_the_bound_is_a_bound(rng: np.random.Generator) -> None:
    rows = np.array([[-1.0], [0.0], [1.0], [10.0]])
    assert int(np.argmin(fpgm(rows))) in (1, 2)
    a, b = rng.standard_normal((6, 4)), rng.standard_normal((3, 6))
    change = np.array([np.abs(np.outer(b[:, c], a[c])).sum() for c in range(6)])
    np.testing.assert_allclose(coupled_bound(a, b.T), change)


def test_allocation_is_optimal_on_a_small_problem(rng: np.random.Generator) -> None:
    errors = [np.concatenate([[0], np.sort(rng.random(3))]) for _ in range(3)]
    savings = [np.arange(4.0) * s for s in (1, 2, 3)]
    chosen = allocate(errors, savings, 7.0)
    assert chosen is not None
    index = np.stack(np.meshgrid(*[range(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    total = np.array([[sum(e[i] for e, i in zip(errors, k, strict=True)) for k in index]]).ravel()
    saved = np.array([sum(s[i] for s, i in zip(savings, k, strict=True)) for k in index])
    best = total[saved >= 7].min()
    assert sum(s[i] for s, i in zip(savings, chosen, strict=True)) >= 7
    assert sum(e[i] for e, i in zip(errors, chosen, strict=True)) == pytest.approx(best)
    assert allocate(errors, savings, 100.0) is None
    assert allocate([np.array([0.0, 1, 2])], [np.array([0.0, -5, 3])], 2.0) == [2]  # half a vector may cost more


def test_fitting_a_budget_corrects_for_savings_that_overlap() -> None:
    errors, savings = [np.arange(9.0)] * 2, [np.arange(9.0)] * 2

    def measure(levels: list[int]) -> float:
        return 100 * (1 - (1 - levels[0] / 10) * (1 - levels[1] / 10)) / 10

    levels = fit_budget(lambda s: allocate(errors, savings, s), measure, 7.0)
    assert levels is not None and 7.0 <= measure(levels) < 7.8


def test_levels_that_save_more_than_wanted_are_given_back() -> None:
    errors = [np.array([0.0, 1, 2, 3]), np.array([0.0, 4, 5, 6])]

    def measure(levels: list[int]) -> float:
        return 10.0 * (levels[0] >= 2) + 3.0 * (levels[1] >= 1)  # one step each, as whole vectors have them

    assert give_back([3, 2], errors, measure, 10.0) == [2, 0]
    assert give_back([3, 2], errors, measure, 12.0) == [2, 1]
    assert give_back([3, 2], errors, measure, 13.5) == [3, 2]


def test_a_latency_budget_counts_the_steps_of_whole_vectors() -> None:
    costs = {16: 100.0, 12: 90.0, 8: 50.0, 4: 45.0}

    def node_cost(node: ir.Node) -> float:
        return costs[int(node.outputs[0].shape[1])] if node.outputs[0].name == "a" and node.outputs[0].shape else 100.0

    model = network()
    context = Context(synthetic=[{"x": np.ones((4, 3, 8, 8), np.float32)}], cost=node_cost)
    manager = PassManager('prune{budget="latency=-6%" alignment=4}')  # 50 of the 800 cycles, all of them from w1
    manager.run(model, context)
    assert model.graph.initializers["w1"].shape == (8, 3, 3, 3)
    assert model.graph.initializers["w2"].shape == (8, 8, 3, 3)


def test_made_inputs_are_believed_less_of_what_training_did_not_record(rng: np.random.Generator) -> None:
    deviation = np.exp(rng.normal(0, 1, 40))
    covariance = spd(rng, 40) * deviation[:, None] * deviation
    known, unknown = believed(covariance, trained=True), believed(covariance, trained=False)
    np.testing.assert_allclose(np.diag(known), np.diag(covariance))
    before, after = np.log(np.diag(covariance)), np.log(np.diag(unknown))
    assert after.std() == pytest.approx(0.5)
    idle = before < np.log(1e-3 * np.diag(covariance).mean())
    assert idle.any() and np.ptp(after[idle]) < 1e-9
    assert np.corrcoef(before[~idle], after[~idle])[0, 1] == pytest.approx(1)
    for gram in (known, unknown):
        assert np.linalg.eigvalsh(gram)[0] > 0


def test_the_scale_is_known_up_to_the_next_layer_without_a_record() -> None:
    from planish.ir.text import parse_model

    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
main (float[1,2,4,4] x) => (float[1,2,4,4] y)
   <float[2,2,1,1] w = seeded(0), float[2,2,1,1] v = seeded(1), float[2,2,1,1] u = seeded(2), float[2] g = splat(1)>
{
   a = Conv (x, w)
   n = BatchNormalization (a, g, g, g, g)
   r = Relu (n)
   m = MaxPool <kernel_shape = [1,1]> (r)
   b = Conv (m, v)
   s = Add (b, r)
   y = Conv (s, u)
}""")
    layers = [layer for node in model.graph if (layer := layer_of(node)) is not None]
    assert [scale_known(layer) for layer in layers] == [False, True, False]


def test_both_branches_of_a_sum_are_observed() -> None:
    from planish.ir.text import parse_model

    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
main (float[N,3,8,8] x) => (float[N,4] y)
   <float[8,3,3,3] w = seeded(0), float[8,3,1,1] s = seeded(1), float[4,8] f = seeded(2)>
{
   a = Conv <pads = [1,1,1,1]> (x, w)
   b = Conv (x, s)
   c = Add (a, b)
   r = Relu (c)
   p = GlobalAveragePool (r)
   q = Flatten (p)
   y = Gemm <transB = 1> (q, f)
}""")
    shapes.infer(model)
    layers = [layer for node in model.graph if (layer := layer_of(node)) is not None]
    feed = {"x": np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)}
    found = observe(model, layers, [feed], 512, np.random.default_rng(0))
    total = execute(model, feed, ["c"])["c"].var((0, 2, 3)).sum()
    assert found["w"].energy == pytest.approx(found["s"].energy) == pytest.approx(total, rel=1e-5)
    PassManager("prune{ratio=0.25 alignment=1}").run(model, Context(synthetic=[feed]))
    assert model.graph.initializers["f"].shape == (4, 6)


def test_kept_channels_are_multiples_of_the_alignment() -> None:
    np.testing.assert_array_equal(choose_levels(16, 4), [0, 4, 8, 12])
    np.testing.assert_array_equal(choose_levels(10, 4), [0, 2, 6])
    np.testing.assert_array_equal(choose_levels(3, 8), [0])


NET = """<ir_version: 10, opset_import: ["" : 20]>
main (float[N,3,8,8] x) => (float[N,4] y)
   <float[16,3,3,3] w1 = seeded(0), float[16] b1 = seeded(1), float[8,16,3,3] w2 = seeded(2), float[8] b2 = seeded(3),
    float[4,8] w3 = seeded(4), float[4] b3 = seeded(5)>
{
   a = Conv <pads = [1,1,1,1]> (x, w1, b1)
   r = Relu (a)
   b = Conv <pads = [1,1,1,1]> (r, w2, b2)
   s = Relu (b)
   p = GlobalAveragePool (s)
   f = Flatten (p)
   y = Gemm <transB = 1> (f, w3, b3)
}
"""


def network() -> ir.Model:
    from planish.ir.text import parse_model

    model = parse_model(NET)
    shapes.infer(model)
    return model


def error_after(pipeline: str, samples: int = 64) -> float:
    rng = np.random.default_rng(0)
    context = Context(
        synthetic=[{"x": rng.standard_normal((16, 3, 8, 8)).astype(np.float32)} for _ in range(samples // 16)]
    )
    test = {"x": rng.standard_normal((32, 3, 8, 8)).astype(np.float32)}
    model = network()
    before = execute(model, test)["y"]
    PassManager(pipeline).run(model, context)
    after = execute(model, test)["y"]
    return float(((after - before) ** 2).sum() / ((before - before.mean(0)) ** 2).sum())


def test_the_refit_beats_plain_removal_and_elimination_beats_magnitude() -> None:
    plain = error_after("prune{ratio=0.25 criterion=l1 compensation=none alignment=1}")
    refitted = error_after("prune{ratio=0.25 criterion=l1 alignment=1}")
    eliminated = error_after("prune{ratio=0.25 alignment=1}")
    assert refitted < 0.5 * plain
    assert eliminated < refitted


@pytest.mark.parametrize("unit", ["macs", "parameters", "size", "latency"])
def test_a_budget_is_kept_on_the_rewritten_graph(unit: str) -> None:
    model = network()
    context = Context(synthetic=[{"x": np.ones((4, 3, 8, 8), np.float32)}])
    manager = PassManager(f'prune{{budget="{unit}=-30%" alignment=1}}')
    manager.run(model, context)
    facts = manager.outcome.records[-1].measures["budget"]
    assert facts["after"] <= facts["wanted"] == pytest.approx(0.7 * facts["before"])
    assert measure(unit, model, None) == facts["after"]


def test_the_same_seed_gives_the_same_bytes_and_the_input_stays() -> None:
    results = []
    for _ in range(2):
        model = network()
        context = Context(synthetic=[{"x": np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)}])
        PassManager('prune{budget="macs=-40%" alignment=2}').run(model, context)
        results.append(ir.to_proto(model).SerializeToString(deterministic=True))
    assert results[0] == results[1]


def test_weights_are_fitted_to_one_convention_where_inputs_follow_several() -> None:
    rng = np.random.default_rng(0)
    likeliest = [{"x": rng.standard_normal((16, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    mixed = [{"x": 100 * feed["x"]} for feed in likeliest]
    results = []
    for context in (Context(synthetic=mixed, likeliest=likeliest), Context(synthetic=likeliest)):
        model = network()
        PassManager("prune{ratio=0.25 alignment=1}").run(model, context)
        results.append(ir.to_proto(model).SerializeToString(deterministic=True))
    assert results[0] == results[1]


def test_sparsify_leaves_two_of_four_input_channels_per_tap() -> None:
    model = network()
    context = Context(synthetic=[{"x": np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)}])
    PassManager("sparsify{pattern=2:4}").run(model, context)
    (layer,) = (x for n in model.graph if (x := layer_of(n)) is not None and x.name == "w2")
    weight = layer.matrix()
    assert ((weight.reshape(8, 4, 4, 9) != 0).sum(2) == 2).all()


def test_sparsify_without_inputs_counts_what_batch_norm_left_of_them() -> None:
    from planish.ir.text import parse_model

    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
main (float[1,2,4,4] x) => (float[1,4,4,4] y)
   <float[2,2,1,1] w = seeded(0), float[2] g = {20, 0.01}, float[2] b = splat(0.001), float[2] m = splat(0),
    float[2] s = splat(1), float[4,2,1,1] v = {0.2, 1, 0.3, 1, 0.4, 1, 0.5, 1}>
{
   a = Conv (x, w)
   n = BatchNormalization (a, g, b, m, s)
   r = Relu (n)
   y = Conv (r, v)
}""")
    PassManager("fold-bn,sparsify{pattern=50%}").run(model, Context())
    value = model.graph.initializers["v"].const_value
    assert value is not None
    assert (value.numpy()[:, 0] != 0).all() and (value.numpy()[:, 1] == 0).all()


def test_folding_keeps_a_valid_model_of_the_wanted_width() -> None:
    model = network()
    PassManager("fold-channels{ratio=0.5}").run(model, Context())
    assert model.graph.initializers["w1"].shape == (8, 3, 3, 3)
    assert np.isfinite(execute(model, {"x": np.ones((1, 3, 8, 8), np.float32)})["y"]).all()


def test_prune_wants_a_ratio_or_a_budget() -> None:
    with pytest.raises(UsageError, match="one of them"):
        PassManager("prune").run(network(), Context())


def test_taylor_is_exact_where_the_rest_of_the_network_is_linear() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    model = network()
    x = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
    scores = taylor(model, {"f": -1}, [{"x": x}], np.random.default_rng(0))["f"]
    inner = execute(model, {"x": x}, ["f"])["f"]
    (weight,) = (v.const_value.numpy() for n, v in model.graph.initializers.items() if n == "w3")
    exact = ((inner**2).sum(0)) * (weight**2).sum(0)  # what zeroing a channel does to the outputs, squared
    assert np.corrcoef(scores, exact)[0, 1] > 0.99


def test_taylor_passes_over_what_lies_before_the_first_weight() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from planish.ir.text import parse_model

    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
main (float[4,6] x) => (float[4,3] y)
   <float[5,6] w = seeded(0), float[3,5] v = seeded(1)>
{
   t = Tanh (x)
   h = Gemm <transB = 1> (t, w)
   y = Gemm <transB = 1> (h, v)
}""")
    shapes.infer(model)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((4, 6)).astype(np.float32)}]
    assert set(taylor(model, {"t": 1, "h": 1}, feeds, rng)) == {"h"}


def test_merging_beats_plain_removal_without_any_input() -> None:
    rng = np.random.default_rng(0)
    x = {"x": rng.standard_normal((32, 3, 8, 8)).astype(np.float32)}
    errors = {}
    for compensation in ("none", "merge"):
        model = network()
        for weight, bias in (("w1", "b1"), ("w2", "b2")):
            value = model.graph.initializers[weight]
            assert value.const_value is not None
            array = value.const_value.numpy().copy()
            half = len(array) // 2
            array[half:] = 0.5 * array[:half]  # every filter has a smaller parallel one
            value.const_value = ir.Tensor(array, name=weight)
            model.graph.initializers[bias].const_value = ir.Tensor(np.zeros(2 * half, np.float32), name=bias)
        before = execute(model, x)["y"]
        PassManager(f"prune{{ratio=0.5 criterion=l2 compensation={compensation} ridge=1e-6}}").run(model, Context())
        errors[compensation] = float(np.abs(execute(model, x)["y"] - before).max())
    assert errors["merge"] < 1e-3 * errors["none"]


def test_reestimated_statistics_are_those_of_the_inputs() -> None:
    from planish.ir.text import parse_model

    model = parse_model("""<ir_version: 10, opset_import: ["" : 20]>
main (float[N,2,4,4] x) => (float[N,3,4,4] y)
   <float[3,2,1,1] w = seeded(0), float[3] g = {1,2,3}, float[3] b = {4,5,6}, float[3] m = splat(9),
    float[3] v = splat(9)>
{
   a = Conv (x, w)
   y = BatchNormalization <epsilon = 0.0> (a, g, b, m, v)
}""")
    feeds = [{"x": np.random.default_rng(i).standard_normal((8, 2, 4, 4)).astype(np.float32)} for i in range(4)]
    PassManager("reestimate-bn").run(model, Context(synthetic=feeds))
    y = np.concatenate([execute(model, feed)["y"] for feed in feeds])
    np.testing.assert_allclose(y.mean((0, 2, 3)), [4, 5, 6], atol=1e-4)
    np.testing.assert_allclose(y.std((0, 2, 3)), [1, 2, 3], atol=1e-3)


@pytest.mark.parametrize("criterion", ["l2", "fpgm", "bn-scale", "dfpc", "taylor", "attention", "random"])
def test_every_criterion_ranks_and_prunes(criterion: str) -> None:
    model = network()
    context = Context(synthetic=[{"x": np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)}])
    PassManager(f"prune{{ratio=0.25 criterion={criterion} alignment=1}}").run(model, context)
    assert model.graph.initializers["w1"].shape == (12, 3, 3, 3)


def test_sparsify_says_whether_the_target_reads_the_pattern() -> None:
    from planish.targets.registry import resolve

    for target, words in (("ethos-u85-256", "in its own format"), ("arm64", "not smaller or faster")):
        manager = PassManager("sparsify{pattern=2:4}")
        manager.run(network(), Context(target=resolve(target)))
        assert any(words in note for note in manager.outcome.records[-1].notes)


@pytest.mark.parametrize("target, block", [(None, (4, 1)), ("arm64", (4, 4)), ("ethos-u55-128", (16, 1))])
def test_sparsify_takes_out_blocks_of_the_targets_instruction(target: str | None, block: tuple[int, int]) -> None:
    from planish.targets.registry import resolve

    model = network()
    context = Context(target=resolve(target) if target else None)
    PassManager("sparsify{pattern=block:50%}").run(model, context)
    value = model.graph.initializers["w2"].const_value
    assert value is not None
    outputs, inputs = block
    padded = np.pad(value.numpy() != 0, ((0, -8 % outputs), (0, 0), (0, 0), (0, 0)))
    tiles = padded.reshape(-1, outputs, 16 // inputs, inputs, 3, 3).any((1, 3))
    assert tiles.mean() == 0.5


@pytest.mark.parametrize("text", ["0x4:50%", "4x4", "block", "4x4:0%", "4x4:100%"])
def test_sparsify_refuses_blocks_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="is not a pattern"):
        PassManager(f"sparsify{{pattern={text}}}").run(network(), Context())


@pytest.mark.parametrize("method", ["exact-obs", "l-obs"])
def test_sparsify_takes_a_share_of_every_layer(method: str) -> None:
    model = network()
    context = Context(synthetic=[{"x": np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)}])
    PassManager(f"sparsify{{pattern=50% method={method}}}").run(model, context)
    value = model.graph.initializers["w2"].const_value
    assert value is not None and (value.numpy() == 0).mean() == 0.5


def test_a_group_too_narrow_for_the_alignment_takes_a_smaller_one() -> None:
    from planish.targets.registry import resolve

    target = resolve("cuda")  # aligned to 16: the 16 filters of w1 could only lose all or none
    assert target.channel_alignment == 16
    model = network()
    PassManager("prune{ratio=0.5 criterion=l1 compensation=none}").run(model, Context(target=target))
    assert model.graph.initializers["w1"].shape == (8, 3, 3, 3)
    strict = network()
    PassManager("prune{ratio=0.5 criterion=l1 compensation=none alignment=16}").run(strict, Context(target=target))
    assert strict.graph.initializers["w1"].shape == (16, 3, 3, 3)
