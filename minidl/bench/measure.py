"""measure(): the cases of a run one after another, right first and then quick, as one dict that JSON can hold."""

import contextlib
import math
from time import perf_counter

import numpy as np

from minidl import backend
from minidl.bench import cases, exact, machine, on_device, timing, torch_calls
from minidl.core.config import use_backend
from minidl.core.tensor import Tensor

VERSION = 1  # of the layout of the result
WHOLE = 1e-4  # relative distance that a whole call may have; float32 has some 1e-6, inputs in half precision 3e-4 and more


class Run:
    """One run of the bench: `result` grows as it is measured, so that Ctrl-C keeps what is there.

    `progress(text, done, total)` is called as it goes. `rounds` of the main rows; a sweep's rows take three.
    """

    def __init__(self, rounds=7, vs_torch=False, sweep=False, progress=None, most=None):
        self.rounds, self.vs_torch, self.sweep, self.most = rounds, vs_torch, sweep, most
        self.progress = progress or (lambda text, done, total: None)
        self.interrupted = False
        self.result = {"minidl_bench": VERSION, "environment": machine.environment(vs_torch), "machine": {}, "rows": [], "sweeps": [],
                       "steps": [], "notes": []}

    def prepare(self):
        """The ceilings of the machine."""
        self.progress("measuring what this machine can do", 0, 1)
        self.result["machine"] = machine.ceilings()
        if self.vs_torch and torch_calls.why_not():
            self.note(torch_calls.why_not())
            self.vs_torch = False

    def note(self, text):
        """Something that the reader must know about all rows."""
        if text not in self.result["notes"]:
            self.result["notes"].append(text)

    # --- cases ------------------------------------------------------------------------------------------------------
    def case(self, case):
        """All rows of one case: every implementation of what it asks for, then the whole call, forward and backward."""
        wrong = ""
        for direction, op, arrays, how in case.requests():
            if self.interrupted:
                return
            rows = self.request(case, direction, op, arrays, how, self.rounds)
            self.result["rows"] += rows
            wrong = next((f"its {op} is wrong" for row in rows if row["chosen"] and row["status"] == "wrong"), wrong)
        if wrong:
            self.result["rows"].append(row_of(case, "forward", "whole call", "minidl") | {"chosen": True, "status": "wrong", "why": wrong})
        elif not self.interrupted:
            self.result["rows"] += self.whole(case)

    def sweep_of(self, name, rounds=3):
        """The forward's rows for growing sizes."""
        grows, sizes = cases.SWEEPS[name]
        sweep = {"case": name, "grows": grows, "rows": []}
        self.result["sweeps"].append(sweep)
        for place, settings in enumerate(sizes):
            case = cases.make(name, **settings)
            direction, op, arrays, how = case.requests()[0]
            if self.interrupted:
                return
            rows = self.request(case, direction, op, arrays, how, rounds)
            sweep["rows"] += [{**row, "place": place} for row in rows if row["status"] != "missing"]

    def request(self, case, direction, op, arrays, how, rounds):
        """A row per implementation of one call of run(): judged first, timed if right."""
        right, operations = exact.exact(op, arrays, how), exact.operations(op, arrays, how)
        rows, contenders = [], {}
        inputs = ", ".join("×".join(map(str, a.shape)) for a in arrays if a is not None and a.ndim > 1)
        chosen = {i.name for i, _, taken in backend.decide(op, arrays, how) if taken}
        for implementation in backend.IMPLEMENTATIONS[op]:
            row = row_of(case, direction, op, implementation.name) | {
                "inputs": inputs, "chosen": implementation.name in chosen, "against": right.source, "operations": operations,
                "device": "cuda" if implementation.backend == "cuda" else "cpu"}
            rows.append(row)
            self.progress(f"{op} {case.label}: {implementation.name}", len(rows), len(backend.IMPLEMENTATIONS[op]))
            try:
                contender = self.admit(row, implementation, op, arrays, how, right)
            except KeyboardInterrupt:
                self.interrupted, row["why"] = True, "interrupted"
                break
            if contender:
                contenders[implementation.name] = contender
        if contenders and not self.interrupted:
            self.clock(contenders, {row["implementation"]: row for row in rows}, rounds, f"{op} {case.label}")
        return rows

    def admit(self, row, implementation, op, arrays, how, right):
        """The contender of a row, or None with the reason in the row."""
        if implementation.backend == "cuda":
            row["why"] = on_device.why_not()
            if row["why"]:
                return None
            arrays, how = on_device.moved(arrays, how)
        else:
            row["why"] = cases.loops_are_affordable(op, arrays, row["operations"]) if implementation.backend == "reference" else ""
        row["why"] = row["why"] or implementation.refusal(arrays, how)
        if row["why"]:
            return None

        def call():
            return implementation.function(*arrays, **how)

        try:
            if row["device"] == "cuda":
                result, row["first_s"] = on_device.first_call(call)
                row["launch_s"] = on_device.launch_cost(call)
                result = on_device.back(result)
            else:
                started = perf_counter()
                result = call()
                row["first_s"] = perf_counter() - started
        except Exception as error:  # an implementation under work may fail in any way; the others are still measured
            row["status"], row["why"] = "wrong", f"{type(error).__name__}: {error}"[:300]
            return None
        judged(row, right, result)
        row["status"] = "wrong" if row["why"] else "ok"
        row["bytes"] = exact.traffic(arrays, result)
        if row["why"]:
            return None
        return on_device.timed(call) if row["device"] == "cuda" else timing.timed(call)

    def whole(self, case):
        """Forward and backward of the call as users make it, through Tensors; beside PyTorch's if that is asked for."""
        contenders = {"minidl": through_tensors(case)}
        if self.vs_torch:
            contenders |= torch_calls.contenders(case)
        right = answer(case, "generic")
        verdicts = {name: compared(call.answer(), right) for name, call in contenders.items()}
        contenders = {name: call for name, call in contenders.items() if not verdicts[name]["why"]}
        rounds = timing.Rounds(contenders, self.rounds, most=self.most)
        for done, total in rounds:
            self.progress(f"{case.name} {case.label}: the whole call", done, total)
        self.interrupted = self.interrupted or rounds.interrupted
        rows = []
        for place, direction in enumerate(("forward", "backward")):
            for name, verdict in verdicts.items():
                row = row_of(case, direction, "whole call", name) | {"chosen": name == "minidl", **verdict}
                pairs = rounds.results.get(name)
                if pairs:
                    row |= timing.summary([pair[place] for pair in pairs])
                    row["noisy"] = timing.is_noisy(row)
                if pairs or verdict["why"]:
                    rows.append(row)
        return rows

    def clock(self, contenders, rows, rounds, text):
        """Put the times of interleaved rounds into the rows."""
        times = timing.Rounds(contenders, rounds, most=self.most)
        for done, total in times:
            self.progress(text, done, total)
        self.interrupted = self.interrupted or times.interrupted
        for name, seconds in times.results.items():
            row = rows[name]
            if not seconds:
                row["status"], row["why"] = "missing", "interrupted"
                continue
            row.update(timing.summary(seconds))
            row["noisy"] = timing.is_noisy(row)
            row["gflop_s"], row["gb_s"] = row["operations"] / row["median"] / 1e9, row["bytes"] / row["median"] / 1e9

    def finish(self):
        """Compare with the ceilings, the best of before and after, and say what makes the numbers doubtful."""
        rows = [*self.result["rows"], *(row for sweep in self.result["sweeps"] for row in sweep["rows"])]
        ceilings = self.result["machine"]
        if ceilings and not self.interrupted:
            try:
                ceilings.update({key: max(value, ceilings[key]) for key, value in machine.ceilings().items()})
            except KeyboardInterrupt:
                self.interrupted = True
        for row in rows:
            if ceilings and row.get("gflop_s") and row["device"] == "cpu":
                row["share"] = max(row["gflop_s"] / ceilings["gemm_gflop_s"], row["gb_s"] / ceilings["copy_gb_s"])
        timed = [row for row in rows if row.get("median")]
        timed += [parts["step"] for step in self.result["steps"] for parts in step["contenders"].values()]
        noisy = sum(timing.is_noisy(row) for row in timed)
        if noisy:
            self.note(f"{noisy} of {len(timed)} times are noisy: their middle 60 % spread over more than {timing.NOISY:.0%} of the median. "
                      "Let the machine do nothing else, or take more --rounds.")
        over = sorted({row["implementation"] for row in rows if (row.get("share") or 0) > 1 and "winograd" not in row["implementation"]})
        if over:
            self.note(f"{', '.join(over)}: above 100 % of a ceiling, without saving operations. The ceilings were measured while the "
                      "machine was slower, or the arrays fit into the caches: do not trust the column.")
        now, cores = machine.load(), self.result["environment"]["cores"]
        if now is not None and now > cores + 0.5:
            self.note(f"the machine was busy: load {now} on {cores} cores")
        if self.interrupted:
            self.note("interrupted: what was measured until then")
        return self.result


