"""Programs that learn something, each short enough to be read in one go."""
