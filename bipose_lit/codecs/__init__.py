"""Joints to training targets and predictions to joints."""
