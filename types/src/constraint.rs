//! Constraint expressions: where a task may run, `node.labels.zone == b`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::node::Node;

const ALLOWED: &str = "KEY == VALUE or KEY != VALUE with KEY one of node.id, node.hostname, node.ip, node.role, \
                       node.platform.os, node.platform.arch, node.labels.NAME, engine.labels.NAME";

const NODE_LABELS: &str = "node.labels.";
const ENGINE_LABELS: &str = "engine.labels.";

/// An expression that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("constraint \"{expression}\": {problem}\n       allowed: {ALLOWED}")]
pub struct ConstraintError {
    pub expression: String,
    pub problem: String,
}

/// What of a node is compared. Label names keep their case, as Swarm's do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    /// An address or a network that holds it.
    Ip(IpNet),
    Role,
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
}

/// One constraint. Several of them are all to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    is_equal: bool,
    value: String,
}

impl Constraint {
    /// Reads `KEY == VALUE` or `KEY != VALUE`; white space around the parts does not count.
    ///
    /// # Errors
    /// On another operator, an unknown key, an empty or malformed value.
    pub fn parse(expression: &str) -> Result<Self, ConstraintError> {
        let error = |problem: String| ConstraintError { expression: expression.into(), problem };
        let split = |operator| expression.split_once(operator);
        let (key, value, is_equal) = match (split("=="), split("!=")) {
            (Some((a, b)), Some((c, _))) if a.len() < c.len() => (a, b, true),
            (_, Some((key, value))) => (key, value, false),
            (Some((key, value)), None) => (key, value, true),
            (None, None) => return Err(error("no \"==\" or \"!=\"".into())),
        };
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() {
            return Err(error("no value".into()));
        }
        if let Some(bad) = value.chars().find(|c| !is_value_character(*c)) {
            return Err(error(format!("\"{bad}\" cannot be in a value")));
        }
        let key = read_key(key, value).map_err(error)?;
        Ok(Self { key, is_equal, value: value.into() })
    }

    /// Whether a node satisfies it. Values compare without case; a label that a node lacks is empty.
    pub fn matches(&self, node: &Node) -> bool {
        let description = &node.description;
        let equals = |actual: &str| actual.eq_ignore_ascii_case(&self.value);
        let holds = match &self.key {
            Key::Id => equals(&node.id.to_string()),
            Key::Hostname => equals(&description.hostname),
            Key::Ip(net) => node.status.address.is_some_and(|address| net.contains(&address)),
            Key::Role => equals(&node.membership.role.to_string()),
            Key::Os => equals(&description.platform.os),
            Key::Arch => go_arch(&description.platform.architecture).eq_ignore_ascii_case(go_arch(&self.value)),
            Key::NodeLabel(name) => equals(node.spec.labels.get(name).map_or("", String::as_str)),
            Key::EngineLabel(name) => equals(description.engine_labels.get(name).map_or("", String::as_str)),
        };
        holds == self.is_equal
    }
}

/// The characters that Swarm takes in a value.
fn is_value_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":-_.*()?+[]\\^$|/".contains(c)
}

fn read_key(key: &str, value: &str) -> Result<Key, String> {
    let label = |prefix: &str| {
        let (head, name) = key.split_at_checked(prefix.len())?;
        (head.eq_ignore_ascii_case(prefix) && !name.is_empty()).then(|| name.to_owned())
    };
    if let Some(name) = label(NODE_LABELS) {
        return check_label_name(name).map(Key::NodeLabel);
    }
    if let Some(name) = label(ENGINE_LABELS) {
        return check_label_name(name).map(Key::EngineLabel);
    }
    match key.to_ascii_lowercase().as_str() {
        "node.id" => Ok(Key::Id),
        "node.hostname" => Ok(Key::Hostname),
        "node.ip" => {
            let net = value.parse::<IpNet>().or_else(|_| value.parse::<IpAddr>().map(IpNet::from));
            net.map(Key::Ip).map_err(|_| format!("\"{value}\" is neither an address nor a network such as 10.0.0.0/8"))
        }
        "node.role" if ["manager", "worker"].iter().any(|role| value.eq_ignore_ascii_case(role)) => Ok(Key::Role),
        "node.role" => Err(format!("role is \"{value}\", not manager or worker")),
        "node.platform.os" => Ok(Key::Os),
        "node.platform.arch" => Ok(Key::Arch),
        "" => Err("no key".into()),
        _ => Err(format!("unknown key \"{key}\"")),
    }
}

