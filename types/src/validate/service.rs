//! Rules of a service.

use std::net::IpAddr;

use super::container::container;
use super::name::name_problem;
use super::{Found, Violation, duplicates};
use crate::constraint::Constraint;
use crate::limits;
use crate::parse::parse_bytes;
use crate::parse::placement_pref::check_spread;
use crate::spec::{
    EndpointMode, EndpointSpec, LogDriver, NetworkAttachment, Placement, PublishMode, Resources, ServiceMode,
    ServiceSpec,
};
use crate::units::{Bytes, NanoCpus};

/// Every rule that a service breaks; empty = valid.
///
/// Networks are judged by the name that the user wrote: call it before names are replaced by ids.
pub fn service_spec(spec: &ServiceSpec) -> Vec<Violation> {
    let mut found = Found::default();
    let networks = &spec.task.networks;
    let is_host_network = networks.iter().any(|network| network.target == "host");
    found.add_some("name", name_problem(&spec.name));
    found.labels("label", spec.labels.keys());
    mode(&mut found, spec);
    container(&mut found, &spec.task.container, is_host_network);
    resources(&mut found, &spec.task.resources);
    placement(&mut found, &spec.task.placement);
    attachments(&mut found, networks);
    balance(&mut found, &spec.endpoint);
    ports(&mut found, spec, is_host_network);
    if let Some(driver) = &spec.task.log_driver {
        log_driver(&mut found, driver);
    }
    found.0
}

fn mode(found: &mut Found, spec: &ServiceSpec) {
    match spec.mode {
        ServiceMode::Replicated { replicas } => found.check(replicas <= limits::REPLICAS_MAX, "replicas", || {
            format!("it is {replicas}; allowed are 0-{}", limits::REPLICAS_MAX)
        }),
        ServiceMode::Global => {
            found.check(spec.task.placement.max_replicas_per_node == 0, "replicas-max-per-node", || {
                "it goes with replicated services only; a global service has one task on each node".into()
            })
        }
    }
}

fn resources(found: &mut Found, resources: &Resources) {
    let Resources { limit_cpu, limit_memory, limit_pids, reserve_cpu, reserve_memory } = *resources;
    let none_cpu = NanoCpus(0);
    let none = Bytes(0);
    found.check(limit_cpu == none_cpu || limit_cpu.0 >= limits::CPU_LIMIT_MIN_NANOS, "limit-cpu", || {
        format!("it is {limit_cpu}; at least {}", NanoCpus(limits::CPU_LIMIT_MIN_NANOS))
    });
    found.check(limit_memory == none || limit_memory.0 >= limits::MEMORY_LIMIT_MIN_BYTES, "limit-memory", || {
        format!(
            "it is {limit_memory}; at least {}, below it a container does not start",
            Bytes(limits::MEMORY_LIMIT_MIN_BYTES)
        )
    });
    found.check(limit_cpu == none_cpu || reserve_cpu <= limit_cpu, "reserve-cpu", || {
        format!("it is {reserve_cpu}, above limit-cpu {limit_cpu}")
    });
    found.check(limit_memory == none || reserve_memory <= limit_memory, "reserve-memory", || {
        format!("it is {reserve_memory}, above limit-memory {limit_memory}")
    });
    found
        .check(i64::try_from(limit_pids).is_ok(), "limit-pids", || format!("it is {limit_pids}; at most {}", i64::MAX));
}

fn placement(found: &mut Found, placement: &Placement) {
    for expression in &placement.constraints {
        if let Err(error) = Constraint::parse(expression) {
            // The field's name is the message's first word already.
            let text = error.to_string();
            found.add("constraint", text.strip_prefix("constraint ").unwrap_or(&text));
        }
    }
    for preference in &placement.preferences {
        found.add_some("placement-pref", check_spread(&preference.descriptor));
    }
}

