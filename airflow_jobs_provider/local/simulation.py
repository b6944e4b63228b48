"""What a test changes in a local workspace: faults, scripted results, and the log of requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_jobs_provider.local.engine.scripted_results import ScriptedResults
from airflow_jobs_provider.local.http.faults import Faults
from airflow_jobs_provider.local.http.request_log import RequestLog

__all__ = ["Simulation"]


@dataclass(frozen=True, slots=True)
class Simulation:
    """The parts of a workspace that tests control; each may be used from any thread.

    :ivar faults: how the next requests fail.
    :ivar results: how runs end, without running anything.
    :ivar log: what clients asked.
    """

    faults: Faults = field(default_factory=Faults)
    results: ScriptedResults = field(default_factory=ScriptedResults)
    log: RequestLog = field(default_factory=RequestLog)
