//! Sealing at rest: XChaCha20-Poly1305 under a data key, kept in `keys.json`.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, AeadInPlace, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::disk::{self, Disk};

/// The file of data keys.
pub(crate) const KEYS_FILE: &str = "keys.json";

/// The version of the key file's layout.
const VERSION: u32 = 1;

/// Makes the nonces of one writer's life unlike those of every other life.
pub(crate) type Salt = [u8; 12];

/// How many bytes sealing adds.
pub(crate) const TAG_BYTES: usize = 16;

/// A nonce is the salt, a number that the salt's owner never repeats, and a place below that number.
fn nonce(salt: &Salt, number: u64, place: u32) -> XNonce {
    let mut nonce = [0; 24];
    nonce[..12].copy_from_slice(salt);
    nonce[12..20].copy_from_slice(&number.to_le_bytes());
    nonce[20..].copy_from_slice(&place.to_le_bytes());
    nonce.into()
}

/// A fresh salt.
pub(crate) fn new_salt() -> io::Result<Salt> {
    let mut salt = Salt::default();
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    Ok(salt)
}

/// The data keys of a folder: one seals, the others only open what they once sealed.
pub(crate) struct Keys {
    current: u32,
    ciphers: BTreeMap<u32, XChaCha20Poly1305>,
    file: KeyFile,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    current: u32,
    keys: Vec<StoredKey>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: u32,
    /// How `key` is protected; "none" is the only way so far.
    wrapped_by: String,
    key: String,
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Why `keys.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file could not be read or written.
    #[error("cannot use the raft keys")]
    Io(#[source] io::Error),
    /// The file does not have the layout it should have.
    #[error("{path} is not a file of raft keys: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Keys {
    /// One new random key, in memory only.
    pub fn generate() -> io::Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut()).map_err(io::Error::other)?;
        let stored = StoredKey { id: 1, wrapped_by: "none".to_owned(), key: STANDARD.encode(key.as_ref()) };
        let file = KeyFile { version: VERSION, current: 1, keys: vec![stored] };
        Self::from_file(file).map_err(io::Error::other)
    }

    /// The keys of a folder, `None` if it has none yet.
    pub fn load(disk: &dyn Disk) -> Result<Option<Self>, KeysError> {
        if !disk.list("").map_err(KeysError::Io)?.iter().any(|name| name == KEYS_FILE) {
            return Ok(None);
        }
        let explain = |error: io::Error| KeysError::Io(disk::explain(disk, KEYS_FILE, &error));
        let file = disk.open(KEYS_FILE).map_err(explain)?;
        let text = Zeroizing::new(disk::read(file.as_ref()).map_err(explain)?);
        let malformed = |reason: String| KeysError::Malformed { path: disk.describe(KEYS_FILE), reason };
        let file: KeyFile = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        Ok(Some(Self::from_file(file).map_err(malformed)?))
    }

    /// Makes the keys durable.
    pub fn store(&self, disk: &dyn Disk) -> Result<(), KeysError> {
        let text = serde_json::to_vec_pretty(&self.file).map_err(|error| KeysError::Io(error.into()))?;
        disk::replace(disk, "", KEYS_FILE, &Zeroizing::new(text))
            .map_err(|error| KeysError::Io(disk::explain(disk, KEYS_FILE, &error)))
    }

    fn from_file(file: KeyFile) -> Result<Self, String> {
        if file.version != VERSION {
            return Err(format!("version is {}, allowed: {VERSION}", file.version));
        }
        let mut ciphers = BTreeMap::new();
        for stored in &file.keys {
            if stored.wrapped_by != "none" {
                return Err(format!("key {} is wrapped by \"{}\", allowed: \"none\"", stored.id, stored.wrapped_by));
            }
            let key = STANDARD.decode(stored.key.as_bytes()).map(Zeroizing::new);
            let key = key.map_err(|error| format!("key {}: {error}", stored.id))?;
            let cipher = XChaCha20Poly1305::new_from_slice(&key)
                .map_err(|_| format!("key {} has {} bytes, allowed: 32", stored.id, key.len()))?;
            ciphers.insert(stored.id, cipher);
        }
        if !ciphers.contains_key(&file.current) {
            return Err(format!("current is {}, and there is no such key", file.current));
        }
        Ok(Self { current: file.current, ciphers, file })
    }

    /// The id of the key that seals.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Seals `plain` at the end of `out`, under the current key.
    pub fn seal_into(&self, out: &mut Vec<u8>, salt: &Salt, number: u64, place: u32, about: &[u8], plain: &[u8]) {
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self.ciphers[&self.current]
            .encrypt_in_place_detached(&nonce(salt, number, place), about, &mut out[start..])
            .expect("plaintexts are far below the cipher's limit of 256 GiB");
        out.extend_from_slice(&tag);
    }

    /// Opens what [`Self::seal_into`] sealed; `None` if the key is unknown, or a bit differs.
    pub fn open(&self, key: u32, salt: &Salt, number: u64, place: u32, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let payload = Payload { msg: sealed, aad: about };
        self.ciphers.get(&key)?.decrypt(&nonce(salt, number, place), payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn what_is_sealed_opens_only_in_its_own_place() {
        let keys = Keys::generate().unwrap();
        let mut sealed = Vec::new();
        keys.seal_into(&mut sealed, &[7; 12], 1, 2, b"index 5", b"secret");
        assert_eq!(sealed.len(), 6 + TAG_BYTES);
        let open = |number, place, about: &[u8], sealed: &[u8]| keys.open(1, &[7; 12], number, place, about, sealed);
        assert_eq!(open(1, 2, b"index 5", &sealed).unwrap(), b"secret");
        assert_eq!(open(2, 2, b"index 5", &sealed), None);
        assert_eq!(open(1, 3, b"index 5", &sealed), None);
        assert_eq!(open(1, 2, b"index 6", &sealed), None);
        sealed[0] ^= 1;
        assert_eq!(open(1, 2, b"index 5", &sealed), None);
    }

    #[test]
    fn keys_survive_their_file_and_a_bad_file_is_named() {
        let disk = MemoryDisk::new();
        assert!(Keys::load(&disk).unwrap().is_none());
        let keys = Keys::generate().unwrap();
        keys.store(&disk).unwrap();
        let mut sealed = Vec::new();
        keys.seal_into(&mut sealed, &[7; 12], 1, 2, b"", b"secret");
        let again = Keys::load(&disk).unwrap().unwrap();
        assert_eq!(again.open(again.current(), &[7; 12], 1, 2, b"", &sealed).unwrap(), b"secret");

        let text = String::from_utf8(disk.content(KEYS_FILE).unwrap()).unwrap();
        for (from, to, expected) in [
            ("\"version\": 1", "\"version\": 2", "version is 2, allowed: 1"),
            ("\"none\"", "\"kek\"", "key 1 is wrapped by \"kek\", allowed: \"none\""),
            ("\"current\": 1", "\"current\": 9", "current is 9, and there is no such key"),
        ] {
            disk.set_content(KEYS_FILE, text.replace(from, to).as_bytes());
            let error = Keys::load(&disk).map(drop).unwrap_err().to_string();
            assert_eq!(error, format!("memory:keys.json is not a file of raft keys: {expected}"));
        }
    }
}
