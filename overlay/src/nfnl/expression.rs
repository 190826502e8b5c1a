//! The expressions of a rule, in the order in which the kernel runs them.
//!
//! A rule loads values into 32-bit registers, compares them, looks them up, and acts. Numbers are
//! those of `linux/netfilter/nf_tables.h`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::ruleset::Rule;
use crate::model::{Version, octets};
use crate::netlink::Writer;

/// Attribute kinds that nest.
mod nested {
    pub const LIST_ELEMENT: u16 = 1;
    pub const EXPRESSION_NAME: u16 = 1;
    pub const EXPRESSION_DATA: u16 = 2;
    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
}

/// Where a verdict goes.
const REGISTER_VERDICT: u32 = 0;
/// The first of sixteen 32-bit registers.
const REGISTER_FIRST: u32 = 8;

/// The number of the nth 32-bit register.
const fn register(index: u32) -> u32 {
    REGISTER_FIRST + index
}

const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;
const VERDICT_GOTO: u32 = -4i32 as u32;

const BASE_LINK: u32 = 0;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;

const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_IIFTYPE: u32 = 8;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_ZONE: u32 = 17;
const CT_ORIGINAL: u8 = 0;
const CT_REPLY: u8 = 1;

const CMP_EQUAL: u32 = 0;
const CMP_UNEQUAL: u32 = 1;

const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;
const STATUS_DNAT: u32 = 0x20;

const FIB_BY_SOURCE: u32 = 1;
const FIB_BY_DESTINATION: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const RTN_LOCAL: u32 = 2;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const ARPHRD_ETHER: u16 = 1;
const RT_TCPMSS: u32 = 3;
const REJECT_BY_ICMPX: u32 = 2;
const ICMPX_PORT_UNREACHABLE: u8 = 1;
const HASH_JENKINS: u32 = 0;
/// Any number, the same on every node: a client is led to the same task by all of them.
const HASH_SEED: u32 = 0x5eed;
/// Where a value is kept that is no part of a key.
const SPARE: u32 = 8;

/// Which backend a new connection is led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Draw {
    /// Any.
    Random,
    /// The same for all connections of one client.
    ByClient,
}

/// What a published port is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Front {
    /// Protocol and port, at every address of the host.
    Port,
    /// Address, protocol and port.
    AddressAndPort,
}

fn protocol_number(version: Version) -> u8 {
    match version {
        Version::V4 => NFPROTO_IPV4,
        Version::V6 => NFPROTO_IPV6,
    }
}

/// 32-bit registers that an address takes.
fn words(version: Version) -> u32 {
    version.octets() / 4
}

/// A rule in the making.
#[derive(Clone, Debug, Default)]
pub struct Expressions(Writer);

impl Expressions {
    pub fn new() -> Self {
        Self::default()
    }

    /// The finished rule.
    pub fn rule(self) -> Rule {
        Rule::new(self.0.0)
    }

    fn add(mut self, name: &str, attributes: impl FnOnce(&mut Writer)) -> Self {
        self.0.nest(nested::LIST_ELEMENT, |element| {
            element.text(nested::EXPRESSION_NAME, name);
            element.nest(nested::EXPRESSION_DATA, attributes);
        });
        self
    }

