"""Targets of comparable size, whichever teacher they come from.

Features of different teachers differ in scale by orders of magnitude, and so
would their losses. The aligners here bring each to unit variance, in one sense
or another; all but `joint_svd` keep the teacher's width, to which a linear head
brings the student that is thrown away after training.
"""
