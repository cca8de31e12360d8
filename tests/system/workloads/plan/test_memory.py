"""What a large plan needs of memory."""


def test_a_million_requests_fit_into_the_budget_of_memory() -> None:
    import subprocess
    import sys

    script = (
        "import re, pathlib\nfrom tailgate.workloads.plan.plan import make_plan\n"
        "from tailgate.workloads.config.workload import WorkloadSpec\n"
        "plan = make_plan(WorkloadSpec(profile='chat-gateway', requests=1_000_000), 1)\n"
        "assert plan.table.num_rows == 1_000_000\n"
        # Not `ru_maxrss`: a child begins with its parent's.
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 500
