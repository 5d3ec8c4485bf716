"""Stage directories: addressed by content, written atomically, checked by checksums, locked while they are built."""