fn attachments(found: &mut Found, networks: &[NetworkAttachment]) {
    for target in duplicates(networks.iter().map(|n| &n.target)) {
        found.add(format!("network {target}"), "it is given twice");
    }
    for network in networks {
        let target = network.target.as_str();
        let field = format!("network {target}");
        found.check(!target.is_empty(), "network", || "it has no name".into());
        found.check(target != "bridge", &field, || {
            "bridge networks are not built yet; use an overlay, host or none".into()
        });
        if matches!(target, "host" | "none") {
            found.check(networks.len() == 1, &field, || "it cannot be combined with other networks".into());
            found.check(network.aliases.is_empty(), &field, || {
                "it has no names: aliases go with overlay networks only".into()
            });
        }
        for alias in &network.aliases {
            found.check(is_alias(alias), &field, || {
                format!("alias is \"{alias}\"; allowed are letters, digits, \"-\", \"_\" and \".\"")
            });
        }
        for option in network.driver_opts.keys() {
            found.add(field.clone(), format!("driver-opt {option} is not built yet"));
        }
    }
}

fn is_alias(alias: &str) -> bool {
    (1..=253).contains(&alias.len())
        && alias.split('.').all(|label| {
            (1..=limits::NAME_LENGTH_MAX).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

fn balance(found: &mut Found, endpoint: &EndpointSpec) {
    let balance = endpoint.balance;
    for (field, is_set) in [("endpoint-affinity", balance.by_client), ("endpoint-prefer", balance.prefers_local)] {
        found.check(!is_set || endpoint.mode == EndpointMode::Vip, field, || {
            "with endpoint-mode dnsrr clients choose the task themselves; it goes with vip only".into()
        });
    }
}

fn ports(found: &mut Found, spec: &ServiceSpec, is_host_network: bool) {
    let ports = &spec.endpoint.ports;
    let is_detached = spec.task.networks.iter().any(|network| network.target == "none");
    for port in ports {
        let field = format!("publish {port}");
        found.check(port.target > 0, &field, || "target port is 0; allowed are 1-65535".into());
        found.check(!limits::RESERVED_PORTS.contains(&port.published), &field, || {
            let reserved = limits::RESERVED_PORTS.map(|p| p.to_string()).join(", ");
            format!("port {} belongs to the cluster itself; not allowed are {reserved}", port.published)
        });
        if let Some(address) = port.address {
            found.check(is_for_publishing(address), &field, || {
                format!("{address} is no address to publish on; allowed are unicast addresses, but not link-local IPv6")
            });
        }
        found.check(!is_detached, &field, || "a service with --network none has no ports".into());
        if port.mode == PublishMode::Ingress {
            found.check(spec.endpoint.mode == EndpointMode::Vip, &field, || {
                "endpoint-mode dnsrr cannot publish in ingress mode; publish with mode=host".into()
            });
            found.check(!is_host_network, &field, || {
                "a service with --network host cannot publish in ingress mode; publish with mode=host".into()
            });
        } else if is_host_network {
            found.check(port.published == port.target || port.published == 0, &field, || {
                "with --network host the published port is the target port".into()
            });
            found.check(port.address.is_none(), &field, || {
                "with --network host the container chooses the address itself".into()
            });
        }
    }
    for (index, port) in ports.iter().enumerate() {
        if let Some(other) = ports[..index].iter().find(|other| port.meets(other)) {
            found.add(format!("publish {port}"), format!("the service publishes the port twice, also as {other}"));
        }
    }
}

/// An address that a node can have: the wildcards are no such, they are read as none.
fn is_for_publishing(address: IpAddr) -> bool {
    let has_no_scope = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !has_no_scope && !address.is_multicast() && !address.is_unspecified()
}

fn log_driver(found: &mut Found, driver: &LogDriver) {
    const DRIVERS: [&str; 3] = ["json-file", "local", "none"];
    const OPTIONS: [&str; 2] = ["max-size", "max-file"];
    let LogDriver { name, options } = driver;
    let is_known = name.is_empty() || DRIVERS.contains(&name.as_str());
    found.check(is_known, "log-driver", || format!("\"{name}\" is not built yet; allowed are {}", DRIVERS.join(", ")));
    if !is_known {
        return;
    }
    for (key, value) in options {
        if name == "none" {
            found.add("log-opt", format!("\"{key}\" does not go with log-driver none"));
        } else if key == "max-size" {
            let is_size = parse_bytes(value).is_ok_and(|size| size.0 > 0);
            found.check(is_size, "log-opt", || format!("max-size is \"{value}\"; allowed is a size such as 10m"));
        } else if key == "max-file" {
            let is_count = value.parse::<u32>().is_ok_and(|count| count > 0);
            found.check(is_count, "log-opt", || format!("max-file is \"{value}\"; allowed are whole numbers from 1"));
        } else {
            found.add("log-opt", format!("\"{key}\" is not built yet; allowed are {}", OPTIONS.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::parse::{parse_mount, parse_publish, parse_ulimit};
    use crate::spec::{Balance, Healthcheck, SpreadPreference};

    fn valid() -> ServiceSpec {
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        spec.task.container.image = "nginx:1.27".into();
        spec.task.networks.push(NetworkAttachment {
            target: "front".into(),
            aliases: vec!["web".into()],
            ..Default::default()
        });
        spec.endpoint.ports = parse_publish("8080:80").unwrap();
        spec
    }

    fn set_network(spec: &mut ServiceSpec, target: &str) {
        spec.task.networks = vec![NetworkAttachment { target: target.into(), ..Default::default() }];
    }

    /// Each edit of a valid spec breaks exactly one rule, and the report says which.
    #[test]
    fn each_broken_rule_is_named_with_what_is_allowed() {
        type Edit = fn(&mut ServiceSpec);
        let cases: &[(Edit, &str)] = &[
            (|s| s.name = "a.b".into(), "invalid name: it is \"a.b\""),
            (|s| s.name.clear(), "invalid name: it is empty"),
            (|s| s.task.container.image.clear(), "invalid image: no image"),
            (|s| s.task.container.image = "A".into(), "invalid image: \"A\": the repository name must be lower case"),
            (
                |s| {
                    s.labels.insert("a b".into(), String::new());
                },
                "invalid label: label key \"a b\"",
            ),
            (
                |s| s.mode = ServiceMode::Replicated { replicas: 1_000_001 },
                "invalid replicas: it is 1000001; allowed are 0-1000000",
            ),
            (
                |s| {
                    s.mode = ServiceMode::Global;
                    s.task.placement.max_replicas_per_node = 1;
                },
                "invalid replicas-max-per-node:",
            ),
            (
                |s| s.endpoint.ports = parse_publish("2377:80").unwrap(),
                "invalid publish 2377:80/tcp: port 2377 belongs to the cluster itself; not allowed are 2377, 7946, 4789, 51820",
            ),
            (
                |s| s.endpoint.ports.extend(parse_publish("8080:81").unwrap()),
                "invalid publish 8080:81/tcp: the service publishes the port twice, also as 8080:80/tcp",
            ),
            (
                |s| s.endpoint.ports.extend(parse_publish("[::1]:8080:81").unwrap()),
                "invalid publish [::1]:8080:81/tcp: the service publishes the port twice, also as 8080:80/tcp",
            ),
            (
                |s| s.endpoint.ports = parse_publish("224.0.0.1:8080:80").unwrap(),
                "invalid publish 224.0.0.1:8080:80/tcp: 224.0.0.1 is no address to publish on",
            ),
            (|s| s.endpoint.ports = parse_publish("[fe80::1]::80").unwrap(), "fe80::1 is no address to publish on"),
            (
                |s| {
                    s.endpoint = EndpointSpec { mode: EndpointMode::DnsRr, ..EndpointSpec::default() };
                    s.endpoint.balance.by_client = true;
                },
                "invalid endpoint-affinity: with endpoint-mode dnsrr",
            ),
            (
                |s| {
                    s.endpoint = EndpointSpec { mode: EndpointMode::DnsRr, ..EndpointSpec::default() };
                    s.endpoint.balance.prefers_local = true;
                },
                "invalid endpoint-prefer: with endpoint-mode dnsrr",
            ),
            (
                |s| {
                    set_network(s, "host");
                    s.endpoint.ports = parse_publish("target=80,mode=host,host_ip=10.0.0.1").unwrap();
                },
                "the container chooses the address itself",
            ),
            (|s| s.endpoint.ports[0].target = 0, "target port is 0"),
            (|s| s.endpoint.mode = EndpointMode::DnsRr, "endpoint-mode dnsrr cannot publish in ingress mode"),
            (|s| set_network(s, "host"), "a service with --network host cannot publish in ingress mode"),
            (
                |s| {
                    set_network(s, "host");
                    s.endpoint.ports[0].mode = PublishMode::Host;
                },
                "the published port is the target port",
            ),
            (|s| set_network(s, "none"), "a service with --network none has no ports"),
            (|s| set_network(s, "bridge"), "invalid network bridge: bridge networks are not built yet"),
            (|s| s.task.networks.push(s.task.networks[0].clone()), "invalid network front: it is given twice"),
            (
                |s| {
                    s.endpoint.ports.clear();
                    s.task.networks.push(NetworkAttachment { target: "none".into(), ..Default::default() });
                },
                "cannot be combined",
            ),
            (|s| s.task.networks[0].aliases.push("a b".into()), "alias is \"a b\""),
            (
                |s| {
                    s.task.networks[0].driver_opts.insert("x".into(), "y".into());
                },
                "driver-opt x is not built yet",
            ),
            (|s| s.task.resources.limit_memory = Bytes(1 << 20), "invalid limit-memory: it is 1MiB; at least 6MiB"),
            (|s| s.task.resources.limit_cpu = NanoCpus(1), "invalid limit-cpu: it is 0.000000001; at least 0.01"),
            (
                |s| {
                    s.task.resources.limit_memory = Bytes(8 << 20);
                    s.task.resources.reserve_memory = Bytes(9 << 20);
                },
                "invalid reserve-memory: it is 9MiB, above limit-memory 8MiB",
            ),
            (
                |s| {
                    s.task.resources.limit_cpu = NanoCpus(500_000_000);
                    s.task.resources.reserve_cpu = NanoCpus(1_000_000_000);
                },
                "invalid reserve-cpu: it is 1, above limit-cpu 0.5",
            ),
            (
                |s| s.task.placement.constraints.push("node.x == y".into()),
                "invalid constraint: \"node.x == y\": unknown key",
            ),
            (
                |s| s.task.placement.preferences.push(SpreadPreference { descriptor: "node.id".into() }),
                "invalid placement-pref:",
            ),
            (|s| s.task.container.env.push("=x".into()), "invalid env: a variable has no name"),
            (
                |s| s.task.container.env.push("A={{.Node.ID}}".into()),
                "invalid env: the value of \"A\" is a template, with \"{{\" in it",
            ),
            (
                |s| s.task.container.hostname = "{{.Node.Hostname}}".into(),
                "invalid hostname: \"{{.Node.Hostname}}\" is a template",
            ),
            (|s| s.task.container.hostname = "a_b!".into(), "invalid hostname: it is \"a_b!\""),
            (|s| s.task.container.dir = "srv".into(), "invalid workdir:"),
            (|s| s.task.container.user = "a:".into(), "invalid user: no group"),
            (|s| s.task.container.groups.push("a:b".into()), "invalid group:"),
            (|s| s.task.container.stop_signal = "SIGNOPE".into(), "invalid stop-signal: it is \"SIGNOPE\""),
            (|s| s.task.container.cap_add.push("CAP_NET_ADMIN".into()), "invalid cap-add: \"CAP_NET_ADMIN\""),
            (|s| s.task.container.cap_drop.push("FLY".into()), "invalid cap-drop: \"FLY\""),
            (
                |s| {
                    s.task.container.sysctls.insert("vm.swappiness".into(), "1".into());
                },
                "invalid sysctl: \"vm.swappiness\"",
            ),
            (|s| s.task.container.oom_score_adj = 1001, "invalid oom-score-adj: it is 1001; allowed are -1000 to 1000"),
            (
                |s| s.task.container.ulimits = vec![parse_ulimit("nofile=1").unwrap(); 2],
                "invalid ulimit: \"nofile\" is given twice",
            ),
            (|s| s.task.container.dns.search.push("a b".into()), "invalid dns-search:"),
            (|s| s.task.container.dns.options.push("a b".into()), "invalid dns-option:"),
            (
                |s| {
                    s.task.container.healthcheck = Some(Healthcheck { test: vec!["curl".into()], ..Default::default() })
                },
                "invalid health-cmd: test begins with \"curl\"",
            ),
            (
                |s| s.task.container.healthcheck = Some(Healthcheck { test: vec!["CMD".into()], ..Default::default() }),
                "nothing follows CMD",
            ),
            (
                |s| {
                    s.task.container.healthcheck =
                        Some(Healthcheck { timeout: Some(Duration::from_micros(1)), ..Default::default() })
                },
                "invalid health-timeout: it is 1µs",
            ),
            (
                |s| {
                    s.task.container.mounts =
                        vec![parse_mount("target=/a").unwrap(), parse_mount("target=/a/./").unwrap()]
                },
                "invalid mount /a: two mounts",
            ),
            (
                |s| s.task.container.mounts = vec![parse_mount("target=a").unwrap()],
                "invalid mount a: target is \"a\", not an absolute path",
            ),
            (|s| s.task.container.mounts = vec![parse_mount("target=/").unwrap()], "the root is the image"),
            (
                |s| s.task.container.mounts = vec![parse_mount("type=bind,src=a,target=/a").unwrap()],
                "source is \"a\", not an absolute path",
            ),
            (
                |s| s.task.container.mounts = vec![parse_mount("type=volume,src=/a,target=/a").unwrap()],
                "volume name is \"/a\"",
            ),
            (
                |s| s.task.container.mounts = vec![parse_mount("type=tmpfs,src=x,target=/a").unwrap()],
                "a tmpfs has none",
            ),
            (
                |s| s.task.container.mounts = vec![parse_mount("src=ab,target=/a,volume-subpath=../x").unwrap()],
                "without \"..\"",
            ),
            (
                |s| s.task.log_driver = Some(LogDriver { name: "syslog".into(), ..Default::default() }),
                "invalid log-driver: \"syslog\" is not built yet; allowed are json-file, local, none",
            ),
            (
                |s| {
                    s.task.log_driver =
                        Some(LogDriver { name: "local".into(), options: [("tag".to_string(), "x".to_string())].into() })
                },
                "invalid log-opt: \"tag\" is not built yet; allowed are max-size, max-file",
            ),
            (
                |s| {
                    s.task.log_driver = Some(LogDriver {
                        name: "local".into(),
                        options: [("max-file".to_string(), "0".to_string())].into(),
                    })
                },
                "max-file is \"0\"",
            ),
        ];
        assert_eq!(service_spec(&valid()), []);
        for (edit, expected) in cases {
            let mut spec = valid();
            edit(&mut spec);
            let report: Vec<String> = service_spec(&spec).iter().map(ToString::to_string).collect();
            assert_eq!(report.len(), 1, "{expected}: {report:?}");
            assert!(report[0].contains(expected), "expected {expected}, got {report:?}");
        }
    }

    #[test]
    fn all_violations_come_at_once() {
        let mut spec = valid();
        spec.name = "-".into();
        spec.task.container.image.clear();
        spec.task.container.oom_score_adj = 5000;
        spec.endpoint.ports = parse_publish("7946:80").unwrap();
        let fields: Vec<String> = service_spec(&spec).into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["name", "image", "oom-score-adj", "publish 7946:80/tcp"]);
    }

    #[test]
    fn valid_corners_stay_valid() {
        let mut spec = valid();
        spec.mode = ServiceMode::Replicated { replicas: 0 };
        spec.endpoint.ports =
            ["53:53", "53:53/udp", "53:53/sctp", "80-82", "127.0.0.1:81:80", "[::1]:81:80", "10.0.0.1::80"]
                .map(|text| parse_publish(text).unwrap())
                .concat();
        spec.endpoint.balance = Balance { by_client: true, prefers_local: true };
        spec.task.container.mounts =
            vec![parse_mount("target=/cache").unwrap(), parse_mount("type=tmpfs,target=/run,tmpfs-size=1m").unwrap()];
        spec.task.container.cap_drop = vec!["ALL".into()];
        spec.task.container.stop_signal = "RTMIN+3".into();
        spec.task.container.healthcheck = Some(Healthcheck { test: vec!["NONE".into()], ..Default::default() });
        spec.task.container.env = vec!["A=".into(), "B".into()];
        spec.task.container.sysctls = BTreeMap::from([("net.core.somaxconn".to_string(), "1024".to_string())]);
        assert_eq!(service_spec(&spec), []);
    }
}
