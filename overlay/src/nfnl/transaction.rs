//! Changes of a ruleset as one nfnetlink transaction: all or nothing.

use super::{header, nftables, subsystem};
use crate::model::ruleset::{Chain, Elements, RulesetChange, Set, Table, TableName, Value};
use crate::netlink::{Message, NetlinkError, Socket, Writer};

pub(super) const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
pub(super) const GET_SET: u16 = 10;
const NEW_ELEMENTS: u16 = 12;
pub(super) const GET_ELEMENTS: u16 = 13;
const DELETE_ELEMENTS: u16 = 14;
/// Also what a subscriber of [`super::GROUP_NFTABLES`] hears after each transaction.
pub const NEW_GENERATION: u16 = 15;
pub(super) const GET_GENERATION: u16 = 16;

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_GENERATION: u16 = 1;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// Elements in one message: an attribute's length has 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// What our rules carry as user data: a comment that `nft` shows, with the rule's fingerprint.
pub(super) const COMMENT_PREFIX: &str = "rswarm:";
/// The comment's kind in user data.
const USERDATA_COMMENT: u8 = 0;

/// The number of the ruleset in the socket's namespace; each transaction of anyone raises it.
///
/// # Errors
/// When the kernel has no nftables.
pub fn generation(socket: &mut Socket) -> Result<u32, NetlinkError> {
    let body = socket.get(&nftables(GET_GENERATION, 0, 0, &[]))?;
    generation_of(&body).ok_or(NetlinkError::Malformed("a generation without a number"))
}

