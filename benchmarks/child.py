"""Run a command and report on it: ARGUMENTS... prints seconds, peak bytes, status, then its output.

A process of its own, since Linux counts what its parent held at the fork into a child's peak.
"""

import json
import resource
import subprocess
import sys
import time

began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps([seconds, peak, done.returncode, done.stdout]))
