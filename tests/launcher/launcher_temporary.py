"""Makes a temporary folder while it is imported, which goes with the process that imported it."""

import tempfile

FOLDER = tempfile.TemporaryDirectory()
