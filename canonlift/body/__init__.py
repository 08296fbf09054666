"""The human body: skeletons and anatomy."""
