//! nftables tables as values: what we want, and what a dump says is there.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The protocol family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Inet,
    Ip,
    Ip6,
    Netdev,
    Bridge,
}

impl Family {
    pub fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Ip6, Self::Netdev, Self::Bridge].into_iter().find(|f| f.number() == number)
    }

    /// As `nft` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
        }
    }
}

/// A table's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    pub family: Family,
    pub name: Arc<str>,
}

impl TableName {
    pub fn new(family: Family, name: &str) -> Self {
        Self { family, name: name.into() }
    }
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainKind {
    Filter,
    Nat,
    Route,
}

impl ChainKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Filter, Self::Nat, Self::Route].into_iter().find(|k| k.name() == name)
    }
}

/// Where a base chain meets packets; its policy is accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub kind: ChainKind,
    pub number: u32,
    pub priority: i32,
    /// Of the netdev family.
    pub device: Option<String>,
}

/// A rule: its expressions, encoded. Two rules are equal when their fingerprints are.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Empty when read from the kernel, which tells only the fingerprint we left there.
    pub bytes: Vec<u8>,
    fingerprint: u64,
}

impl Rule {
    pub fn new(bytes: Vec<u8>) -> Self {
        let fingerprint = fingerprint(&bytes);
        Self { bytes, fingerprint }
    }

    pub fn observed(fingerprint: u64) -> Self {
        Self { bytes: Vec::new(), fingerprint }
    }

    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Rule {}

/// FNV-1a: the same in every build, and written nowhere but in the kernel's memory.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A chain; without a hook it is reached by `goto` only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// What an element maps to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    None,
    Bytes(Vec<u8>),
    GoTo(String),
}

/// Elements by key, as the kernel has the bytes.
pub type Elements = BTreeMap<Vec<u8>, Value>;

/// Key and value of a set. Types are `nft`'s numbers and only make its listing readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetShape {
    pub key_type: u32,
    pub key_bytes: u32,
    /// Type and bytes of a map's value.
    pub value: Option<(u32, u32)>,
}

impl SetShape {
    pub const IS_MAP: u32 = 8;
    /// The value type of verdict maps.
    pub const VERDICT: u32 = 0xffff_ff00;
    /// Bytes of a verdict in the kernel.
    pub const VERDICT_BYTES: u32 = 16;

    pub fn flags(&self) -> u32 {
        if self.value.is_some() { Self::IS_MAP } else { 0 }
    }
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub shape: SetShape,
    pub elements: Elements,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulesetChange {
    CreateTable {
        name: TableName,
        table: Arc<Table>,
    },
    DeleteTable {
        name: TableName,
    },
    AddChain {
        table: TableName,
        name: String,
        chain: Chain,
    },
    ReplaceRules {
        table: TableName,
        name: String,
        chain: Chain,
    },
    DeleteChain {
        table: TableName,
        name: String,
    },
    AddElements {
        table: TableName,
        set: String,
        elements: Elements,
    },
    DeleteElements {
        table: TableName,
        set: String,
        elements: Elements,
    },
    /// In front of all rules of somebody else's chain.
    InsertRules {
        table: TableName,
        chain: String,
        rules: Vec<Rule>,
    },
    DeleteRules {
        table: TableName,
        chain: String,
        handles: Vec<u64>,
    },
}