/// The number in a generation message.
pub fn generation_of(body: &[u8]) -> Option<u32> {
    let value = crate::netlink::attribute(body.get(4..)?, 1)?;
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// Makes the changes, if the ruleset still has this generation. Returns the next one.
///
/// # Errors
/// `ERESTART` when somebody else changed the ruleset since; else what the kernel refused.
pub fn commit(socket: &mut Socket, generation: u32, changes: &[RulesetChange]) -> Result<u32, NetlinkError> {
    let mut messages = vec![begin(generation)];
    for change in changes {
        encode(change, &mut messages);
    }
    messages.push(batch_marker(BATCH_END, &[]));
    socket.transact(&messages).map_err(|error| name_message(error, &messages))?;
    // The kernel skips 0.
    Ok(generation.checked_add(1).unwrap_or(1))
}

/// Adds to a refusal which message it was: the kernel tells only its number.
fn name_message(error: NetlinkError, messages: &[Message]) -> NetlinkError {
    let NetlinkError::Refused { position, text, source } = error else { return error };
    let Some(message) = messages.get(position) else {
        return NetlinkError::Refused { position, text, source };
    };
    let text_of = |kind: u16| {
        let value = crate::netlink::attribute(message.body.get(4..)?, kind)?;
        Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
    };
    let (what, name) = match message.kind & 0xff {
        NEW_TABLE | DELETE_TABLE => ("table", None),
        NEW_CHAIN | DELETE_CHAIN => ("chain", text_of(3)),
        NEW_RULE | DELETE_RULE => ("rule in chain", text_of(2)),
        NEW_SET => ("set", text_of(2)),
        NEW_ELEMENTS | DELETE_ELEMENTS => ("elements of set", text_of(2)),
        _ => return NetlinkError::Refused { position, text, source },
    };
    let of_this = |m: &&Message| m.kind == message.kind && m.body.get(..24) == message.body.get(..24);
    let number = messages[..position].iter().filter(of_this).count() + 1;
    let table = text_of(1).unwrap_or_default();
    let place = format!("{what} {} of table {table}, number {number}", name.unwrap_or_default());
    let text = if text.is_empty() { place } else { format!("{text}: {place}") };
    NetlinkError::Refused { position, text, source }
}

fn begin(generation: u32) -> Message {
    let mut attributes = Writer::default();
    attributes.be32(BATCH_GENERATION, generation);
    batch_marker(BATCH_BEGIN, &attributes.0)
}

fn batch_marker(kind: u16, attributes: &[u8]) -> Message {
    let mut body = header(0, subsystem::NFTABLES).to_vec();
    body.extend_from_slice(attributes);
    Message { kind, flags: 0, body }
}

fn encode(change: &RulesetChange, to: &mut Vec<Message>) {
    match change {
        RulesetChange::CreateTable { name, table } => create_table(name, table, to),
        RulesetChange::DeleteTable { name } => {
            to.push(message(DELETE_TABLE, 0, name, |w| {
                w.text(1, &name.name);
            }));
        }
        RulesetChange::AddChain { table, name, chain } => {
            add_chain(table, name, chain, to);
            add_rules(table, name, chain, to);
        }
        RulesetChange::ReplaceRules { table, name, chain } => {
            delete_rules(table, name, to);
            add_rules(table, name, chain, to);
        }
        RulesetChange::DeleteChain { table, name } => {
            delete_rules(table, name, to);
            to.push(message(DELETE_CHAIN, 0, table, |w| {
                w.text(1, &table.name).text(3, name);
            }));
        }
        RulesetChange::AddElements { table, set, elements } => {
            put_elements(NEW_ELEMENTS, table, set, elements, to);
        }
        RulesetChange::DeleteElements { table, set, elements } => {
            put_elements(DELETE_ELEMENTS, table, set, elements, to);
        }
        RulesetChange::InsertRules { table, chain, rules } => {
            // Each goes to the front: the last inserted is the first met.
            for rule in rules.iter().rev() {
                to.push(rule_message(table, chain, &rule.bytes, rule.fingerprint(), NLM_F_CREATE));
            }
        }
        RulesetChange::DeleteRules { table, chain, handles } => {
            for handle in handles {
                to.push(message(DELETE_RULE, 0, table, |w| {
                    w.text(1, &table.name).text(2, chain).bytes(3, &handle.to_be_bytes());
                }));
            }
        }
    }
}

fn message(kind: u16, flags: u16, table: &TableName, attributes: impl FnOnce(&mut Writer)) -> Message {
    let mut writer = Writer::default();
    attributes(&mut writer);
    nftables(kind, flags, table.family.number(), &writer.0)
}

/// Sets before chains (rules name sets), chains before rules (rules name chains), rules before
/// elements (elements name chains).
fn create_table(name: &TableName, table: &Table, to: &mut Vec<Message>) {
    to.push(message(NEW_TABLE, NLM_F_CREATE, name, |w| {
        w.text(1, &name.name).be32(2, 0);
    }));
    for (number, (set_name, set)) in (1u32..).zip(&table.sets) {
        add_set(name, set_name, set, number, to);
    }
    for (chain_name, chain) in &table.chains {
        add_chain(name, chain_name, chain, to);
    }
    for (chain_name, chain) in &table.chains {
        add_rules(name, chain_name, chain, to);
    }
    for (set_name, set) in &table.sets {
        put_elements(NEW_ELEMENTS, name, set_name, &set.elements, to);
    }
}

fn add_set(table: &TableName, name: &str, set: &Set, number: u32, to: &mut Vec<Message>) {
    to.push(message(NEW_SET, NLM_F_CREATE, table, |w| {
        let shape = &set.shape;
        w.text(1, &table.name).text(2, name).be32(3, shape.flags());
        w.be32(4, shape.key_type).be32(5, shape.key_bytes);
        if let Some((kind, bytes)) = shape.value {
            w.be32(6, kind).be32(7, bytes);
        }
        w.be32(10, number);
    }));
}

fn add_chain(table: &TableName, name: &str, chain: &Chain, to: &mut Vec<Message>) {
    to.push(message(NEW_CHAIN, NLM_F_CREATE, table, |w| {
        w.text(1, &table.name).text(3, name);
        if let Some(hook) = &chain.hook {
            w.nest(4, |h| {
                h.be32(1, hook.number).bytes(2, &hook.priority.to_be_bytes());
                if let Some(device) = &hook.device {
                    h.text(3, device);
                }
            });
            w.be32(5, 1).text(7, hook.kind.name());
        }
    }));
}

fn add_rules(table: &TableName, name: &str, chain: &Chain, to: &mut Vec<Message>) {
    for rule in &chain.rules {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        to.push(rule_message(table, name, &rule.bytes, rule.fingerprint(), flags));
    }
}

fn rule_message(table: &TableName, chain: &str, expressions: &[u8], fingerprint: u64, flags: u16) -> Message {
    let mut comment = format!("{COMMENT_PREFIX}{fingerprint:016x}").into_bytes();
    comment.push(0);
    let mut userdata = vec![USERDATA_COMMENT, u8::try_from(comment.len()).unwrap_or(u8::MAX)];
    userdata.extend_from_slice(&comment);
    message(NEW_RULE, flags, table, |w| {
        w.text(1, &table.name).text(2, chain);
        w.nest(4, |list| list.0.extend_from_slice(expressions));
        w.bytes(7, &userdata);
    })
}

fn delete_rules(table: &TableName, chain: &str, to: &mut Vec<Message>) {
    to.push(message(DELETE_RULE, 0, table, |w| {
        w.text(1, &table.name).text(2, chain);
    }));
}

fn put_elements(kind: u16, table: &TableName, set: &str, elements: &Elements, to: &mut Vec<Message>) {
    let all: Vec<_> = elements.iter().collect();
    for chunk in all.chunks(ELEMENTS_PER_MESSAGE) {
        let flags = if kind == NEW_ELEMENTS { NLM_F_CREATE } else { 0 };
        to.push(message(kind, flags, table, |w| {
            w.text(1, &table.name).text(2, set).nest(3, |list| {
                for (key, value) in chunk {
                    let value = if kind == NEW_ELEMENTS { *value } else { &Value::None };
                    list.nest(1, |element| put_element(element, key, value));
                }
            });
        }));
    }
}

fn put_element(element: &mut Writer, key: &[u8], value: &Value) {
    element.nest(1, |d| {
        d.bytes(1, key);
    });
    match value {
        Value::None => {}
        Value::Bytes(bytes) => {
            element.nest(2, |d| {
                d.bytes(1, bytes);
            });
        }
        Value::GoTo(chain) => {
            element.nest(2, |d| {
                d.nest(2, |v| {
                    v.be32(1, super::dump::VERDICT_GOTO).text(2, chain);
                });
            });
        }
    }
}

/// The fingerprint in a rule's user data, if the rule is ours.
pub(super) fn fingerprint_in(userdata: &[u8]) -> Option<u64> {
    let (kind, rest) = userdata.split_first()?;
    let (length, rest) = rest.split_first()?;
    let text = rest.get(..usize::from(*length)).filter(|_| *kind == USERDATA_COMMENT)?;
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
    u64::from_str_radix(text.strip_prefix(COMMENT_PREFIX)?, 16).ok()
}
