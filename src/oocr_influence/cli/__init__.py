"""One file a command: arguments + main(args)."""
