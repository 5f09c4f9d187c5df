"""What the backends count as they work, for debug(): fallbacks and layout conversions."""

from collections import Counter

COUNTS = Counter()  # "layout conversion", or "op: implementation refused: reason" -> how often
