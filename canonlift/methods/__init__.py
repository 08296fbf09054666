"""The methods of the papers and ours: losses, consistency, fusion, and the table of terms."""
