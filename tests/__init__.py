"""Tests. Ctrl-C must reach what they start, also where they themselves were started with it ignored (nohup, a job)."""

import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
