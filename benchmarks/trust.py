"""Whether the benchmark can be trusted: equals come out equal, repeated runs agree, and measuring costs nothing.

    python benchmarks/trust.py [--same 20] [--twice 10] [--overhead 15]

1. A bundle against itself, again and again: how often the 95 % interval of the ratio holds 1.0.
2. The same comparison twice, while another process keeps one core busy: how often the two intervals overlap.
3. Calls timed by dyx at batch 1 beside a bare loop over the same session: what the harness adds.

Every comparison is made in several runs, each with processes of its own. Writes benchmarks/results/trust.json. About
half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from zoo import RESULTS, bundle_of

from dyx.bench import Match, Plan, bundle_contender, sweep
from dyx.bench.stats import Ratio
from dyx.bench.worker import Calls, make_input
from dyx.environment import environment
from dyx.runtime import open_bundle

BACKEND, BATCH, RUNS, SECONDS = "onnxruntime", 8, 5, 1.0
CALLS = 100


def ratio_of(name: str, baseline: str) -> Ratio:
    """One comparison at the plan above."""
    sides = [(f"{name} again" if name == baseline else name, name, False), (baseline, baseline, True)]
    contenders = [
        bundle_contender(bundle_of(model), BACKEND, device="cpu", name=title, baseline=base)
        for title, model, base in sides
    ]
    (found,) = sweep([Match(contenders, [], BATCH)], Plan(seconds=SECONDS, runs=RUNS))
    (ratio,) = [row.ratio for row in found.rows if row.ratio is not None]
    return ratio


def same(times: int) -> dict[str, Any]:
    """A bundle of alexnet against itself."""
    found = []
    for number in range(times):
        ratio = ratio_of("alexnet", "alexnet")
        assert ratio.low is not None and ratio.high is not None
        found.append({**asdict(ratio), "holds_one": ratio.low <= 1 <= ratio.high})
        print(f"same {number + 1}: {ratio.value:.3f} [{ratio.low:.3f} {ratio.high:.3f}]", flush=True)
    return {"of": times, "hold_one": sum(entry["holds_one"] for entry in found), "ratios": found}


def _spin() -> None:
    while True:
        sum(range(10_000))


@contextmanager
def one_busy_core() -> Iterator[None]:
    """Another process that never rests, while this lasts."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def twice(times: int) -> dict[str, Any]:
    """alexnet-eca against alexnet, two times in a row, beside a busy core."""
    found = []
    for number in range(times):
        with one_busy_core():
            one, other = ratio_of("alexnet-eca", "alexnet"), ratio_of("alexnet-eca", "alexnet")
        assert None not in (one.low, one.high, other.low, other.high)
        overlap = max(one.low, other.low) <= min(one.high, other.high)
        found.append({"one": asdict(one), "other": asdict(other), "overlap": overlap})
        words = ", ".join(f"{ratio.value:.3f} [{ratio.low:.3f} {ratio.high:.3f}]" for ratio in (one, other))
        print(f"twice {number + 1}: {words} {'overlap' if overlap else 'APART'}", flush=True)
    return {"of": times, "overlap": sum(entry["overlap"] for entry in found), "pairs": found}


def overhead(rounds: int) -> dict[str, Any]:
    """What dyx's timed calls take beyond a bare loop over the same session, as a share; batch 1, taking turns."""
    with open_bundle(bundle_of("alexnet"), BACKEND, "cpu") as runner:
        image = make_input(runner.contract.input, 1, 0)
        calls, session = Calls(runner, image), runner._session
        feed, wanted = {runner.contract.input.name: image}, [runner.contract.output.name]
        shares = []
        for number in range(2 * rounds + 2):
            halves = {}
            for half in ("bare", "timed") if number % 2 else ("timed", "bare"):
                begun = time.perf_counter_ns()
                if half == "bare":
                    for _ in range(CALLS):
                        session.run(wanted, feed)
                    halves[half] = time.perf_counter_ns() - begun
                else:
                    answer = calls.until(lambda made, _seconds: made >= CALLS)
                    halves[half] = answer["done_ns"][-1] - answer["sent_ns"][0]
            if number > 1:  # the first two warm up
                shares.append(halves["timed"] / halves["bare"] - 1)
    middle = statistics.median(shares)
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(shares, (10_000, len(shares))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    print(f"overhead: {middle:.3%} [{low:.3%} {high:.3%}]", flush=True)
    return {"rounds": len(shares), "median": middle, "low": float(low), "high": float(high), "shares": shares}


def main() -> None:
    """Measure and write; a part that was not asked for keeps its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--same", type=int, default=20)
    parser.add_argument("--twice", type=int, default=10)
    parser.add_argument("--overhead", type=int, default=15)
    options = parser.parse_args()
    path = RESULTS / "trust.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    record["environment"] = environment()
    record["plan"] = {"backend": BACKEND, "batch": BATCH, "runs": RUNS, "seconds": SECONDS}
    for name, part, times in (
        ("overhead", overhead, options.overhead),
        ("same", same, options.same),
        ("twice", twice, options.twice),
    ):
        if times:
            record[name] = part(times)
            path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
