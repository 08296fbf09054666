"""The simulated session: athletes, cameras and a detector that errs like a real one."""
