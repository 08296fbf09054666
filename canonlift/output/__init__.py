"""What users look at or read with other programs: exports, figures and the viewer."""
