"""Measuring networks against a baseline: a process each, taking turns, and the ratio with its interval."""

from __future__ import annotations

from dyx.bench.compare import Comparison, bench, check_writable
from dyx.bench.contender import Contender, Skipped, bundle_contender
from dyx.bench.measure import Progress
from dyx.bench.pool import pool, read_record, sweep_json
from dyx.bench.profile_report import profile_tables
from dyx.bench.report import tabulate, tabulate_all
from dyx.bench.samples import Settings
from dyx.bench.scenario_report import scenario_table
from dyx.bench.scenario_result import ScenarioResult, ScenarioRun, read_scenario_run
from dyx.bench.scenarios import Scenario, run_scenario, run_scenarios
from dyx.bench.summary import Row
from dyx.bench.sweep import Match, Plan, check_ratios, save, save_csv, sweep

__all__ = [
    "Comparison",
    "Contender",
    "Match",
    "Plan",
    "Progress",
    "Row",
    "Scenario",
    "ScenarioResult",
    "ScenarioRun",
    "Settings",
    "Skipped",
    "bench",
    "bundle_contender",
    "check_ratios",
    "check_writable",
    "pool",
    "profile_tables",
    "read_record",
    "read_scenario_run",
    "run_scenario",
    "run_scenarios",
    "save",
    "save_csv",
    "scenario_table",
    "sweep",
    "sweep_json",
    "tabulate",
    "tabulate_all",
]
