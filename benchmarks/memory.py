"""The peak of resident memory. Alone in a file that imports next to nothing, and so adds nothing to what it measures."""

import sys


def peak_memory() -> int:
    """Return the highest resident memory of this process so far, in bytes."""
    try:
        # Not ru_maxrss, which on Linux starts at the peak of the process that started this one.
        with open("/proc/self/status", encoding="ascii") as file:
            return int(file.read().partition("VmHWM:")[2].split()[0]) * 1024
    except OSError:
        import resource  # Windows has neither

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
