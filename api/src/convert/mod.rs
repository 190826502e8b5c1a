//! Conversions of every noun, both ways.

mod assignment;
mod command;
mod object;
mod session;
mod spec;
