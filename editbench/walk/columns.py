"""Names of trajectory columns that several rooms read or write.

They are separate from the engine, which writes them, so that readers of a table need not import it.
The columns of an observation are named in the observation's own module.
"""

from __future__ import annotations

LOGIT = "logit:"  # prefix; the name of one of the judge's logits follows
