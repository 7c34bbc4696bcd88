"""Why the kernel's KSM cannot be driven."""

from __future__ import annotations

from ..errors import LksmError


class KsmUnavailable(LksmError, RuntimeError):
    """There is no KSM here, it may not be driven, or somebody else uses it; the message says which."""
