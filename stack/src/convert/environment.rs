//! Environment variables of a service.

use std::collections::BTreeMap;

use rswarm_types::parse::parse_env_file;

use super::Context;
use super::service::Origins;
use crate::report::Report;
use crate::tree::Entry;

/// `KEY=VALUE`, sorted. The files of `env_file` come first, `environment` over them; a variable
/// without value, or with an empty one, takes the caller's value where there is one.
pub fn environment(
    context: &Context<'_>,
    service: &Entry,
    origins: &mut Origins,
    report: &mut Report<'_>,
) -> Vec<String> {
    let mut variables: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut set = |key: String, value: Option<String>| {
        let own = context.env.get(&key).filter(|_| value.as_deref().is_none_or(str::is_empty));
        let value = own.cloned().or(value);
        variables.insert(key, value);
    };
    for variable in files(context, service, report) {
        if let Some((key, value)) = variable.split_once('=') {
            set(key.into(), Some(value.into()));
        }
    }
    if let Some(node) = service.value.get("environment") {
        let path = format!("services.{}.environment", service.key);
        for pair in report.pairs(&path, node) {
            if pair.key.is_empty() {
                report.error(pair.place, format!("{path} has a variable without a name"));
            }
            origins.add("env", &format!("\"{}\"", pair.key), pair.place);
            set(pair.key, pair.value);
        }
    }
    let joined = variables.into_iter().map(|(key, value)| match value {
        Some(value) => format!("{key}={value}"),
        None => key,
    });
    let mut joined: Vec<String> = joined.collect();
    joined.sort();
    joined
}

fn files(context: &Context<'_>, service: &Entry, report: &mut Report<'_>) -> Vec<String> {
    let Some(node) = service.value.get("env_file") else {
        return Vec::new();
    };
    let path = format!("services.{}.env_file", service.key);
    let lookup = |key: &str| context.env.get(key).cloned();
    let mut variables = Vec::new();
    for (place, name) in report.one_or_more(&path, node) {
        let file = context.absolute(&name);
        let text = match (context.read)(&file) {
            Ok(text) => text,
            Err(error) => {
                report.error(place, format!("{path}: cannot read {}: {error}", file.display()));
                continue;
            }
        };
        match parse_env_file(&text, &lookup) {
            Ok(more) => variables.extend(more),
            Err(error) => report.error(place, format!("{path}: {}: {error}", file.display())),
        }
    }
    variables
}
