"""Tests. Ctrl-C must reach what they start, also where they themselves were started with it ignored (nohup, a job)."""

import multiprocessing
import signal

# Not in a worker that imports a method of the tests: workers ignore Ctrl-C.
if multiprocessing.parent_process() is None and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
