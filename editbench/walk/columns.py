"""Names of the columns of a table of walks that several rooms read or write.

Apart from the engine, which writes them, so that whoever reads a table needs no engine. The columns
of an observation are named where it is.
"""

from __future__ import annotations

LOGIT = "logit:"  # and the name of one of the judge's logits
