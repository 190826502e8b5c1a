//! What is in the kernel's ruleset: our tables whole, and of others their forward chains that drop.

use std::collections::{BTreeMap, BTreeSet};

use super::nftables;
use super::transaction::{GET_CHAIN, GET_ELEMENTS, GET_RULE, GET_SET, GET_TABLE, fingerprint_in};
use crate::model::ruleset::{Chain, ChainKind, Elements, Family, Hook, Rule, Set, SetShape, Table, TableName, Value};
use crate::netlink::{Attributes, NetlinkError, Socket, Writer, attribute};

/// `goto` as the kernel numbers it.
pub(super) const VERDICT_GOTO: u32 = -4i32 as u32;
const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;

/// A base chain of somebody else at the forward hook that drops what nobody accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignChain {
    pub table: TableName,
    pub chain: String,
}

/// Such a chain, and our rules in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardChains {
    /// Chains that drop.
    pub dropping: BTreeSet<ForeignChain>,
    /// Chains with rules of ours: handle and fingerprint of each.
    pub opened: BTreeMap<ForeignChain, Vec<(u64, u64)>>,
}

/// Reads the tables with these names.
///
/// # Errors
/// When the kernel refuses a dump.
pub fn tables(socket: &mut Socket, names: &[TableName]) -> Result<BTreeMap<TableName, Table>, NetlinkError> {
    let mut found = BTreeMap::new();
    for body in socket.dump(&nftables(GET_TABLE, 0, 0, &[]))? {
        let Some(name) = table_name(&body, 1) else { continue };
        if names.contains(&name) {
            found.insert(name, Table::default());
        }
    }
    for (name, table) in &mut found {
        read_table(socket, name, table)?;
    }
    Ok(found)
}

fn read_table(socket: &mut Socket, name: &TableName, table: &mut Table) -> Result<(), NetlinkError> {
    let family = name.family.number();
    for body in socket.dump(&nftables(GET_CHAIN, 0, family, &[]))? {
        let Some(chain_name) = text(&body, 3).filter(|_| is_in(&body, name)) else { continue };
        table.chains.insert(chain_name, Chain { hook: hook(&body), rules: Vec::new() });
    }
    let mut of_table = Writer::default();
    of_table.text(1, &name.name);
    for body in socket.dump(&nftables(GET_RULE, 0, family, &of_table.0))? {
        let Some(chain) = text(&body, 2).filter(|_| is_in(&body, name)) else { continue };
        let fingerprint = attribute(rest(&body), 7).and_then(fingerprint_in);
        if let Some(chain) = table.chains.get_mut(&chain) {
            chain.rules.push(Rule::observed(fingerprint.unwrap_or(0)));
        }
    }
    for body in socket.dump(&nftables(GET_SET, 0, family, &of_table.0))? {
        let Some(set_name) = text(&body, 2).filter(|_| is_in(&body, name)) else { continue };
        let shape = set_shape(rest(&body));
        let elements = elements(socket, name, &set_name)?;
        table.sets.insert(set_name, Set { shape, elements });
    }
    Ok(())
}

fn elements(socket: &mut Socket, table: &TableName, set: &str) -> Result<Elements, NetlinkError> {
    let mut which = Writer::default();
    which.text(1, &table.name).text(2, set);
    let mut found = Elements::new();
    for body in socket.dump(&nftables(GET_ELEMENTS, 0, table.family.number(), &which.0))? {
        let Some(list) = attribute(rest(&body), 3) else { continue };
        for (_, element) in Attributes(list) {
            let Some(key) = attribute(element, 1).and_then(|d| attribute(d, 1)) else { continue };
            found.insert(key.to_vec(), attribute(element, 2).map_or(Value::None, value));
        }
    }
    Ok(found)
}

