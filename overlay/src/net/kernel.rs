//! The kernel of this host, as files and sockets: one pair of sockets for each namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{namespaces, readings};
use crate::model::{NamespaceKey, names};
use crate::netlink::{NetlinkError, Socket};
use crate::nfnl::{NETLINK_NETFILTER, transaction};

const NETLINK_ROUTE: isize = libc::NETLINK_ROUTE as isize;

/// Why a step failed, or something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("{0}")]
    Io(String, #[source] io::Error),
    #[error("there is no interface {0}")]
    NoInterface(String),
    #[error("somebody else changes the ruleset at the same time")]
    RulesetRace,
}

/// The host's namespace and those mounted in a folder.
pub struct Kernel {
    host: OwnedFd,
    pins: PathBuf,
    pub(super) open: BTreeMap<NamespaceKey, Open>,
}

/// What this host is like.
#[derive(Clone, Debug)]
pub struct HostTraits {
    pub has_ipv6: bool,
    /// MTU of the interface of the data path; `None` when it has no such address (any more).
    pub path_mtu: Option<u32>,
    /// Interfaces that take their routes from a router.
    pub advertised: BTreeSet<String>,
}

/// Sockets of a namespace.
pub(super) struct Open {
    pub route: Option<Socket>,
    pub netfilter: Socket,
    /// Of the ruleset as we last saw or left it.
    pub generation: Option<u32>,
    pub indexes: BTreeMap<String, u32>,
}

impl Kernel {
    /// The host's namespace is the calling thread's.
    ///
    /// # Errors
    /// When the folder cannot be made or the namespace not opened.
    pub fn open(pins: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(pins)?;
        Ok(Self { host: namespaces::current()?, pins: pins.to_owned(), open: BTreeMap::new() })
    }

    /// Looks at the host.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn host_traits(&mut self, data_path: IpAddr) -> Result<HostTraits, KernelError> {
        let path_mtu = readings::mtu_of(self.route_socket(NamespaceKey::Host)?, data_path)?;
        self.enter(NamespaceKey::Host, move || {
            let has_ipv6 = namespaces::has_ipv6();
            let advertised = if has_ipv6 { namespaces::advertised()? } else { BTreeSet::new() };
            Ok(HostTraits { has_ipv6, path_mtu, advertised })
        })
    }

    /// The file that holds a namespace.
    pub fn pin(&self, key: NamespaceKey) -> PathBuf {
        self.pins.join(names::pin(key).unwrap_or_default())
    }

    /// Namespaces that are mounted. Files that hold none (left by a reboot) are removed.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn mounted(&self) -> io::Result<Vec<NamespaceKey>> {
        // `leave` removed it, and a join may follow.
        std::fs::create_dir_all(&self.pins)?;
        let mut found = vec![NamespaceKey::Host];
        for entry in std::fs::read_dir(&self.pins)? {
            let entry = entry?;
            let Some(key) = entry.file_name().to_str().and_then(names::unpin) else { continue };
            if namespaces::is_mounted(&entry.path()) {
                found.push(key);
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(found)
    }

    /// Lets go of a namespace that is no longer mounted.
    pub fn close(&mut self, key: NamespaceKey) {
        self.open.remove(&key);
    }

    /// Forgets sockets that are needed for changes of interfaces only.
    pub fn rest(&mut self) {
        for (key, open) in &mut self.open {
            if matches!(key, NamespaceKey::Sandbox(_)) {
                open.route = None;
            }
        }
    }

    pub(super) fn file(&self, key: NamespaceKey) -> Result<OwnedFd, KernelError> {
        let opened = match key {
            NamespaceKey::Host => self.host.try_clone(),
            _ => File::open(self.pin(key)).map(OwnedFd::from),
        };
        opened.map_err(|e| KernelError::Io(format!("cannot open the namespace of {key}"), e))
    }

    /// Runs inside a namespace.
    ///
    /// # Errors
    /// When it cannot be entered, or what `inside` returns.
    pub fn enter<T: Send>(
        &self,
        key: NamespaceKey,
        inside: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, KernelError> {
        let file = self.file(key)?;
        let entered = namespaces::enter(file.as_fd(), inside);
        entered.map_err(|e| KernelError::Io(format!("inside {key}"), e))
    }

    pub(super) fn opened(&mut self, key: NamespaceKey) -> Result<&mut Open, KernelError> {
        if !self.open.contains_key(&key) {
            let open = self.enter(key, || open_sockets().map_err(io::Error::other))?;
            self.open.insert(key, open);
        }
        self.open.get_mut(&key).ok_or_else(|| KernelError::NoInterface(key.to_string()))
    }

    pub(super) fn route_socket(&mut self, key: NamespaceKey) -> Result<&mut Socket, KernelError> {
        if self.opened(key)?.route.is_none() {
            let socket = self.enter(key, || Socket::open(NETLINK_ROUTE).map_err(io::Error::other))?;
            self.opened(key)?.route = Some(socket);
        }
        let open = self.opened(key)?;
        open.route.as_mut().ok_or_else(|| KernelError::NoInterface(key.to_string()))
    }

    /// The number of the ruleset, if it is still the one that we saw or left.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn is_ruleset_ours(&mut self, key: NamespaceKey) -> Result<bool, KernelError> {
        let open = self.opened(key)?;
        Ok(open.generation == Some(transaction::generation(&mut open.netfilter)?))
    }
}

pub(super) fn open_sockets() -> Result<Open, NetlinkError> {
    Ok(Open {
        route: Some(Socket::open(NETLINK_ROUTE)?),
        netfilter: Socket::open(NETLINK_NETFILTER)?,
        generation: None,
        indexes: BTreeMap::new(),
    })
}
