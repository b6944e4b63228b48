"""Values that are no id of a job, a run or a repair."""

from __future__ import annotations

from airflow_jobs_provider.api.ids import MAX_ID

NO_IDS = [
    *(None, True, False, 0, -7, 1.0, 1.5, float("nan"), float("inf"), MAX_ID + 1, 10**400),
    *("", "0", "-7", "+7", " 7", "7\n", "007", "1_000", "12abc", "1.0", "1e3", str(MAX_ID + 1)),
    *("\uff11\uff12", "\u0661", "9" * 5000, "None", b"7", [1], {"run_id": 1}, (1,)),
]
