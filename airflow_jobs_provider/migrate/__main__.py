"""The command ``python -m airflow_jobs_provider.migrate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from airflow_jobs_provider.migrate.files import find_files, is_python, named_lines, replace
from airflow_jobs_provider.migrate.findings import FileResult, Finding, Kind
from airflow_jobs_provider.migrate.report import report, unified_diff

__all__ = ["main"]

_CHANGES_PENDING, _FAILED = 1, 2
_EPILOG = """\
The diff goes to the standard output, the report to the standard error.
Exit code: 0 if nothing is to be changed or all changes were written, 1 if there are changes and
--write was not given, 2 if something could not be examined or written."""
# No import of the official provider is without this word.
_WORD = b"databricks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the files, show or write the changes, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_jobs_provider.migrate",
        description="Change the imports of DAG files from the official Databricks provider to "
        "airflow_jobs_provider.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", nargs="+", type=Path, help="a folder, or a file")
    parser.add_argument(
        "--write", action="store_true", help="change the files instead of showing a diff"
    )
    given = parser.parse_args(arguments)
    if find_spec("libcst") is None:
        parser.exit(
            _FAILED,
            "libcst is missing: pip install 'airflow-jobs-provider[migrate]',"
            " or pip install libcst\n",
        )
    changed = failed = 0
    for file in _each_once(given.path):
        try:
            if isinstance(file, OSError):
                raise file
            result = _examine(file)
            _show(file, result, writes=given.write)
        except BrokenPipeError:  # nobody reads the diff any more
            return _FAILED
        except OSError as error:
            failed += 1
            print(_failure(error), file=sys.stderr)
        else:
            changed += result.has_changed
            failed += result.has_failed
    verb = "changed" if given.write else "to be changed"
    print(f"Files {verb}: {changed}. Files that failed: {failed}.", file=sys.stderr)
    is_pending = bool(changed) and not given.write
    if is_pending:
        print("To change them, add --write.", file=sys.stderr)
    if failed:
        return _FAILED
    return _CHANGES_PENDING if is_pending else 0


def _each_once(paths: Iterable[Path]) -> Iterator[Path | OSError]:
    """Return each file once, a link as the file that it leads to, and errors of folders."""
    seen: set[Path] = set()
    for path in paths:
        try:
            for file in find_files(path):
                target = file.resolve()
                if target not in seen:
                    seen.add(target)
                    # git applies no change to a link.
                    yield target if file.is_symlink() else file
        except OSError as error:
            yield error


def _failure(error: OSError) -> str:
    """Return the lines of the report about a file that cannot be read or written."""
    finding = Finding(0, Kind.ERROR, error.strerror or str(error))
    return "\n".join(report(Path(error.filename or "?"), [finding]))


def _examine(file: Path) -> FileResult:
    content = file.read_bytes()
    if _WORD not in content:
        return FileResult(content, content)
    if not is_python(file):
        return FileResult(content, content, tuple(named_lines(content)))
    from airflow_jobs_provider.migrate.rewrite import rewrite

    try:
        return rewrite(content)
    except RecursionError:
        nested = Finding(0, Kind.ERROR, "the code is nested too deeply")
        return FileResult(content, content, (nested,))


def _show(file: Path, result: FileResult, *, writes: bool) -> None:
    absolute = file.absolute()
    shown = absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
    if result.has_changed and writes:
        replace(file, result.after)
    elif result.has_changed:
        sys.stdout.buffer.write(unified_diff(shown, result.before, result.after))
        sys.stdout.flush()
    for line in report(shown, result.findings):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