def judged(row, right, result):
    """Put the verdict into a row: the output furthest out for what it may be off by, and how far out each of them is."""
    row["bound"] = exact.allowance(row["implementation"])
    row["why"], found = right.judge(result, row["bound"])
    shares = [error / allowed if allowed else 0.0 if error == 0 else math.inf for error, allowed in found]
    error, allowed = found[max(range(len(found)), key=lambda k: math.inf if math.isnan(shares[k]) else shares[k])]
    row["error"], row["allowed"] = error if math.isfinite(error) else None, allowed
    row["outputs"] = [share if math.isfinite(share) else None for share in shares]


def row_of(case, direction, op, implementation):
    """A row that knows nothing yet."""
    return {"case": case.name, "label": case.label, "direction": direction, "op": op, "inputs": "", "implementation": implementation,
            "chosen": False, "device": "cpu", "status": "missing", "why": "", "error": None, "allowed": None, "against": "",
            "operations": None}


def through_tensors(case):
    """A contender that returns (forward, backward) seconds of the call as users make it; its answer() is judged first."""
    grads = []

    def call():
        tensors = case.tensors()
        started = perf_counter()
        y = case.function(**tensors)
        forward = perf_counter()
        if not grads:
            grads.append(Tensor(cases.drawn(1, *y.shape)))
        middle = perf_counter()
        y.backward(grads[0])
        return forward - started, perf_counter() - middle

    call.answer = lambda: answer(case)
    return call


