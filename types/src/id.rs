//! Identifiers: 128 random bits, written as 25 characters of base 36 as Swarm's are.

use std::fmt;
use std::str::FromStr;

/// Characters of a printed id: 36^25 > 2^128.
pub const ID_LENGTH: usize = 25;

/// Characters of an id in a table, as Docker truncates them.
pub const SHORT_ID_LENGTH: usize = 12;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The text is not a 25-character base-36 id that fits 128 bits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an id: allowed are 25 characters of 0-9 and a-z")]
pub struct BadId(pub String);

/// Writes 128 bits as 25 base-36 digits, most significant first.
pub fn to_base36(mut value: u128) -> String {
    let mut out = [b'0'; ID_LENGTH];
    for place in out.iter_mut().rev() {
        *place = DIGITS[(value % 36) as usize];
        value /= 36;
    }
    out.iter().map(|b| char::from(*b)).collect()
}

/// Reads what [`to_base36`] wrote.
///
/// # Errors
/// On another length, another character, or a value above 2^128.
pub fn from_base36(text: &str) -> Result<u128, BadId> {
    let bad = || BadId(text.to_owned());
    if text.len() != ID_LENGTH {
        return Err(bad());
    }
    text.bytes().try_fold(0u128, |sum, byte| {
        let digit = DIGITS.iter().position(|d| *d == byte).ok_or_else(bad)?;
        sum.checked_mul(36).and_then(|s| s.checked_add(digit as u128)).ok_or_else(bad)
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// The first 12 characters, as tables show them.
            pub fn short(&self) -> String {
                let mut text = to_base36(self.0);
                text.truncate(SHORT_ID_LENGTH);
                text
            }

            /// The id as 16 big-endian bytes, the form of the wire and of digests.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&to_base36(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_base36(self.0))
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                from_base36(text).map(Self)
            }
        }
    };
}

id!(/// A cluster, made by `init`; the O of every certificate.
    ClusterId);
id!(/// A node, chosen by the manager that admits it; the CN of its certificate.
    NodeId);
id!(/// A service.
    ServiceId);
id!(/// A task: one attempt to run one container on one node.
    TaskId);
id!(/// A network.
    NetworkId);
id!(/// One request of one client, kept across its retries.
    RequestId);

/// A Raft member: fresh random bits at every promotion, never reused. 0 = not a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_print_and_parse_at_the_bounds() {
        for value in [0, 1, 35, 36, u128::MAX - 1, u128::MAX] {
            let text = to_base36(value);
            assert_eq!(text.len(), ID_LENGTH);
            assert_eq!(from_base36(&text), Ok(value));
        }
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["", "abc", "zzzzzzzzzzzzzzzzzzzzzzzzz", "000000000000000000000000A"] {
            assert!(from_base36(text).is_err(), "{text}");
        }
    }
}
