//! Constraint expressions.
