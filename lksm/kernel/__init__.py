"""The KSM of the running kernel, driven pass by pass: what lksm is held against.

>>> with driving({"smart_scan": 0}) as ksm, Child() as child:
>>>     child.map(pages)
>>>     ksm.one_pass()["pages_sharing"]

Needs root. The tests and `lksm compare` use it; the engine knows nothing of it.
"""

from ._child import Child
from ._errors import KsmUnavailable
from ._files import Files
from .driver import COUNTERS, Ksm, driving, expect_drivable

__all__ = ["COUNTERS", "Child", "Files", "Ksm", "KsmUnavailable", "driving", "expect_drivable"]
