"""What users look at and take away: exports, figures and the viewer."""
