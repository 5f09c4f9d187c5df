"""manifest.json: for every network its parameters, buffers, multiply-adds and state dict, for `minidl verify` and `minidl models`.

`python -m minidl.models.manifest` writes it again from the networks themselves; --check only says what has changed. The
tests compare it with what the papers and torchvision publish.
"""

import json
import sys
from pathlib import Path

import minidl.models  # noqa: F401 - fills the table
from minidl.core.config import no_grad, use_backend
from minidl.core.count import multiply_adds, observed
from minidl.core.create import zeros
from minidl.models import zoo

PATH = Path(__file__).with_name("manifest.json")


def read():
    """{name: entry} as the file has it."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def entry(name):
    """What the network itself says."""
    model = zoo.find(name)
    network = model.build(drawn=False)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "buffers": sum(b.numel() for b in network.buffers()),
        "multiply_adds": count_multiply_adds(network, model.input),
        "state_dict": [[key, list(value.shape)] for key, value in network.state_dict().items()],
    }


def count_multiply_adds(network, input):
    """The multiply-adds of one image; auxiliary heads count, as they do while training."""
    heads = getattr(network, "aux_logits", False)
    count = 0

    def add(call):
        nonlocal count
        count += multiply_adds(call)

    batch = 2 if heads else 1  # batch norm needs two
    with use_backend("shapes"), no_grad(), observed(add):
        network.train(heads)(zeros(batch, *input))
    return count // batch


def faults(name, written=None):
    """What differs between the network and the manifest: a list of lines."""
    now, written = entry(name), (written or read()).get(name)
    if written is None:
        return [f"{name} is not in the manifest"]
    lines = [f"{what}: {now[what]:,} here, {written[what]:,} in the manifest" for what in ("parameters", "buffers", "multiply_adds")
             if now[what] != written[what]]
    names, known = dict(now["state_dict"]), dict(written["state_dict"])
    lines += [f"{key} {names[key]}: not in the manifest" for key in names if key not in known]
    lines += [f"{key} {known[key]}: only in the manifest" for key in known if key not in names]
    lines += [f"{key}: {names[key]} here, {known[key]} in the manifest" for key in names if key in known and names[key] != known[key]]
    if not lines and list(names) != list(known):
        first = next(pair for pair in zip(names, known, strict=True) if pair[0] != pair[1])
        lines.append(f"the order of the state dict differs: {first[0]} here where the manifest has {first[1]}")
    return lines


def text(entries):
    """The file: one line per network, so that a change of one shows as one."""
    lines = [f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(arguments):
    """Write the manifest, or compare it."""
    names = list(zoo.listed())
    if "--check" in arguments:
        written = read()
        lines = [f"{name}: {line}" for name in names for line in faults(name, written)]
        lines += [f"{name} is in the manifest, but no network" for name in written if name not in names]
        print("\n".join(lines) or f"{len(names)} networks are as the manifest says.")
        return 1 if lines else 0
    PATH.write_text(text({name: entry(name) for name in names}), encoding="utf-8")
    print(f"{PATH}: {len(names)} networks")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
