//! What is given out, next fit, so that nothing freed is used again at once (DESIGN §4).

mod addresses;
mod numbers;
mod ports;
mod span;
mod subnets;

pub(crate) use ports::{clash, with_kept_numbers};
