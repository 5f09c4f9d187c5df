"""The subcommands of `minidl`, one a file, loaded only when called."""
