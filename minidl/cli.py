"""The `minidl` command: a table of subcommands, each loaded only when it is called."""

import importlib

import click

COMMANDS = {  # name -> (module, what it does, for --help without loading the module)
    "step": ("minidl.commands.step", "Walk through the forward and the backward of a network, op by op."),
    "check": ("minidl.commands.check", "Check gradients against finite differences: every op, or your own."),
    "doctor": ("minidl.commands.doctor", "Show device, backends, versions and threads, and what is wrong with them."),
}


class LazyGroup(click.Group):
    """A click group that imports a subcommand's module when it is run, so that --help is quick."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(COMMANDS[name][0]).command

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="minidl", message="minidl %(version)s")
def main():
    """minidl: a deep-learning engine you can read, step through and trust."""
