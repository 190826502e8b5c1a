//! The switch: a bridge in a namespace of its own, whose rules cut links. Hosts may flush their own rules as they like.

use anyhow::Result;

use super::command::{feed, tool};
use super::{GATEWAY, SUBNET_V4, SUBNET_V6};

/// IP is dropped between cut ports; ARP and neighbour discovery pass, or a cut one way would soon be one both ways.
const RULES: &str = "\
table bridge lab {
    set cut {
        type ifname . ifname
    }
    chain forward {
        type filter hook forward priority 0; policy accept;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        iifname . oifname @cut ether type { ip, ip6 } counter drop
    }
}
";

/// The switch's network namespace.
pub fn namespace(lab: &str) -> String {
    format!("{lab}-switch")
}

/// Makes the switch.
pub fn make(lab: &str) -> Result<()> {
    let namespace = namespace(lab);
    tool(&["ip", "netns", "add", &namespace])?;
    let script = format!(
        "link set lo up\n\
         link add br0 address 02:99:00:00:00:fe type bridge\n\
         link set br0 up\n\
         address add {SUBNET_V4}.{GATEWAY}/24 dev br0\n\
         address add {SUBNET_V6}{GATEWAY}/64 dev br0 nodad\n"
    );
    feed(&["ip", "-n", &namespace, "-batch", "-"], &script)?;
    // Bridged frames must not be judged by IP rules as well; in a new namespace the kernel's default is that they are.
    let quiet = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done";
    tool(&["ip", "netns", "exec", &namespace, "sh", "-c", quiet])?;
    feed(&["ip", "netns", "exec", &namespace, "nft", "-f", "-"], RULES)
}

/// Plugs a host in: its port is called like the host, its end `eth0`.
pub fn plug(lab: &str, host: &str, host_namespace: &str, number: u8) -> Result<()> {
    let namespace = namespace(lab);
    tool(&[
        "ip",
        "-n",
        &namespace,
        "link",
        "add",
        "name",
        host,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        host_namespace,
    ])?;
    tool(&["ip", "-n", &namespace, "link", "set", "dev", host, "master", "br0", "up"])?;
    let script = format!(
        "link set lo up\n\
         link set eth0 up\n\
         address add {SUBNET_V4}.{number}/24 dev eth0\n\
         address add {SUBNET_V6}{number}/64 dev eth0 nodad\n\
         route add default via {SUBNET_V4}.{GATEWAY}\n\
         route add ::/0 via {SUBNET_V6}{GATEWAY}\n"
    );
    feed(&["ip", "-n", host_namespace, "-batch", "-"], &script)
}

/// Takes a host's link away, at once and at both ends: its namespace may live on for a while after it is let go.
pub fn unplug(lab: &str, host: &str) -> Result<()> {
    tool(&["ip", "-n", &namespace(lab), "link", "delete", "dev", host]).map(drop)
}

/// Drops what comes in at one port for the other.
pub fn cut(lab: &str, from: &str, to: &str) -> Result<()> {
    nft(lab, &format!("add element bridge lab cut {{ \"{from}\" . \"{to}\" }}\n"))
}

/// Opens every link again.
pub fn heal(lab: &str) -> Result<()> {
    nft(lab, "flush set bridge lab cut\n")
}

fn nft(lab: &str, script: &str) -> Result<()> {
    feed(&["ip", "netns", "exec", &namespace(lab), "nft", "-f", "-"], script)
}