def answer(case, backend_name=None):
    """[("output", array), ("gradient of x", array), ...] of a case, also as one backend alone computes it."""
    with use_backend(backend_name) if backend_name else contextlib.nullcontext():
        tensors = case.tensors()
        y = case.function(**tensors)
        y.backward(Tensor(cases.drawn(1, *y.shape)))
    return [("output", y.detach().numpy()), *((f"gradient of {key}", leaf.grad.numpy()) for key, leaf in tensors.items())]


def compared(mine, right):
    """The verdict on a whole call: how far its output and gradients are from the generic backend's, as relative norms.

    One number in 100,000 may be anything: where a relu's input is 0 but for rounding, its gradient is there or not. Single
    numbers are judged op by op, in the rows of the implementations.
    """
    worst, where = -1.0, ""
    for (name, got), (_, wanted) in zip(mine, right, strict=True):
        if got.shape != wanted.shape:
            return {"status": "wrong", "why": f"its {name} has shape {got.shape}, not {wanted.shape}"}
        apart = np.sort(np.abs(got.astype(np.float64) - wanted), axis=None)
        apart = float(np.linalg.norm(apart[:apart.size - apart.size // 100_000]))
        distance = apart / max(float(np.linalg.norm(wanted.astype(np.float64))), 1e-30) if np.isfinite(got).all() else math.inf
        if not distance <= worst:
            worst, where = distance, name
    why = "" if worst <= WHOLE else f"its {where} is {worst:.2g} from the generic backend's, allowed {WHOLE:.0e}"
    return {"status": "wrong" if why else "ok", "why": why, "error": worst if math.isfinite(worst) else None, "allowed": WHOLE,
            "against": "the generic backend"}
