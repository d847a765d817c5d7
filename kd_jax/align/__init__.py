"""Aligners: from teacher features to targets of the student's width."""
