"""The command `canonlift` in processes of its own, one or several as torchrun starts them.

One process imports and then forks a child for every call, since importing takes seconds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SERVER = """
import gc, json, os, signal, socket, sys, traceback
import torch
import torch.distributed
from canonlift import distributed
from canonlift.cli import eval as evaluation, train as program
from canonlift.cli.main import main
from canonlift.training import checkpoint, loop, runs, session, train
from canonlift.training import metrics_log as log
loop.LOG_EVERY = 5
import scipy.signal  # as filming does
torch.optim.Adam([torch.zeros(1)])  # imports more of torch
torch.set_num_threads(1)
gc.freeze()
signal.signal(signal.SIGINT, signal.default_int_handler)  # background shells ignore it

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def run(argv, first=""):
    code = 0
    try:
        exec(first, globals())
        main(argv)
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            code = print(code, file=sys.stderr) or 1
    except BaseException:
        code = traceback.print_exc() or 1
    sys.stdout.flush()
    os._exit(code or 0)  # taking the interpreter apart takes longer than training

for line in sys.stdin:
    job, children = json.loads(line), []
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for rank, output in enumerate(job["outputs"]):
        child = os.fork()
        if child == 0:
            break
        children.append(child)
    if child == 0:
        break
    print(json.dumps(children), flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes), flush=True)
else:
    sys.exit()
signal.alarm(120)  # nobody waits for ever
written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(written, 1), os.dup2(written, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
if job["together"]:
    n = str(len(job["outputs"]))
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank),
                   "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n,
                   "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
sys.argv = job["argv"]
run(sys.argv, job["first"])
"""


class Programs:
    """Starts `canonlift` with code to run first in its process; waits for exit code and output."""

    def __init__(self, folder):
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads do not survive a fork
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _start(self, n, argv, first, together):
        self.outputs = [self.folder / str(rank) for rank in range(n)]
        job = {
            "argv": [str(arg) for arg in argv],
            "first": first,
            "outputs": [str(path) for path in self.outputs],
            "together": together,
        }
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def _wait(self):
        return json.loads(self.server.stdout.readline()), [p.read_text() for p in self.outputs]

    def start(self, *argv, first=""):
        """The process of one program that now runs."""
        return self._start(1, argv, first, together=False)[0]

    def wait(self):
        """Its exit code and what it printed."""
        codes, printed = self._wait()
        return codes[0], printed[0]

    def run(self, *argv, first=""):
        self.start(*argv, first=first)
        return self.wait()

    def run_together(self, n, *argv, first=""):
        """`torchrun --nproc_per_node n -m canonlift ARGV`: the code and the output of each."""
        self._start(n, argv, first, together=True)
        return self._wait()

    def close(self):
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    server = Programs(tmp_path_factory.mktemp("programs"))
    yield server
    server.close()