    fn payload(self, base: u32, offset: u32, length: u32, to: u32) -> Self {
        self.add("payload", |a| {
            a.be32(1, register(to)).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    fn meta(self, key: u32, to: u32) -> Self {
        self.add("meta", |a| {
            a.be32(1, register(to)).be32(2, key);
        })
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.add("cmp", |a| {
            a.be32(1, register(0)).be32(2, operator).nest(3, |d| {
                d.bytes(nested::DATA_VALUE, value);
            });
        })
    }

    fn equals(self, value: &[u8]) -> Self {
        self.compare(CMP_EQUAL, value)
    }

    fn differs(self, value: &[u8]) -> Self {
        self.compare(CMP_UNEQUAL, value)
    }

    /// Keeps the bits of the mask in register 0.
    fn mask(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        self.add("bitwise", |a| {
            a.be32(1, register(0)).be32(2, register(0)).be32(3, length);
            a.nest(4, |d| {
                d.bytes(nested::DATA_VALUE, mask);
            });
            a.nest(5, |d| {
                d.bytes(nested::DATA_VALUE, &vec![0; mask.len()]);
            });
        })
    }

    fn ct(self, key: u32, direction: Option<u8>) -> Self {
        self.add("ct", |a| {
            a.be32(1, register(0)).be32(2, key);
            if let Some(direction) = direction {
                a.bytes(3, &[direction]);
            }
        })
    }

    /// Looks register 0 and those after it up; the value goes to register 0.
    fn look_up(self, set: &str, to: Option<u32>) -> Self {
        self.add("lookup", |a| {
            a.text(1, set).be32(2, register(0));
            if let Some(to) = to {
                a.be32(3, to);
            }
        })
    }

    /// Register 0 and those after it are not in the set.
    fn look_up_missing(self, set: &str) -> Self {
        self.add("lookup", |a| {
            a.text(1, set).be32(2, register(0)).be32(5, 1);
        })
    }

    fn verdict(self, code: u32, chain: Option<&str>) -> Self {
        self.add("immediate", |a| {
            a.be32(1, REGISTER_VERDICT).nest(2, |d| {
                d.nest(nested::DATA_VERDICT, |v| {
                    v.be32(nested::VERDICT_CODE, code);
                    if let Some(chain) = chain {
                        v.text(nested::VERDICT_CHAIN, chain);
                    }
                });
            });
        })
    }

    fn interface(self, key: u32, name: &str, is_equal: bool) -> Self {
        let mut padded = [0; 16];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        let operator = if is_equal { CMP_EQUAL } else { CMP_UNEQUAL };
        self.meta(key, 0).compare(operator, &padded)
    }

    // Matches.

    pub fn input_is(self, name: &str) -> Self {
        self.interface(META_IIFNAME, name, true)
    }

    pub fn input_is_not(self, name: &str) -> Self {
        self.interface(META_IIFNAME, name, false)
    }

    pub fn output_is(self, name: &str) -> Self {
        self.interface(META_OIFNAME, name, true)
    }

    pub fn output_is_not(self, name: &str) -> Self {
        self.interface(META_OIFNAME, name, false)
    }

    /// Any input interface whose name begins so.
    pub fn input_begins(self, prefix: &str) -> Self {
        self.meta(META_IIFNAME, 0).equals(prefix.as_bytes())
    }

    /// Any output interface whose name begins so.
    pub fn output_begins(self, prefix: &str) -> Self {
        self.meta(META_OIFNAME, 0).equals(prefix.as_bytes())
    }

    pub fn is_version(self, version: Version) -> Self {
        self.meta(META_NFPROTO, 0).equals(&[protocol_number(version)])
    }

    /// What an Ethernet frame holds, in bridges.
    pub fn holds(self, protocol: u16) -> Self {
        self.meta(META_PROTOCOL, 0).equals(&protocol.to_be_bytes())
    }

    pub fn protocol_is(self, protocol: u8) -> Self {
        self.meta(META_L4PROTO, 0).equals(&[protocol])
    }

    pub fn port_is(self, port: u16) -> Self {
        self.payload(BASE_TRANSPORT, 2, 2, 0).equals(&port.to_be_bytes())
    }

    fn source(self, version: Version, to: u32) -> Self {
        let offset = if version == Version::V4 { 12 } else { 8 };
        self.payload(BASE_NETWORK, offset, version.octets(), to)
    }

    fn destination(self, version: Version, to: u32) -> Self {
        let offset = if version == Version::V4 { 16 } else { 24 };
        self.payload(BASE_NETWORK, offset, version.octets(), to)
    }

    fn protocol_and_port(self, to: u32) -> Self {
        self.meta(META_L4PROTO, to).payload(BASE_TRANSPORT, 2, 2, to + 1)
    }

    pub fn destination_is(self, address: IpAddr) -> Self {
        let version = Version::of(address);
        self.is_version(version).destination(version, 0).equals(&octets(address))
    }

    pub fn destination_in(self, network: IpNet) -> Self {
        let version = Version::of(network.addr());
        let masked = self.is_version(version).destination(version, 0).mask(&octets(network.netmask()));
        masked.equals(&octets(network.network()))
    }

    pub fn source_in(self, network: IpNet) -> Self {
        let version = Version::of(network.addr());
        let masked = self.is_version(version).source(version, 0).mask(&octets(network.netmask()));
        masked.equals(&octets(network.network()))
    }

    pub fn source_in_set(self, version: Version, set: &str) -> Self {
        self.is_version(version).source(version, 0).look_up(set, None)
    }

    pub fn source_not_in_set(self, version: Version, set: &str) -> Self {
        self.is_version(version).source(version, 0).look_up_missing(set)
    }

    /// Source MAC and address are not in the set together.
    pub fn sender_not_in_set(self, version: Version, set: &str) -> Self {
        self.is_version(version).payload(BASE_LINK, 6, 6, 0).source(version, 2).look_up_missing(set)
    }

    /// In bridges: input interface, source MAC and address are in the set together.
    pub fn port_sender_in_set(self, version: Version, set: &str) -> Self {
        self.meta(META_IIFNAME, 0).payload(BASE_LINK, 6, 6, 4).source(version, 6).look_up(set, None)
    }

    /// In bridges, of ARP: input interface, and MAC and address that the sender says are its own, are in
    /// the set together.
    pub fn port_arp_sender_in_set(self, set: &str) -> Self {
        self.meta(META_IIFNAME, 0).payload(BASE_NETWORK, 8, 6, 4).payload(BASE_NETWORK, 14, 4, 6).look_up(set, None)
    }

    /// Destination address, protocol and port are in the set.
    pub fn destination_in_set(self, version: Version, set: &str) -> Self {
        let address = self.is_version(version).destination(version, 0);
        address.protocol_and_port(words(version)).look_up(set, None)
    }

    /// The destination is an address of this host.
    pub fn destination_is_local(self) -> Self {
        self.fib(FIB_BY_DESTINATION).equals(&RTN_LOCAL.to_ne_bytes())
    }

    /// The source is no address of this host.
    pub fn source_is_foreign(self) -> Self {
        self.fib(FIB_BY_SOURCE).differs(&RTN_LOCAL.to_ne_bytes())
    }

    fn fib(self, by: u32) -> Self {
        self.add("fib", |a| {
            a.be32(1, register(0)).be32(2, FIB_ADDRESS_TYPE).be32(3, by);
        })
    }

    pub fn is_established(self) -> Self {
        let wanted = STATE_ESTABLISHED | STATE_RELATED;
        self.ct(CT_STATE, None).mask(&wanted.to_ne_bytes()).differs(&[0; 4])
    }

    /// The connection's destination was translated.
    pub fn is_dnat(self) -> Self {
        self.ct(CT_STATUS, None).mask(&STATUS_DNAT.to_ne_bytes()).differs(&[0; 4])
    }

    pub fn is_reply(self) -> Self {
        self.ct(CT_DIRECTION, None).equals(&[CT_REPLY])
    }

    pub fn is_original(self) -> Self {
        self.ct(CT_DIRECTION, None).equals(&[CT_ORIGINAL])
    }

    /// The conntrack zone of the original direction is set.
    pub fn has_zone(self) -> Self {
        self.ct(CT_ZONE, Some(CT_ORIGINAL)).differs(&[0; 2])
    }

    pub fn mark_masked_is(self, mask: u32, value: u32) -> Self {
        self.meta(META_MARK, 0).mask(&mask.to_ne_bytes()).equals(&value.to_ne_bytes())
    }

    pub fn is_tcp_syn(self) -> Self {
        self.protocol_is(6).payload(BASE_TRANSPORT, 13, 1, 0).mask(&[2]).differs(&[0])
    }

    // Actions.

    pub fn accept(self) -> Self {
        self.verdict(VERDICT_ACCEPT, None)
    }

    pub fn drop(self) -> Self {
        self.verdict(VERDICT_DROP, None)
    }

    pub fn go_to(self, chain: &str) -> Self {
        self.verdict(VERDICT_GOTO, Some(chain))
    }

    /// An ICMP "port unreachable" to the sender.
    pub fn reject(self) -> Self {
        self.add("reject", |a| {
            a.be32(1, REJECT_BY_ICMPX).bytes(2, &[ICMPX_PORT_UNREACHABLE]);
        })
    }

    pub fn count(self) -> Self {
        self.add("counter", |a| {
            a.bytes(1, &[0; 8]).bytes(2, &[0; 8]);
        })
    }

    pub fn no_track(self) -> Self {
        self.add("notrack", |_| {})
    }

    pub fn masquerade(self) -> Self {
        self.add("masq", |_| {})
    }

    /// Lowers the segment size in a SYN to what the route carries.
    pub fn clamp_segment_size(self) -> Self {
        self.add("rt", |a| {
            a.be32(1, register(0)).be32(2, RT_TCPMSS);
        })
        .add("byteorder", |a| {
            a.be32(1, register(0)).be32(2, register(0)).be32(3, 1).be32(4, 2).be32(5, 2);
        })
        .add("exthdr", |a| {
            a.be32(7, register(0)).bytes(2, &[2]).be32(3, 2).be32(4, 2).be32(6, 1);
        })
    }

    fn set_mark_from(self, register_index: u32) -> Self {
        self.add("meta", |a| {
            a.be32(2, META_MARK).be32(3, register(register_index));
        })
    }

    pub fn set_mark(self, mark: u32) -> Self {
        self.load(&mark.to_ne_bytes(), 0).set_mark_from(0)
    }

    /// Mark ← map(zone of the original direction).
    pub fn set_mark_by_zone(self, map: &str) -> Self {
        self.ct(CT_ZONE, Some(CT_ORIGINAL)).look_up(map, Some(register(0))).set_mark_from(0)
    }

    /// Zone of the original direction ← map(source MAC).
    pub fn set_zone_by_source_mac(self, map: &str) -> Self {
        self.meta(META_IIFTYPE, 0)
            .equals(&ARPHRD_ETHER.to_ne_bytes())
            .payload(BASE_LINK, 6, 6, 0)
            .look_up(map, Some(register(0)))
            .add("ct", |a| {
                a.be32(2, CT_ZONE).bytes(3, &[CT_ORIGINAL]).be32(4, register(0));
            })
    }

    /// Destination MAC ← map(mark).
    pub fn set_destination_mac_by_mark(self, map: &str) -> Self {
        self.meta(META_MARK, 0).look_up(map, Some(register(0))).add("payload", |a| {
            a.be32(5, register(0)).be32(2, BASE_LINK).be32(3, 0).be32(4, 6);
            a.be32(6, 0).be32(7, 0).be32(8, 0);
        })
    }

    /// Jumps to the chain that the map gives for the destination address.
    pub fn go_by_destination(self, version: Version, map: &str) -> Self {
        self.is_version(version).destination(version, 0).look_up(map, Some(REGISTER_VERDICT))
    }

    /// Jumps to the chain that the map gives for what `front` says.
    pub fn go_by_port(self, version: Version, front: Front, map: &str) -> Self {
        self.is_version(version).front(version, front).0.look_up(map, Some(REGISTER_VERDICT))
    }

    /// Loads what a published port is looked up by, and says how many registers that takes.
    fn front(self, version: Version, front: Front) -> (Self, u32) {
        match front {
            Front::Port => (self.protocol_and_port(0), 2),
            Front::AddressAndPort => {
                (self.destination(version, 0).protocol_and_port(words(version)), words(version) + 2)
            }
        }
    }

    fn draw(self, version: Version, draw: Draw, slots: u32, to: u32) -> Self {
        match draw {
            Draw::Random => self.add("numgen", |a| {
                a.be32(1, register(to)).be32(2, slots).be32(3, 1).be32(4, 0);
            }),
            Draw::ByClient => self.source(version, SPARE).add("hash", |a| {
                a.be32(1, register(SPARE)).be32(2, register(to)).be32(3, version.octets()).be32(4, slots);
                a.be32(5, HASH_SEED).be32(6, 0).be32(7, HASH_JENKINS);
            }),
        }
    }

    /// New destination ← map(destination address).
    pub fn dnat_by_destination(self, version: Version, map: &str) -> Self {
        let loaded = self.is_version(version).destination(version, 0);
        loaded.look_up(map, Some(register(0))).dnat(version, false)
    }

    /// New destination ← map(destination address, one of `slots`).
    pub fn dnat_by_slot(self, version: Version, draw: Draw, slots: u32, map: &str) -> Self {
        let loaded = self.destination(version, 0).draw(version, draw, slots, words(version));
        loaded.look_up(map, Some(register(0))).dnat(version, false)
    }

    /// New destination and port ← map(what `front` says, one of `slots`).
    pub fn dnat_by_port_slot(self, version: Version, front: Front, draw: Draw, slots: u32, map: &str) -> Self {
        let (loaded, at) = self.is_version(version).front(version, front);
        loaded.draw(version, draw, slots, at).look_up(map, Some(register(0))).dnat(version, true)
    }

    fn load(self, value: &[u8], to: u32) -> Self {
        self.add("immediate", |a| {
            a.be32(1, register(to)).nest(2, |d| {
                d.bytes(nested::DATA_VALUE, value);
            });
        })
    }

    /// New destination is this address and port.
    pub fn dnat_to(self, address: IpAddr, port: u16) -> Self {
        let version = Version::of(address);
        self.load(&octets(address), 0).load(&port.to_be_bytes(), words(version)).dnat(version, true)
    }

    /// Translates to the address in the first registers, and the port in the one after it.
    fn dnat(self, version: Version, has_port: bool) -> Self {
        self.add("nat", |a| {
            a.be32(1, 1).be32(2, u32::from(protocol_number(version))).be32(3, register(0));
            if has_port {
                a.be32(5, register(words(version)));
            }
        })
    }
}
