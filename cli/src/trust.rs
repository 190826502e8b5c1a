//! Whom a cluster's nodes trust, as `node inspect` tells it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::parse_x509_pem;

/// The root certificate of a cluster: it issues those of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM.
    pub root: String,
    /// DER in base64, as in Docker's API.
    pub subject: String,
    /// DER in base64.
    pub public_key: String,
}

impl Trust {
    /// Of a certificate in PEM; nothing if it is none.
    pub fn read(root: &str) -> Option<Self> {
        let (_, pem) = parse_x509_pem(root.as_bytes()).ok()?;
        let certificate = pem.parse_x509().ok()?;
        Some(Self {
            root: root.to_owned(),
            subject: STANDARD.encode(certificate.subject().as_raw()),
            public_key: STANDARD.encode(certificate.public_key().raw),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_certificate_is_taken_apart() {
        // openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=swarm-ca
        let root = include_str!("../tests/golden/root.pem");
        let trust = Trust::read(root).unwrap();
        assert_eq!(trust.root, root);
        // openssl x509 -subject_hash and -pubkey know the same bytes.
        assert_eq!(trust.subject, "MBMxETAPBgNVBAMMCHN3YXJtLWNh");
        let public_key = include_str!("../tests/golden/root.pub.pem");
        let lines: Vec<&str> = public_key.lines().filter(|line| !line.starts_with("-----")).collect();
        assert_eq!(trust.public_key, lines.concat());
        assert_eq!(Trust::read("no certificate"), None);
    }
}
