//! The flags that create and update share, each to its field.

use rswarm_types::parse::choice::{AffinityWord, PreferWord};
use rswarm_types::parse::{parse_bytes, parse_cpus, parse_duration, parse_label, parse_user, split_words};
use rswarm_types::spec::{Healthcheck, LogDriver, ServiceMode, ServiceSpec, UpdateConfig};

use super::{Problems, choice};
use crate::args::service_flags::{RollbackFlags, SpecFlags, UpdateFlags};

/// Sets `$place` if the flag was given and can be read.
macro_rules! set {
    ($place:expr, $value:expr) => {
        if let Some(value) = $value {
            $place = value;
        }
    };
}

/// Puts the flags into a spec.
pub fn apply(flags: &SpecFlags, spec: &mut ServiceSpec, problems: &mut Problems) {
    container(flags, spec, problems);
    capabilities(flags, spec, problems);
    health(flags, spec, problems);
    let task = &mut spec.task;
    let resources = &mut task.resources;
    set!(resources.limit_cpu, problems.read("--limit-cpu", flags.limit_cpu.as_ref(), parse_cpus));
    set!(resources.limit_memory, problems.read("--limit-memory", flags.limit_memory.as_ref(), parse_bytes));
    // Docker takes -1 as "no limit" too.
    set!(resources.limit_pids, flags.limit_pids.map(|n| u64::try_from(n).unwrap_or(0)));
    set!(resources.reserve_cpu, problems.read("--reserve-cpu", flags.reserve_cpu.as_ref(), parse_cpus));
    set!(resources.reserve_memory, problems.read("--reserve-memory", flags.reserve_memory.as_ref(), parse_bytes));
    let restart = &mut task.restart;
    set!(restart.condition, problems.read("--restart-condition", flags.restart_condition.as_ref(), choice));
    set!(restart.delay, problems.read("--restart-delay", flags.restart_delay.as_ref(), parse_duration));
    set!(restart.max_attempts, flags.restart_max_attempts);
    set!(restart.window, problems.read("--restart-window", flags.restart_window.as_ref(), parse_duration));
    set!(task.placement.max_replicas_per_node, flags.replicas_max_per_node);
    log_driver(flags, spec, problems);
    set!(spec.endpoint.mode, problems.read("--endpoint-mode", flags.endpoint_mode.as_ref(), choice));
    let affinity = problems.read("--endpoint-affinity", flags.endpoint_affinity.as_ref(), choice::<AffinityWord>);
    set!(spec.endpoint.balance.by_client, affinity.map(|word| word == AffinityWord::ClientIp));
    let prefer = problems.read("--endpoint-prefer", flags.endpoint_prefer.as_ref(), choice::<PreferWord>);
    set!(spec.endpoint.balance.prefers_local, prefer.map(|word| word == PreferWord::Local));
    if let Some(wanted) = flags.replicas {
        match &mut spec.mode {
            ServiceMode::Replicated { replicas } => *replicas = wanted,
            ServiceMode::Global => {
                problems.say("invalid --replicas: a global service has one task on each node; leave --replicas out")
            }
        }
    }
    update(&flags.update, &mut spec.update, problems);
    rollback(&flags.rollback, &mut spec.rollback, problems);
}

fn container(flags: &SpecFlags, spec: &mut ServiceSpec, problems: &mut Problems) {
    let container = &mut spec.task.container;
    set!(container.command, problems.read("--entrypoint", flags.entrypoint.as_ref(), split_words));
    set!(container.hostname, flags.hostname.clone());
    set!(container.dir, flags.workdir.clone());
    set!(
        container.user,
        problems.read("--user", flags.user.as_ref(), |text| if text.is_empty() {
            Ok(String::new())
        } else {
            parse_user(text)
        })
    );
    if flags.init.is_some() {
        container.init = flags.init;
    }
    set!(container.privileges.no_new_privileges, flags.no_new_privileges);
    set!(container.read_only, flags.read_only);
    set!(container.tty, flags.tty);
    set!(container.oom_score_adj, flags.oom_score_adj);
    set!(container.stop_signal, flags.stop_signal.clone());
    let grace = problems.read("--stop-grace-period", flags.stop_grace_period.as_ref(), parse_duration);
    if grace.is_some() {
        container.stop_grace = grace;
    }
}

/// Adding wins over dropping: what is added leaves the dropped, what is dropped leaves the added.
fn capabilities(flags: &SpecFlags, spec: &mut ServiceSpec, problems: &mut Problems) {
    let container = &mut spec.task.container;
    let (added, dropped) = (names(&flags.cap_add), names(&flags.cap_drop));
    for name in added.iter().filter(|name| dropped.contains(name) && *name != "ALL") {
        problems.say(format!("capability {name} is in both --cap-add and --cap-drop: name it once"));
    }
    container.cap_add.retain(|name| !dropped.contains(name));
    container.cap_drop.retain(|name| !added.contains(name));
    for (names, list) in [(added, &mut container.cap_add), (dropped, &mut container.cap_drop)] {
        list.extend(names);
        list.sort();
        list.dedup();
    }
}

