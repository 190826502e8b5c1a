//! The cluster's certificate authority: P-256, TLS 1.3, identity in the subject as SwarmKit's.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rswarm_api::identity::role_name;
use rswarm_types::cluster::RootCa;
use rswarm_types::spec::Role;
use rswarm_types::{ClusterId, NodeId, TimestampMs};

/// The root lives so long (SwarmKit's 20 years).
const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3_600);
/// Certificates are valid from an hour ago: clocks differ.
const BACKDATE: Duration = Duration::from_secs(3_600);

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("the certificate request is not usable: it must be PEM, signed by its own P-256 key")]
    Request(#[source] rcgen::Error),
    #[error("the certificate request's key is not P-256")]
    Algorithm,
    #[error("the certificate could not be made")]
    Sign(#[source] rcgen::Error),
}

/// A node's fresh key with the request for its certificate.
pub struct Request {
    /// PKCS#8, PEM; secret.
    pub key: String,
    /// PEM.
    pub csr: String,
}

/// Makes a key and asks for nothing but a certificate for it: names are the leader's to choose.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn request() -> Result<Request, CaError> {
    let key = KeyPair::generate().map_err(CaError::Sign)?;
    let params = CertificateParams::new(Vec::new()).map_err(CaError::Sign)?;
    let csr = params.serialize_request(&key).and_then(|r| r.pem()).map_err(CaError::Sign)?;
    Ok(Request { key: key.serialize_pem(), csr })
}

/// Makes a new root.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn new_root(now: TimestampMs) -> Result<RootCa, CaError> {
    let key = KeyPair::generate().map_err(CaError::Sign)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(CaError::Sign)?;
    params.distinguished_name = subject([(DnType::CommonName, "swarm-ca")]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, ROOT_LIFE);
    let certificate = params.self_signed(&key).map_err(CaError::Sign)?;
    Ok(RootCa { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A certificate request that was checked: its own signature holds, its key is P-256.
pub struct CheckedRequest {
    params: CertificateSigningRequestParams,
    /// SHA-256 of the public key: the same key is the same node.
    pub key_hash: [u8; 32],
}

/// Checks a request before anything else is done with it.
///
/// # Errors
/// See [`CaError`].
pub fn check_request(csr_pem: &str) -> Result<CheckedRequest, CaError> {
    let params = CertificateSigningRequestParams::from_pem(csr_pem).map_err(CaError::Request)?;
    if params.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(CaError::Algorithm);
    }
    let mut key_hash = [0; 32];
    key_hash.copy_from_slice(digest(&SHA256, params.public_key.der_bytes()).as_ref());
    Ok(CheckedRequest { params, key_hash })
}

/// What a certificate says, all chosen by the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub role: Role,
    pub now: TimestampMs,
    pub life: Duration,
    /// 128 fresh bits.
    pub serial: u128,
}

/// Signs a node certificate (PEM).
///
/// # Errors
/// When the root's key is unusable.
pub fn sign(root: &RootCa, request: &CheckedRequest, grant: Grant) -> Result<String, CaError> {
    let key = KeyPair::from_pem(&root.key).map_err(CaError::Sign)?;
    let issuer = Issuer::from_ca_cert_pem(&root.certificate, key).map_err(CaError::Sign)?;
    let role = role_name(grant.role);
    let node = grant.node.to_string();
    let names = vec![role.to_owned(), node.clone(), format!("{role}.{}", grant.cluster)];
    let mut params = CertificateParams::new(names).map_err(CaError::Sign)?;
    params.distinguished_name = subject([
        (DnType::OrganizationName, grant.cluster.to_string().as_str()),
        (DnType::OrganizationalUnitName, role),
        (DnType::CommonName, node.as_str()),
    ]);
    params.serial_number = Some(SerialNumber::from_slice(&grant.serial.to_be_bytes()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, grant.now, grant.life);
    Ok(params.signed_by(&request.params.public_key, &issuer).map_err(CaError::Sign)?.pem())
}

fn subject<'a>(names: impl IntoIterator<Item = (DnType, &'a str)>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    for (kind, value) in names {
        subject.push(kind, value);
    }
    subject
}

fn set_validity(params: &mut CertificateParams, now: TimestampMs, life: Duration) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
    params.not_before = now - BACKDATE;
    params.not_after = now + life;
}

#[cfg(test)]
mod tests {
    use rswarm_api::identity::Identity;
    use rswarm_api::tls::Credentials;

    use super::*;

    const NOW: TimestampMs = TimestampMs(1_790_000_000_000);

    fn grant(role: Role) -> Grant {
        Grant { cluster: ClusterId(7), node: NodeId(9), role, now: NOW, life: Duration::from_secs(3_600), serial: 1 }
    }

    #[test]
    fn a_node_certificate_names_cluster_node_and_role() {
        let root = new_root(NOW).expect("root");
        let asked = request().expect("request");
        let checked = check_request(&asked.csr).expect("usable");
        for role in [Role::Manager, Role::Worker] {
            let chain = sign(&root, &checked, grant(role)).expect("signed");
            let credentials = Credentials::from_pem(&root.certificate, &chain, &asked.key).expect("usable");
            assert_eq!(credentials.identity(), Identity { cluster: ClusterId(7), node: NodeId(9), role });
        }
    }

    #[test]
    fn a_request_that_is_tampered_with_or_of_another_kind_is_refused() {
        assert!(check_request("not pem").is_err());
        let rsa_free = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
        let csr = CertificateParams::new(Vec::new())
            .and_then(|p| p.serialize_request(&rsa_free))
            .and_then(|r| r.pem())
            .expect("csr");
        assert!(matches!(check_request(&csr), Err(CaError::Algorithm)));
    }

    #[test]
    fn the_same_key_has_the_same_hash() {
        let asked = request().expect("request");
        let again = check_request(&asked.csr).expect("usable").key_hash;
        assert_eq!(check_request(&asked.csr).expect("usable").key_hash, again);
        assert_ne!(check_request(&request().expect("request").csr).expect("usable").key_hash, again);
    }
}
