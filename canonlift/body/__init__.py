"""What is known of the human body: skeletons and anatomy."""
