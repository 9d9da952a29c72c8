"""Runs checks one after the other, and prints how each of them ended."""

import signal
import traceback

from processes import Failed


class Checks:
    def __init__(self, seconds_max):
        """`seconds_max`: a check that takes longer hangs, and SIGALRM ends it."""
        self.seconds_max = seconds_max
        self.passed = self.failed = 0

    def __call__(self, sentence, function, *arguments):
        """Runs one check, which raises Failed or returns, and prints how it ended. Returns whether it passed."""
        signal.alarm(self.seconds_max)
        try:
            said = function(*arguments)
            signal.alarm(0)
        except Failed as error:
            self.failed += 1
            print(f"FAIL {sentence}\n  {error}", flush=True)
        except Exception:
            self.failed += 1
            print(f"FAIL {sentence}\n{traceback.format_exc()}", flush=True)
        else:
            self.passed += 1
            print(f"ok   {sentence}" + (f": {said}" if said else ""), flush=True)
            return True
        finally:
            signal.alarm(0)
        return False
