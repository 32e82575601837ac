"""Everything that has to be seen on a GPU, in eight minutes: tests on CUDA, the ``gpu`` benchmark, ZeroGPU's times.

    scripts/gpu_check --out FOLDER [--from FOLDER] [--minutes 8] [--only PART ...] [--smoke]
    scripts/gpu_check --bundle FOLDER [--for-python 3.12] [--part-mb 25] [--without NAME ...]

Each part is a process of its own with a time limit, and what it found is written before the next begins: a run that is
cut off is worth what it had found. The parts stand in the order of what they are worth. In FOLDER: summary.md and
summary.json (kept up to date), rows.jsonl (each figure as it comes), log.txt (what the parts said).

This module needs the standard library alone: a bare machine has nothing else until ``--from`` has unpacked it.
"""

import argparse
import contextlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.gpu_bundle import bundle, install

ROOT = Path(__file__).parents[1]
_TELL = """
import json, platform, torch
there = torch.cuda.is_available()
told = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "card": torch.cuda.get_device_name() if there else "none: a processor", "threads": torch.get_num_threads()}
import transformers
print(json.dumps(told | {"transformers": transformers.__version__}))
"""
_DRIVER = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]


@dataclass(frozen=True)
class Part:
    """One thing to see."""

    name: str
    seconds: float  # that it may take
    command: Sequence[str]  # after Python's own name
    of_smoke: Sequence[str] = ()  # what is added where only the code is tried


def _tests(name: str, seconds: float, *files: str) -> Part:
    # A few at a time: a tiny model leaves a card idle, and Python waits for it.
    words = ("-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "--tb=short", "-rs")
    return Part(name, seconds, (*words, *files, "--numprocesses=6"), ("-k", "llama or gpu", "--numprocesses=0"))


def _figures(name: str, seconds: float, *measurements: str) -> Part:
    return Part(name, seconds, ("-m", "benchmarks.gpu", *measurements, "--rows", "{rows}"),
                ("--smoke", "--repeats", "1"))


# By what each is worth where time is short. Together they may take more than there is: each ends earlier as a rule.
PARTS = (
    _figures("trees: speed", 110, "growth", "together", "launches"),
    _tests("trees: as the recursion's", 130, "tests/model/test_architectures.py"),
    _figures("recorded pass", 45, "graph"),
    _tests("memory, the demo", 75, "tests/test_gpu.py"),
    _tests("changes, evidence, pullback, scan", 120, "tests/model/test_interventions.py",
           "tests/model/test_path_log_probs.py", "tests/model/test_pullback.py", "tests/model/test_questions.py",
           "tests/model/test_residual_stream.py", "tests/store/test_scans.py"),
    _figures("other work: speed", 90, "scan", "pullback", "lists", "loading"),
    Part("times for ZeroGPU", 30, ("-m", "benchmarks.gpu_fit", "{rows}")),
    _figures("compiled pass", 90, "compiled"),
)


@dataclass(frozen=True)
class Found:
    """What came of a part."""

    name: str
    outcome: str  # "done", "failed", "cut off after … s", "not begun: no time was left"
    seconds: float
    said: str  # its last lines
    command: str

    @property
    def done(self) -> bool:
        return self.outcome == "done"


@dataclass
class Check:
    """A run: where it writes, until when it goes on, and what it has found."""

    out: Path
    minutes: float
    smoke: bool
    site: Path | None  # what a bundle was unpacked to
    machine: dict = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    def __post_init__(self):
        self._until = time.monotonic() + 60 * self.minutes
        self.out.mkdir(parents=True, exist_ok=True)
        self.rows.write_text("", encoding="utf-8")
        (self.out / "log.txt").write_text("", encoding="utf-8")

    @property
    def rows(self) -> Path:
        return self.out / "rows.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        paths = [str(ROOT), *([str(self.site / "site")] if self.site else [])]
        # Behind what the bundle holds: what the machine's own Python finds.
        paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        device = "cpu" if self.smoke else "cuda"
        offline = {} if not self.site else {
            "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.site / "demo"),
            "SAE_MULTITOOL_CACHE": str(self.site / "cache"),
        }
        return os.environ | offline | {
            "PYTHONPATH": os.pathsep.join(paths), "SAE_MULTITOOL_TEST_DEVICE": device, "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
        }

    def do(self, part: Part) -> Found:
        """Run a part, within its time and what is left of all."""
        words = [*part.command, *(part.of_smoke if self.smoke else ())]
        command = [sys.executable, *(word.replace("{rows}", str(self.rows)) for word in words)]
        shown = shlex.join(["python", *command[1:]])
        left = min(part.seconds * (5 if self.smoke else 1), self._until - time.monotonic())
        if left < 5:
            return Found(part.name, "not begun: no time was left", 0.0, "", shown)
        began = time.monotonic()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=said,
                                       stderr=subprocess.STDOUT, start_new_session=True)
            try:
                code = process.wait(timeout=left)
                outcome = "done" if code == 0 else f"failed (exit status {code})"
            except subprocess.TimeoutExpired:
                outcome = f"cut off after {left:.0f} s"
            finally:
                _end(process)
            said.seek(0)
            text = said.read()
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"\n===== {part.name}: {outcome}\n$ {shown}\n{text}\n")
        return Found(part.name, outcome, time.monotonic() - began, _end_of(text), shown)

    def note(self, found: Found) -> None:
        """Keep it, and write the summaries anew."""
        self.found.append(found)
        rows = read_rows(self.rows)
        told = {"machine": self.machine, "smoke": self.smoke, "parts": [asdict(each) for each in self.found],
                "rows": rows}
        (self.out / "summary.json").write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
        (self.out / "summary.md").write_text(
            as_markdown(self.machine, self.smoke, self.found, rows), encoding="utf-8"
        )
        print(f"{found.name}: {found.outcome} ({found.seconds:.0f} s)", flush=True)


