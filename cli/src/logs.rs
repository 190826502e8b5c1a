//! Lines of `service logs`. Pure.

use std::time::Duration;

use jiff::Timestamp;
use rswarm_types::TaskId;
use rswarm_types::parse::parse_duration;
use rswarm_types::session::LogLine;
use rswarm_types::task::{Slot, Task};

use crate::args::service::Logs;
use crate::errors::{Error, Result};
use crate::human::log_time;
use crate::view::NodeNames;

/// How lines are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub raw: bool,
    pub timestamps: bool,
    pub details: bool,
    pub no_task_ids: bool,
    pub no_trunc: bool,
    pub no_resolve: bool,
}

impl From<&Logs> for Style {
    fn from(args: &Logs) -> Self {
        Self {
            raw: args.raw,
            timestamps: args.timestamps,
            details: args.details,
            no_task_ids: args.no_task_ids,
            no_trunc: args.no_trunc,
            no_resolve: args.no_resolve,
        }
    }
}

/// `--tail`: a number, or all.
///
/// # Errors
/// On anything else.
pub fn tail(text: &str) -> Result<Option<u64>> {
    match text {
        "all" | "-1" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Error::Usage(format!(
                "invalid --tail \"{text}\": not a number of lines\n       allowed: a whole number from 0, or all"
            ))
        }),
    }
}

/// `--since`: a moment, or how long ago; Unix nanoseconds.
///
/// # Errors
/// On what is neither.
pub fn since(text: &str, now: Timestamp) -> Result<u64> {
    let ago = |ago: Duration| now.as_nanosecond() - i128::try_from(ago.as_nanos()).unwrap_or(i128::MAX);
    let nanos =
        parse_duration(text).map(ago).ok().or_else(|| unix(text)).or_else(|| moment(text).map(|at| at.as_nanosecond()));
    nanos.map(|n| u64::try_from(n).unwrap_or(0)).ok_or_else(|| {
        Error::Usage(format!(
            "invalid --since \"{text}\": not a time\n       allowed: 2026-01-02T13:23:37Z, 2026-01-02, Unix seconds, or how long ago, e.g. 42m"
        ))
    })
}

/// `SECONDS[.FRACTION]`.
fn unix(text: &str) -> Option<i128> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let nanos: i128 = format!("{fraction:0<9}").parse().ok()?;
    Some(i128::from(seconds.parse::<u64>().ok()?) * 1_000_000_000 + nanos)
}

/// A date with or without a time; without a zone, in UTC.
fn moment(text: &str) -> Option<Timestamp> {
    let utc = |civil: jiff::civil::DateTime| civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp());
    text.parse::<Timestamp>().ok().or_else(|| utc(text.parse::<jiff::civil::DateTime>().ok()?))
}

/// What stands before the lines of one task: `web.1.8lz2cx0q7v5d@w1    | `, padded to the widest
/// slot of the service.
pub fn prefix(task: &Task, nodes: &NodeNames, style: Style) -> String {
    let mut id = task.id.to_string();
    if !style.no_trunc {
        id.truncate(rswarm_types::id::SHORT_ID_LENGTH);
    }
    let service = if style.no_resolve { task.service.to_string() } else { task.spec.name.clone() };
    let mut name = match task.slot {
        Slot::Number(slot) => format!("{service}.{slot}"),
        Slot::Node(node) if style.no_trunc => format!("{service}.{node}"),
        Slot::Node(node) => format!("{service}.{}", node.short()),
    };
    if !style.no_task_ids {
        name = format!("{name}.{id}");
    }
    let node = match task.node {
        None => String::new(),
        Some(node) => match nodes.get(&node) {
            Some(name) if !style.no_resolve => name.clone(),
            _ => node.to_string(),
        },
    };
    let padding = match (task.slot, task.spec.mode) {
        (Slot::Number(slot), rswarm_types::spec::ServiceMode::Replicated { replicas }) => {
            replicas.to_string().len().saturating_sub(slot.to_string().len())
        }
        _ => 0,
    };
    format!("{name}@{node}{}    | ", " ".repeat(padding))
}

