"""trace.show(): the page of a trace inside a notebook, or in a file where there is no notebook."""

import html
import os
import sys
import tempfile

from minidl.stepper import page
from minidl.stepper.text import byte_size, safe


def show(trace, path=None, height=800, budget=page.BUDGET, **settings):
    """The page in a frame of its own, as IPython's HTML; without a notebook it is written to `path`, or into a new file."""
    if in_notebook():
        from IPython.display import HTML

        text = page.fitting(trace.describe(**settings), budget).decode()
        # sandboxed: the page's script runs, but reaches nothing of the notebook around it
        return HTML(f'<iframe sandbox="allow-scripts" width="100%" height="{int(height)}" style="border:0" title="minidl step" '
                    f'srcdoc="{html.escape(text)}"></iframe>')
    if path is None:
        handle, path = tempfile.mkstemp(prefix="minidl-step-", suffix=".html")
        os.close(handle)
    size = page.write(trace, path, budget, **settings)
    print(f"page: {safe(os.path.abspath(path))}, {byte_size(size)}. Open it in a browser.")
    return None


def in_notebook():
    """Does this Python run behind a notebook? IPython's own terminal has no kernel, and cannot show a page."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None
