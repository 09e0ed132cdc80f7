"""`python -m stack tools` builds the native back ends; `python -m stack` runs them with the demo until Ctrl-C."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stack import build, processes


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "tools"), default="run")
    parser.add_argument("--seconds", help="end the demo's traffic after this time")
    options = parser.parse_args()
    if options.what == "tools":
        return build_all()
    try:
        return run([f"--seconds={options.seconds}"] if options.seconds else [])
    except (processes.NotBuiltError, processes.NotReadyError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def build_all() -> int:
    """Build the back ends that are not built yet; the exit status."""
    kept = build.cache(os.environ)
    for module in build.MODULES:
        print(f"{module.name} …", flush=True)
        try:
            print(f"{module.name}: {build.build(module, kept, os.environ)}", flush=True)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            print(f"{module.name} cannot be built: {error}", file=sys.stderr)
            return 2
    return 0


def run(options: list[str]) -> int:
    """Run the stack, and a demo whose telemetry it receives; the demo's exit status."""
    programs = processes.Programs.found(os.environ)
    with (
        tempfile.TemporaryDirectory(prefix="callscope-stack-") as folder,
        processes.running(Path(folder), programs) as stack,
    ):
        print(directions(stack), flush=True)
        command = processes.ends_with_stdin(*processes.demo(stack, *options))
        demo = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        with contextlib.suppress(KeyboardInterrupt):
            return demo.wait()
        print("ending: the demo prints its totals, then the back ends write what they hold (about 10 s)", flush=True)
        demo.communicate()  # closes its standard input, which ends it
        return demo.returncode


def directions(stack: processes.Stack) -> str:
    """Where everything is, and what is not there."""
    loki = stack.loki or f"not here. Log records go to {stack.logs}; LogQL cannot be run. See docs/stack.md"
    return "\n".join(
        (
            f"Prometheus:    {stack.prometheus} (this build has no web page: use /api/v1/query)",
            f"Alertmanager:  {stack.alertmanager}",
            f"Loki:          {loki}",
            f"OTLP:          {stack.otlp}",
            f"Metrics:       http://{stack.observer}/metrics",
            f"Traces:        {stack.traces}",
            f"Log records:   {stack.logs}",
            f"Programs' logs: {stack.folder}/*.log",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