/// One line as it is printed, with its end.
pub fn line(line: &LogLine, prefix: &str, service: &str, style: Style) -> Vec<u8> {
    let mut out = String::new();
    if style.timestamps {
        out.push_str(&log_time(line.at_ns));
        out.push(' ');
    }
    if !style.raw {
        out.push_str(prefix);
    }
    if style.details {
        let details = format!(
            "com.docker.swarm.node.id={},com.docker.swarm.service.id={service},com.docker.swarm.task.id={} ",
            line.node, line.task
        );
        out.push_str(&details);
    }
    let mut out = out.into_bytes();
    out.extend_from_slice(&line.text);
    out.push(b'\n');
    out
}

/// A prefix for lines of a task that is not known any more.
pub fn unknown_prefix(task: TaskId) -> String {
    format!("{}    | ", task.short())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rswarm_types::spec::{ServiceMode, ServiceSpec};
    use rswarm_types::{NodeId, ServiceId};

    fn task(slot: u64) -> Task {
        let spec = ServiceSpec {
            name: "web".into(),
            mode: ServiceMode::Replicated { replicas: 10 },
            ..ServiceSpec::default()
        };
        Task {
            id: TaskId(u128::MAX),
            service: ServiceId(1),
            slot: Slot::Number(slot),
            node: Some(NodeId(2)),
            spec: spec.into(),
            ..Task::default()
        }
    }

    fn text(style: Style) -> String {
        let nodes = [(NodeId(2), "w1".to_owned())].into();
        let logged = LogLine {
            task: TaskId(u128::MAX),
            node: NodeId(2),
            is_stderr: false,
            at_ns: 1_500_000_000,
            text: b"hello".to_vec(),
        };
        let service = task(1).service.to_string();
        String::from_utf8(line(&logged, &prefix(&task(1), &nodes, style), &service, style)).unwrap()
    }

    #[test]
    fn lines_look_as_dockers() {
        let style = Style::default();
        assert_eq!(text(style), "web.1.f5lxx1zz5pno@w1     | hello\n");
        assert_eq!(text(Style { no_task_ids: true, ..style }), "web.1@w1     | hello\n");
        assert_eq!(text(Style { raw: true, ..style }), "hello\n");
        assert_eq!(text(Style { raw: true, timestamps: true, ..style }), "1970-01-01T00:00:01.500000000Z hello\n");
        assert!(
            text(Style { details: true, ..style }).contains("| com.docker.swarm.node.id=0000000000000000000000002,")
        );
        assert!(text(Style { no_trunc: true, ..style }).starts_with("web.1.f5lxx1zz5pnorynqglhzmsp33@w1"));
        assert!(text(Style { no_resolve: true, ..style }).starts_with("0000000000000000000000001.1."));
    }

    #[test]
    fn prefixes_of_one_service_are_equally_wide() {
        let nodes = [(NodeId(2), "w1".to_owned())].into();
        let width = |slot| prefix(&task(slot), &nodes, Style::default()).len();
        assert_eq!(width(1), width(10));
    }

    #[test]
    fn since_is_a_moment_or_a_duration() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let nanos = |text: &str| u64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap();
        for (text, expected) in [
            ("42m", "2026-11-21T09:18:00Z"),
            ("1h30m", "2026-11-21T08:30:00Z"),
            ("2026-01-02T13:23:37Z", "2026-01-02T13:23:37Z"),
            ("2026-01-02T13:23:37+02:00", "2026-01-02T11:23:37Z"),
            ("2026-01-02T13:23", "2026-01-02T13:23:00Z"),
            ("2026-01-02", "2026-01-02T00:00:00Z"),
            ("1500000000", "2017-07-14T02:40:00Z"),
            ("1500000000.5", "2017-07-14T02:40:00.5Z"),
        ] {
            assert_eq!(since(text, now).unwrap(), nanos(expected), "{text}");
        }
        for wrong in ["yesterday", "", "-5m", "2026-13-01"] {
            assert_eq!(since(wrong, now).unwrap_err().code(), 2, "{wrong}");
        }
    }

    #[test]
    fn tail_is_a_number_or_all() {
        assert_eq!((tail("all").unwrap(), tail("0").unwrap(), tail("20").unwrap()), (None, Some(0), Some(20)));
        assert!(tail("-5").unwrap_err().to_string().contains("--tail \"-5\""));
    }
}
