"""`python -m stack tools` builds the native back ends, `python -m stack` runs them with the demo until Ctrl-C."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stack import build, processes


def main() -> int:
    """Do what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "tools"), default="run")
    parser.add_argument("--seconds", help="of traffic, then it ends by itself")
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
    """Build what is not there."""
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
    """Run the stack, and the demo beside it."""
    programs = processes.Programs.found(os.environ)
    with (
        tempfile.TemporaryDirectory(prefix="callscope-stack-") as folder,
        processes.running(Path(folder), programs) as stack,
    ):
        print(directions(stack), flush=True)
        demo = subprocess.Popen(
            processes.leashed(*processes.demo(stack, *options)), stdin=subprocess.PIPE, start_new_session=True
        )
        with contextlib.suppress(KeyboardInterrupt):
            return demo.wait()
        print("ending: the demo reckons up, then Loki writes what it has, in about ten seconds", flush=True)
        demo.communicate()  # its sign to end
        return demo.returncode


def directions(stack: processes.Stack) -> str:
    """Where everything is."""
    return "\n".join(
        (
            f"Prometheus:    {stack.prometheus} (no user interface in this build: ask /api/v1/query)",
            f"Alertmanager:  {stack.alertmanager}",
            f"Loki:          {stack.loki}",
            f"OTLP:          {stack.otlp}",
            f"Metrics:       http://{stack.observer}/metrics",
            f"Traces:        {stack.traces}",
            f"Logs of all:   {stack.folder}/*.log",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