def _end(process: subprocess.Popen) -> None:
    """A part's processes, those that it started among them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_of(text: str, lines: int = 14) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])[-3000:]


def read_rows(path: Path) -> list[dict]:
    """The figures so far; a line that was cut off is none."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def as_markdown(machine: Mapping, smoke: bool, found: Sequence[Found], rows: Sequence[Mapping]) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    lines = ["# What was seen on a GPU" if not smoke else "# A trial on the processor: its figures say nothing", "",
             facts, "", "| part | outcome | seconds |", "| --- | --- | --- |"]
    lines += [f"| {each.name} | {each.outcome} | {each.seconds:.0f} |" for each in found]
    lines += ["", "| what | measured | ratio | reach |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    for each in found:
        lines += ["", f"## {each.name}", "", f"`{each.command}`: {each.outcome}", "", "```", each.said, "```"]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping) -> tuple[str, str, str, str]:
    measured = ", ".join(f"{name} {_spread(values)} {row['unit']}" for name, values in row["measured"].items())
    reach = ""
    if not (told := row.get("reach")):
        pass
    else:
        bound = next(name for name in ("at least", "at most") if name in told)
        reach = f"{bound} {told[bound]:g}: {'reached' if told['reached'] else 'MISSED'}"
    return row["what"], measured, _spread(row["ratio"]) if "ratio" in row else "", reach


def _spread(values: Mapping[str, float]) -> str:
    return f"{values['median']:.3g} ({values['min']:.3g}–{values['max']:.3g})"


def machine_facts(check: Check) -> dict:
    """The card, its driver, and the versions of what matters."""
    told = subprocess.run([sys.executable, "-c", _TELL], cwd=ROOT, env=check.environment, capture_output=True,
                          text=True, timeout=120, check=False)
    facts = json.loads(told.stdout.splitlines()[-1]) if told.returncode == 0 else {"problem": _end_of(told.stderr, 3)}
    try:
        driver = subprocess.run(_DRIVER, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except FileNotFoundError:
        driver = "none"
    return facts | {"driver": driver, "cores": os.cpu_count(), "system": platform.platform(),
                    "command": shlex.join(["scripts/gpu_check", *sys.argv[1:]]),
                    "date": time.strftime("%Y-%m-%d %H:%M %Z")}


def check(options: argparse.Namespace) -> int:
    """All parts; 1 if one was not done."""
    site = Path(tempfile.mkdtemp(prefix="gpu_check-")) if options.source else None
    run = Check(options.out, options.minutes, options.smoke, site)
    if site:
        began = time.monotonic()
        install(options.source, site)
        run.note(Found("unpacked", "done", time.monotonic() - began, "", ""))
    run.machine = machine_facts(run)
    print(", ".join(f"{name} {value}" for name, value in run.machine.items()), flush=True)
    for part in PARTS:
        if not options.only or part.name in options.only:
            run.note(run.do(part))
    return int(not all(each.done for each in run.found))


def _leave(number, frame) -> None:
    """Ended from outside: as an exception, so that a part that is running ends with it."""
    raise SystemExit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, _leave)
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--out", type=Path, metavar="FOLDER", help="where the results go (default: $OUT)",
        default=Path(os.environ["OUT"]) if os.environ.get("OUT") else None)
    add("--minutes", type=float, default=8, help="for all of it (default: %(default)s)")
    add("--only", action="append", choices=[part.name for part in PARTS], metavar="PART",
        help=f"one of: {'; '.join(part.name for part in PARTS)}")
    add("--smoke", action="store_true", help="on the processor, in tiny form: only tries whether everything runs")
    add("--from", dest="source", type=Path, metavar="FOLDER", help="a bundle to unpack first; no network is needed")
    add("--bundle", type=Path, metavar="FOLDER", help="write there what a machine without a network needs")
    add("--for-python", default="3.12", metavar="VERSION", help="of that machine (default: %(default)s)")
    add("--part-mb", type=float, metavar="N", help="no file of the bundle may be larger, in 10^6 bytes")
    add("--without", nargs="+", default=[], metavar="NAME", help="packages that machine has; demo: the demo's model")
    options = parser.parse_args()
    if options.bundle:
        bundle(options.bundle, options.for_python, options.part_mb, options.without)
        return 0
    if not options.out:
        parser.error("--out FOLDER says where the results go.")
    return check(options)


if __name__ == "__main__":
    sys.exit(main())
