"""html(result): a bench result as one offline page: tables, bars, size sweep, roofline, and where a model's step goes.

Tables are written here, so they are there without a script too; assets/page.js draws the charts from the same data. The
browser may run exactly this style and this script, and fetch nothing.
"""

import base64
import hashlib
import html as escaping
import json
import re
from importlib.resources import files

from minidl.bench import table
from minidl.core.show import safe

ASSETS = files("minidl.bench") / "assets"


def html(result):
    """The page, as text."""
    style, script = asset("page.css"), asset("page.js")
    data = json.dumps(result, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    packed = base64.b64encode(data.encode()).decode()  # nothing in it can end a script element
    parts = {"POLICY": policy(style, script), "STYLE": style, "SCRIPT": script, "DATA": packed, "TITLE": escaped(title(result)),
             "FACTS": facts(result), "TABLES": tables(result)}
    return re.sub("@(POLICY|STYLE|SCRIPT|DATA|TITLE|FACTS|TABLES)@", lambda match: parts[match[1]], asset("page.html"))


def asset(name):
    """The text of a file in assets/."""
    return (ASSETS / name).read_text(encoding="utf-8")


def escaped(text):
    """Text as HTML text, on one line."""
    return escaping.escape(safe(text), quote=True)


def policy(style, script):
    """What the browser may load and run."""
    def digest(text):
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; img-src data:; base-uri 'none'; form-action 'none'"


def title(result):
    """What was measured, in one line."""
    found = list(dict.fromkeys(f"{row['case']} {row['label']}" for row in result["rows"]))
    found += [f"a training step of {step['label']}" for step in result["steps"]]
    return "; ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "") or "nothing was measured"


def facts(result):
    """The machine, its ceilings, and what to be careful about."""
    lines = table.facts(result)
    return "".join(f'<li{" class=note" if line.startswith("note: ") else ""}>{escaped(line.removeprefix("note: "))}</li>' for line in lines)


def tables(result):
    """Every table, in a <details> each."""
    parts = []
    for heading, header, rows in table.sections(result):
        head = "".join(f"<th scope=col>{escaped(cell)}</th>" for cell in header)
        body = "".join(f"<tr class={kind(row)}>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<details><summary>{escaped(heading)}</summary><div class=wide><table><thead><tr>{head}</tr></thead>"
                     f"<tbody>{body}</tbody></table></div></details>")
    return "".join(parts)


def kind(row):
    """How a row looks."""
    marks = [str(cell) for cell in row[:2]]
    if any(mark.startswith("✗") for mark in marks):
        return "wrong"
    return "missing" if "–" in marks else "taken" if any("←" in str(cell) for cell in row[:3]) else "other"
