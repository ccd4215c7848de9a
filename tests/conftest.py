"""What every test process starts with."""

import signal

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that. The
# tests send real signals, and must do so whoever started them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
