"""`python -m tests.onnx_cases`: how many cases pass, and why the others are skipped."""

import sys
from collections import Counter

from . import check

reasons: Counter[str] = Counter()
total = 0
for case in check.supported():
    total += 1
    if case.name in check.SKIPPED:
        reasons[check.SKIPPED[case.name]] += 1
    else:
        check.check(case)
skipped = sum(reasons.values())
sys.stdout.write(f"passed {total - skipped} of {total}, skipped {skipped}:\n")
for reason, count in reasons.most_common():
    sys.stdout.write(f"{count:5}  {reason}\n")
