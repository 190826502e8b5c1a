//! Join tokens, exactly Swarm's: `SWMTKN-1-<digest of the root, 50>-<128-bit secret, 25>`.

use ring::digest::{SHA256, digest};
use rswarm_types::id::to_base36;
use subtle::ConstantTimeEq;

const PREFIX: &str = "SWMTKN-1";
/// Base-36 characters of a SHA-256 (36^50 > 2^256).
const DIGEST_LENGTH: usize = 50;

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "the join token is malformed: allowed is SWMTKN-1-<50 characters>-<25 characters> of 0-9 and a-z; print it again on a manager with: rswarm join-token worker"
    )]
    Malformed,
    #[error(
        "the join token belongs to another cluster: its digest is not that of this cluster's root certificate; check the address, or print the token again on a manager with: rswarm join-token worker"
    )]
    OtherCluster,
    #[error(
        "the join token's secret is wrong or was rotated; print the current one on a manager with: rswarm join-token worker"
    )]
    WrongSecret,
}

/// The digest part for a root certificate (PEM).
pub fn root_digest(root_pem: &str) -> String {
    let hash = digest(&SHA256, root_pem.as_bytes());
    let mut number = hash.as_ref().to_vec();
    let mut digits = Vec::with_capacity(DIGEST_LENGTH);
    for _ in 0..DIGEST_LENGTH {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 36).unwrap_or(u8::MAX);
            rest = value % 36;
        }
        digits.push(char::from_digit(rest, 36).unwrap_or('0'));
    }
    digits.iter().rev().collect()
}

/// A token for a cluster with this root, with 128 fresh bits.
pub fn make(root_pem: &str, secret: u128) -> String {
    format!("{PREFIX}-{}-{}", root_digest(root_pem), to_base36(secret))
}

/// The digest part of a well-formed token.
///
/// # Errors
/// [`TokenError::Malformed`].
pub fn digest_of(token: &str) -> Result<&str, TokenError> {
    let rest = token.strip_prefix(PREFIX).and_then(|r| r.strip_prefix('-')).ok_or(TokenError::Malformed)?;
    let (digest, secret) = rest.split_once('-').ok_or(TokenError::Malformed)?;
    let is_base36 = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if digest.len() == DIGEST_LENGTH && secret.len() == 25 && is_base36(digest) && is_base36(secret) {
        Ok(digest)
    } else {
        Err(TokenError::Malformed)
    }
}

/// Checks that a root certificate is the one that the token names, before any secret is sent.
///
/// # Errors
/// Malformed, or of another cluster.
pub fn check_root(token: &str, root_pem: &str) -> Result<(), TokenError> {
    if digest_of(token)? == root_digest(root_pem) { Ok(()) } else { Err(TokenError::OtherCluster) }
}

/// Compares in constant time.
pub fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_swarms_shape_and_names_its_root() {
        let token = make("root", 42);
        assert_eq!(token.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
        assert_eq!(check_root(&token, "root"), Ok(()));
        assert_eq!(check_root(&token, "another"), Err(TokenError::OtherCluster));
    }

    #[test]
    fn what_is_no_token_is_called_malformed() {
        let good = make("root", 7);
        for bad in ["", "SWMTKN-1", "SWMTKN-2-a-b", &good[..good.len() - 1], &good.to_uppercase(), &format!("{good}0")]
        {
            assert_eq!(digest_of(bad), Err(TokenError::Malformed), "{bad}");
        }
    }

    #[test]
    fn the_digest_is_base_36_of_sha_256() {
        // SHA-256 of the empty text, as a number in base 36, checked with Python's int().
        assert_eq!(root_digest(""), "5oaq0bjhj6un82wg98mgigso5q7qlhc63je4gw7ivixqqhkd3p");
    }
}