fn value(data: &[u8]) -> Value {
    if let Some(bytes) = attribute(data, 1) {
        return Value::Bytes(bytes.to_vec());
    }
    let verdict = attribute(data, 2).unwrap_or_default();
    let code = number(verdict, 1);
    match attribute(verdict, 2) {
        Some(chain) if code == Some(VERDICT_GOTO) => Value::GoTo(trimmed(chain)),
        // Not a value that we write: it differs from every desired one.
        _ => Value::Bytes(Vec::new()),
    }
}

/// Reads the forward chains of other tables.
///
/// # Errors
/// When the kernel refuses a dump.
pub fn forward_chains(socket: &mut Socket, ours: &[TableName]) -> Result<ForwardChains, NetlinkError> {
    let mut found = ForwardChains::default();
    for family in [Family::Ip, Family::Ip6, Family::Inet] {
        for body in socket.dump(&nftables(GET_CHAIN, 0, family.number(), &[]))? {
            let (Some(table), Some(chain)) = (table_name(&body, 1), text(&body, 3)) else {
                continue;
            };
            let is_forward = hook(&body).is_some_and(|h| h.number == HOOK_FORWARD);
            if ours.contains(&table) || table.family != family || !is_forward {
                continue;
            }
            let which = ForeignChain { table, chain };
            if number(rest(&body), 5) == Some(POLICY_DROP) {
                found.dropping.insert(which.clone());
            }
            let handles = our_rules(socket, &which)?;
            if !handles.is_empty() {
                found.opened.insert(which, handles);
            }
        }
    }
    Ok(found)
}

fn our_rules(socket: &mut Socket, of: &ForeignChain) -> Result<Vec<(u64, u64)>, NetlinkError> {
    let mut which = Writer::default();
    which.text(1, &of.table.name).text(2, &of.chain);
    let mut handles = Vec::new();
    for body in socket.dump(&nftables(GET_RULE, 0, of.table.family.number(), &which.0))? {
        let is_here = is_in(&body, &of.table) && text(&body, 2).as_ref() == Some(&of.chain);
        let fingerprint = attribute(rest(&body), 7).and_then(fingerprint_in);
        let handle = attribute(rest(&body), 3).and_then(|h| h.try_into().ok());
        if let (true, Some(fingerprint), Some(handle)) = (is_here, fingerprint, handle) {
            handles.push((u64::from_be_bytes(handle), fingerprint));
        }
    }
    Ok(handles)
}

fn hook(body: &[u8]) -> Option<Hook> {
    let spec = attribute(rest(body), 4)?;
    let priority = attribute(spec, 2)?.try_into().ok()?;
    let kind = text(body, 7).and_then(|t| ChainKind::from_name(&t))?;
    Some(Hook {
        kind,
        number: number(spec, 1)?,
        priority: i32::from_be_bytes(priority),
        device: attribute(spec, 3).map(trimmed),
    })
}

fn set_shape(attributes: &[u8]) -> SetShape {
    let flags = number(attributes, 3).unwrap_or(0);
    let value = number(attributes, 6).zip(number(attributes, 7));
    SetShape {
        key_type: number(attributes, 4).unwrap_or(0),
        key_bytes: number(attributes, 5).unwrap_or(0),
        value: value.filter(|_| flags & SetShape::IS_MAP != 0),
    }
}

/// The attributes after the family's header.
fn rest(body: &[u8]) -> &[u8] {
    body.get(4..).unwrap_or_default()
}

fn is_in(body: &[u8], table: &TableName) -> bool {
    table_name(body, 1).as_ref() == Some(table)
}

fn table_name(body: &[u8], kind: u16) -> Option<TableName> {
    let family = Family::from_number(*body.first()?)?;
    Some(TableName { family, name: text(body, kind)?.into() })
}

fn text(body: &[u8], kind: u16) -> Option<String> {
    attribute(rest(body), kind).map(trimmed)
}

fn trimmed(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    attribute(attributes, kind)?.try_into().ok().map(u32::from_be_bytes)
}