fn check_label_name(name: String) -> Result<String, String> {
    let is_good = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if is_good {
        Ok(name)
    } else {
        Err(format!("\"{name}\" cannot be a label's name here: allowed are letters, digits and - _ . /"))
    }
}

/// The architecture in Go's name, as images have it.
pub fn go_arch(name: &str) -> &str {
    if name.eq_ignore_ascii_case("x86_64") {
        "amd64"
    } else if name.eq_ignore_ascii_case("aarch64") {
        "arm64"
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::spec::Role;

    fn node() -> Node {
        let mut node = Node { id: NodeId(7), ..Node::default() };
        node.spec.labels = [("zone".to_string(), "B".to_string()), ("a.b/c".to_string(), "x y".to_string())].into();
        node.description.hostname = "Host1".into();
        node.description.platform.os = "linux".into();
        node.description.platform.architecture = "amd64".into();
        node.description.engine_labels = [("disk".to_string(), "ssd".to_string())].into();
        node.status.address = Some([10, 1, 2, 3].into());
        node.membership.role = Role::Manager;
        node
    }

    #[test]
    fn expressions_match_as_swarms_do() {
        let id = NodeId(7).to_string();
        for (expression, holds) in [
            (format!("node.id=={id}"), true),
            (format!("node.id != {id}"), false),
            ("node.hostname == host1".into(), true),
            ("NODE.HOSTNAME==HOST1".into(), true),
            ("node.ip == 10.1.2.3".into(), true),
            ("node.ip == 10.1.0.0/16".into(), true),
            ("node.ip != 10.1.0.0/16".into(), false),
            ("node.ip == 10.2.0.0/16".into(), false),
            ("node.role == Manager".into(), true),
            ("node.role!=worker".into(), true),
            ("node.platform.os==linux".into(), true),
            ("node.platform.arch == x86_64".into(), true),
            ("node.platform.arch == arm64".into(), false),
            ("node.labels.zone == b".into(), true),
            ("node.labels.Zone == b".into(), false),
            ("node.labels.zone != a".into(), true),
            ("node.labels.none != a".into(), true),
            ("node.labels.none == a".into(), false),
            ("node.labels.a.b/c == X Y".into(), true),
            ("engine.labels.disk == SSD".into(), true),
        ] {
            assert_eq!(Constraint::parse(&expression).unwrap().matches(&node()), holds, "{expression}");
        }
    }

    #[test]
    fn a_node_without_address_is_in_no_network() {
        let mut node = node();
        node.status.address = None;
        assert!(!Constraint::parse("node.ip == 0.0.0.0/0").unwrap().matches(&node));
    }

    #[test]
    fn bad_expressions_say_what_is_wrong() {
        for (expression, problem) in [
            ("", "no \"==\" or \"!=\""),
            ("node.id = 5", "no \"==\" or \"!=\""),
            ("node.id == ", "no value"),
            ("== b", "no key"),
            ("node.colour == red", "unknown key \"node.colour\""),
            ("node.labels. == red", "unknown key \"node.labels.\""),
            (
                "node.labels.a b == red",
                "\"a b\" cannot be a label's name here: allowed are letters, digits and - _ . /",
            ),
            ("node.labels.zone == b;c", "\";\" cannot be in a value"),
            ("node.labels.zone != a == b", "\"=\" cannot be in a value"),
            ("node.role == boss", "role is \"boss\", not manager or worker"),
            ("node.ip == 10.0.0.0/99", "\"10.0.0.0/99\" is neither an address nor a network such as 10.0.0.0/8"),
        ] {
            assert_eq!(Constraint::parse(expression).unwrap_err().problem, problem, "{expression}");
        }
    }
}
