"""What a gradient check found: one row per order and argument, readable as a table."""

import numpy as np

from minidl.core.errors import GradcheckError


class Row:
    """One argument at one order. The verdict is "ok", "wrong", or "not checked", which is not ok either."""

    def __init__(self, order, number, argument, verdict="ok", reason=""):
        self.order, self.number, self.argument = order, number, argument
        self.verdict, self.reason = verdict, reason
        self.error = self.tolerance = self.size = 0.0  # |analytic − numeric|, what is allowed, sum(|grad · v|): of the worst probe
        self.analytic = self.numeric = self.step = float("nan")
        self.probes = 0
        self.dtype = "float64"
        self.skipped = []   # one text per element that was left out
        self.guess = ""
        self.details = []   # lines: the worst entry of the Jacobian, and what was not looked at
        self.curve = None

    @property
    def ok(self):
        """Was it checked and found right?"""
        return self.verdict == "ok"

    def take(self, analytic, slope, tolerance, size):
        """Record one probe, if it is the worst so far."""
        error = abs(analytic - slope.value)
        right = bool(np.isfinite(analytic)) and error <= tolerance  # this way round NaN fails
        if not right or self.probes <= 1 or error * self.tolerance > self.error * tolerance:
            self.analytic, self.numeric, self.error, self.tolerance = analytic, slope.value, error, tolerance
            self.size, self.step = size, slope.step
        if not right:
            self.verdict, self.reason = "wrong", "the gradient disagrees with finite differences"

    @property
    def relative(self):
        """The error as a part of the gradient's size."""
        return self.error / self.size if self.size else self.error

    def as_dict(self):
        """For --json."""
        keys = ("order", "argument", "dtype", "verdict", "reason", "error", "tolerance", "size", "analytic", "numeric", "step", "probes",
                "skipped", "guess", "details")
        values = {key: getattr(self, key) for key in keys}
        return {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in values.items()}  # JSON has no NaN


class Report:
    """The result of check(): true if every gradient was checked and right; str() is a table with the diagnosis."""

    def __init__(self, progress=None):
        self.rows = []
        self.cause = None  # the exception a backward raised, if one did
        self.progress = progress

    def add(self, row):
        """Append a row and tell whoever watches."""
        self.rows.append(row)
        if self.progress:
            self.progress(row)

    @property
    def ok(self):
        """Every row is ok."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def __bool__(self):
        return self.ok

    @property
    def skipped(self):
        """All skipped elements with their reasons."""
        return [text for row in self.rows for text in row.skipped]

    @property
    def worst(self):
        """The largest relative error of any row in float64."""
        return max((row.relative for row in self.rows if row.probes and row.dtype == "float64"), default=0.0)

    def curve(self, argument=0, order=1):
        """[(h, error)]: how far the central difference is from the gradient at step h, for one argument (name or number)."""
        for row in self.rows:
            if row.order == order and argument in (row.number, row.argument) and row.curve:
                return row.curve()
        raise KeyError(f"no row for argument {argument!r} at order {order}; rows: {[(r.order, r.argument) for r in self.rows]}")

    def __str__(self):
        width = max([8, *(len(row.argument) for row in self.rows)])
        lines = [f"order  {'argument':<{width}}  {'error':>9}  {'allowed':>9}  probes  verdict"]
        for row in self.rows:
            allowed = row.tolerance / row.size if row.size else row.tolerance
            numbers = f"{row.relative:9.1e}  {allowed:9.1e}  {row.probes:6d}" if row.probes else f"{'':9}  {'':9}  {row.probes:6d}"
            reason = row.reason.split("\n")[0]
            lines.append(f"{row.order:5d}  {row.argument:<{width}}  {numbers}  {row.verdict}{': ' + reason if reason else ''}")
        for row in self.rows:
            lines += failure_lines(row)
        for row in self.rows:
            if row.skipped:
                lines += [f"skipped at order {row.order}, {row.argument}:", *(f"    {text}" for text in row.skipped[:20])]
                lines += [f"    ... and {len(row.skipped) - 20} more"] if len(row.skipped) > 20 else []
        return "\n".join(lines)

    __repr__ = __str__

    def raise_if_failed(self):
        """Raise GradcheckError with the whole report unless every row is ok; returns the report."""
        if not self.ok:
            raise GradcheckError("gradient check failed.\n" + str(self)) from self.cause
        return self


def failure_lines(row):
    """What went wrong with one row."""
    if row.verdict != "wrong":
        return []
    first, *more = row.reason.split("\n")
    if not (more or row.probes or row.details or row.guess):
        return []  # the table says it all
    lines = [f"order {row.order}, {row.argument}:{'' if more else ' ' + first}", *(f"    {line.strip()}" for line in more)]
    if row.probes and np.isfinite(row.numeric):
        lines.append(f"    along a random direction: gradient {row.analytic:.10g}, finite differences {row.numeric:.10g}"
                     f" (allowed difference {row.tolerance:.1e})")
    lines += [f"    {line}" for line in row.details]
    return lines + ([f"    guess: {row.guess}"] if row.guess else [])
