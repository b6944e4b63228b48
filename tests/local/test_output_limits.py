"""The limits of what a run gives out: of a cell, of a notebook, of an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_jobs_provider.local.output_limits import (
    MAX_CELL_OUTPUT_BYTES,
    MAX_ERROR_CHARS,
    MAX_TRACE_CHARS,
    OutputMeter,
)
from tests.local.api import Api

TOO_LARGE = "The output of the notebook is too large. Cause: "
MIB = 1024 * 1024
# Each gives out 9 MB in the last cell, and ends well as far as Python is concerned.
TOO_MUCH = {
    "print": "print('x' * 9_000_000)",
    "not ASCII": "print('ü' * 4_500_000)",
    "result": "'x' * 9_000_000",
    "display": "display('x' * 9_000_000)",
    "nested JSON": "display({'application/json': {'a': [['x' * 90] * 100_000]}}, raw=True)",
    "numbers": "display({'application/json': {'a': [1] * 1_200_000}}, raw=True)",
    "metadata": "display({'text/plain': 'x'}, metadata={'a': 'x' * 9_000_000}, raw=True)",
    "updates": """
        from IPython.display import display
        handle = display("", display_id=True)
        for _ in range(90):
            handle.update("x" * 100_000)
        """,
    "comm": """
        from comm import create_comm
        create_comm(target_name="any", data={"a": "x" * 9_000_000})
        """,
    "buffers": """
        from comm import create_comm
        create_comm(target_name="any", data={}, buffers=[b"x" * 9_000_000])
        """,
    "caught errors": """
        for _ in range(20):
            try:
                raise ValueError("x" * 450_000)
            except ValueError:
                get_ipython().showtraceback()
        """,
    "child process": """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "print('x' * 9_000_000)"])
        """,
    "fork": """
        import os
        if os.fork() == 0:
            print("x" * 9_000_000)
            os._exit(0)
        os.wait()
        """,
    "thread": """
        import threading
        thread = threading.Thread(target=lambda: print("x" * 9_000_000))
        thread.start()
        thread.join()
        """,
    "exit value": "print('x' * 9_000_000)\ndbutils.notebook.exit('done')",
    "error": "print('x' * 9_000_000)\nraise ValueError",
    "endless": "while True:\n    print('x' * 100_000)",
    "endless display": "while True:\n    display('x' * 100_000)",
}

# One of each way in which output reaches the meter; the others take the time of a kernel each.
QUICK = ("print", "nested JSON", "child process", "endless")


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=kind, marks=[] if kind in QUICK else pytest.mark.slow)
        for kind, cell in TOO_MUCH.items()
    ],
)
def test_cell_over_the_limit(api: Api, cell: str) -> None:
    """Whatever a cell gives out more than 8 MB of, the run fails and says why."""
    run, output = api.run_notebook("x = 1", cell)
    assert run["state"]["result_state"] == "FAILED"
    assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
    assert output["error"].startswith(TOO_LARGE)
    assert output["error"].endswith(f"exceeds limit of {MAX_CELL_OUTPUT_BYTES} bytes")
    assert output["notebook_output"] == {}


@pytest.mark.slow
def test_notebook_over_the_limit(api: Api) -> None:
    """Cells within their limit that give out more than 20 MB together fail the run."""
    cells = ["print('x' * 6_000_000)"] * 3
    run, output = api.run_notebook(*cells)
    assert run["state"]["result_state"] == "SUCCESS", output
    run, output = api.run_notebook(*cells, cells[0])
    assert run["state"]["result_state"] == "FAILED"
    assert output["error"].startswith(TOO_LARGE + "rpc response")
    assert output["error"].endswith(f"exceeds limit of {20 * MIB} bytes")


@pytest.mark.slow
@pytest.mark.parametrize("wait", [False, True])
def test_cleared_output_does_not_count(api: Api, wait: bool) -> None:
    """What a cell has cleared is not kept, and does not count."""
    run, output = api.run_notebook(
        f"""
        from IPython.display import clear_output
        for _ in range(10):
            clear_output(wait={wait})
            print("x" * 3_000_000)
        """
    )
    assert run["state"]["result_state"] == "SUCCESS", output


def test_error_that_is_too_long(api: Api) -> None:
    """The text and trace of a huge exception are cut off, and the output says so."""
    run, output = api.run_notebook("def f():\n    raise ValueError('x' * 50_000_000)", "f()")
    assert run["state"]["result_state"] == "FAILED"
    assert output["error"].startswith("ValueError: xxx")
    assert output["error"].endswith("... (truncated: 50000000 characters)")
    assert len(output["error"]) < MAX_ERROR_CHARS + 100
    assert "raise ValueError" in output["error_trace"]
    assert len(output["error_trace"]) < MAX_TRACE_CHARS + 1000
    assert output["notebook_output"] == {"truncated": True}


def test_error_of_a_file_that_is_too_long(api: Api) -> None:
    """The error of a Python file is cut off, whether or not the log still holds its traceback."""
    run_id = api.submit_python("raise ValueError('x' * 2_000_000)")
    assert api.wait(run_id)["state"]["result_state"] == "FAILED"
    output = api.output(run_id)
    assert output["error"].startswith("ValueError: xxx")
    assert len(output["error"]) < MAX_ERROR_CHARS + 100
    assert len(output["error_trace"]) < MAX_TRACE_CHARS + 100
    run_id = api.submit_python("raise ValueError('x' * 6_000_000)")
    api.wait(run_id)
    assert api.output(run_id)["error"].startswith("The process ended with exit code 1: xxx")
    assert len(api.output(run_id)["error"]) < MAX_ERROR_CHARS + 100


def test_kernel_that_does_not_start(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that does not start says why in the run's state message."""
    (tmp_path / "ipykernel.py").write_text("raise RuntimeError('a broken ipykernel')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run_id = api.submit(notebook_task={"notebook_path": api.notebook("1")})
    state = api.wait(run_id)["state"]
    assert state["life_cycle_state"] == "INTERNAL_ERROR"
    assert "The notebook's kernel did not start: " in state["state_message"]
    assert state["state_message"].endswith(": RuntimeError: a broken ipykernel")


def test_meter_counts_what_is_kept() -> None:
    """The meter counts text as UTF-8, keys and values alike, and starts anew with each cell."""
    meter = OutputMeter()
    meter.add("display_data", {"data": {"k" * MIB: "é" * MIB}})
    meter.add("status", {"execution_state": "x" * 9 * MIB})
    assert meter.excess == ""
    meter.add("stream", {"text": "x" * 5 * MIB})
    assert "the output of a cell (of 83886" in meter.excess
    meter = OutputMeter()
    for _ in range(2):
        meter.begin_cell()
        meter.add_text("\ud800" * 2 * MIB)
    assert meter.excess == ""