/// Upper case without the prefix, as specs hold them.
fn names(flags: &[String]) -> Vec<String> {
    flags
        .iter()
        .map(|name| name.trim().to_ascii_uppercase())
        .map(|name| name.strip_prefix("CAP_").map_or(name.clone(), str::to_owned))
        .collect()
}

fn health(flags: &SpecFlags, spec: &mut ServiceSpec, problems: &mut Problems) {
    let check = Healthcheck {
        test: flags.health_cmd.iter().flat_map(|cmd| ["CMD-SHELL".to_owned(), cmd.clone()]).collect(),
        interval: problems.read("--health-interval", flags.health_interval.as_ref(), parse_duration),
        timeout: problems.read("--health-timeout", flags.health_timeout.as_ref(), parse_duration),
        start_period: problems.read("--health-start-period", flags.health_start_period.as_ref(), parse_duration),
        start_interval: problems.read("--health-start-interval", flags.health_start_interval.as_ref(), parse_duration),
        retries: flags.health_retries.unwrap_or(0),
    };
    let is_given = check != Healthcheck::default() || flags.health_retries.is_some();
    if flags.no_healthcheck {
        if is_given {
            problems.say("--no-healthcheck does not go with --health-…: leave one of them out");
        }
        spec.task.container.healthcheck = Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() });
        return;
    }
    if !is_given {
        return;
    }
    let kept = spec.task.container.healthcheck.take().unwrap_or_default();
    let test = match (check.test.is_empty(), kept.is_disabled()) {
        (false, _) => check.test,
        // Other settings switch the image's own check on again.
        (true, true) => Vec::new(),
        (true, false) => kept.test,
    };
    spec.task.container.healthcheck = Some(Healthcheck {
        test,
        interval: check.interval.or(kept.interval),
        timeout: check.timeout.or(kept.timeout),
        start_period: check.start_period.or(kept.start_period),
        start_interval: check.start_interval.or(kept.start_interval),
        retries: flags.health_retries.unwrap_or(kept.retries),
    });
}

fn log_driver(flags: &SpecFlags, spec: &mut ServiceSpec, problems: &mut Problems) {
    if flags.log_driver.is_none() && flags.log_opt.is_empty() {
        return;
    }
    let options = problems.each("--log-opt", &flags.log_opt, parse_label).into_iter().collect();
    spec.task.log_driver = Some(match &flags.log_driver {
        Some(name) => LogDriver { name: name.clone(), options },
        None => {
            let mut driver = spec.task.log_driver.take().unwrap_or_default();
            driver.options.extend(options);
            driver
        }
    });
}

fn update(flags: &UpdateFlags, config: &mut Option<UpdateConfig>, problems: &mut Problems) {
    rollout(
        config,
        &Rollout {
            name: "update",
            parallelism: flags.update_parallelism,
            delay: flags.update_delay.as_ref(),
            failure_action: flags.update_failure_action.as_ref(),
            ratio: flags.update_max_failure_ratio,
            monitor: flags.update_monitor.as_ref(),
            order: flags.update_order.as_ref(),
        },
        problems,
    );
}

fn rollback(flags: &RollbackFlags, config: &mut Option<UpdateConfig>, problems: &mut Problems) {
    rollout(
        config,
        &Rollout {
            name: "rollback",
            parallelism: flags.rollback_parallelism,
            delay: flags.rollback_delay.as_ref(),
            failure_action: flags.rollback_failure_action.as_ref(),
            ratio: flags.rollback_max_failure_ratio,
            monitor: flags.rollback_monitor.as_ref(),
            order: flags.rollback_order.as_ref(),
        },
        problems,
    );
}

/// The flags of an update or of a rollback.
struct Rollout<'a> {
    name: &'a str,
    parallelism: Option<u64>,
    delay: Option<&'a String>,
    failure_action: Option<&'a String>,
    ratio: Option<f64>,
    monitor: Option<&'a String>,
    order: Option<&'a String>,
}

fn rollout(config: &mut Option<UpdateConfig>, flags: &Rollout<'_>, problems: &mut Problems) {
    let Rollout { name, parallelism, delay, failure_action, ratio, monitor, order } = flags;
    if ratio.is_some_and(|ratio| ratio != 0.0) {
        problems.say(format!("--{name}-max-failure-ratio other than 0 is not built yet"));
    }
    let flag = |end: &str| format!("--{name}-{end}");
    let delay = problems.read(&flag("delay"), *delay, parse_duration);
    let failure_action = problems.read(&flag("failure-action"), *failure_action, choice);
    let monitor = problems.read(&flag("monitor"), *monitor, parse_duration);
    let order = problems.read(&flag("order"), *order, choice);
    let old = config.unwrap_or_default();
    let new = UpdateConfig {
        parallelism: parallelism.unwrap_or(old.parallelism),
        delay: delay.unwrap_or(old.delay),
        failure_action: failure_action.unwrap_or(old.failure_action),
        monitor: monitor.unwrap_or(old.monitor),
        order: order.unwrap_or(old.order),
    };
    if config.is_some() || new != UpdateConfig::default() {
        *config = Some(new);
    }
}
