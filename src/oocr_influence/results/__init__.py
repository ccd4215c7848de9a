"""What a run leaves behind: its folder, its names, its typed records, its upkeep."""
