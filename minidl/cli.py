"""The `minidl` command: a table of subcommands, each loaded only when it is called.

Data goes to stdout, talk to stderr; exit 0 is fine, 1 means a check failed, 2 a wrong call.
"""

import difflib
import importlib

import click

COMMANDS = {  # name -> (module, what it does, for --help without loading the module)
    "step": ("minidl.commands.step", "Walk through the forward and the backward of a network, op by op."),
    "check": ("minidl.commands.check", "Check gradients against finite differences: every op, or your own."),
    "summary": ("minidl.commands.summary", "What a network is made of: shapes, parameters, multiply-adds, memory, receptive fields."),
    "models": ("minidl.commands.models", "List the networks, with parameters, multiply-adds, published errors and source."),
    "verify": ("minidl.commands.verify", "Check a network's names, shapes, parameters and multiply-adds against the manifest."),
    "bench": ("minidl.commands.bench", "Compare implementations and devices: correctness first, then speed against this machine's limits."),
    "explain": ("minidl.commands.explain", "Which implementation runs a call, why, and what the others cost here."),
    "kernels": ("minidl.commands.kernels", "The CUDA kernels without a GPU: list, run, step through, lint."),
    "doctor": ("minidl.commands.doctor", "Show device, backends, versions and threads, and what is wrong with them."),
}


class LazyGroup(click.Group):
    """A click group that imports a subcommand's module when it is run, so that --help is quick."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
            hint = f"Did you mean `minidl {near[0]}`?" if near else f"There are: {', '.join(COMMANDS)}."
            ctx.fail(f"no command {name!r}. {hint}")
        return importlib.import_module(COMMANDS[name][0]).command

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:  # click would say "Aborted!" and exit with 1, as if a check had failed
            from minidl.commands.output import interrupted, talk

            if str(stopped):  # an endless kernel says where it was
                talk(stopped)
            interrupted()

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]},
               epilog="Each has its own page: minidl step --help. Exit codes: 0 fine, 1 a check failed, 2 a wrong call.")
@click.version_option(package_name="minidl", message="minidl %(version)s")
def main():
    """A deep-learning engine you can read, step through and trust.

    Begin with `minidl step`: it walks through a backward pass and shows every number's origin.
    """
