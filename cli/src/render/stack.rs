//! `stack ls`.

use std::collections::BTreeMap;

use rswarm_stack::NAMESPACE_LABEL;

use crate::json::Object;
use crate::listing::Listing;
use crate::view::ServiceView;

/// The stack that a service belongs to.
pub fn of(view: &ServiceView) -> Option<&str> {
    view.service.spec.labels.get(NAMESPACE_LABEL).map(String::as_str)
}

/// The stacks that services belong to, by name.
pub fn listing(services: &[ServiceView]) -> Listing {
    let mut stacks: BTreeMap<&str, u64> = BTreeMap::new();
    for name in services.iter().filter_map(of) {
        *stacks.entry(name).or_default() += 1;
    }
    let record = |(name, services): (&str, u64)| {
        Object::new()
            .with("Name", name)
            .with("Services", services.to_string())
            .with("Orchestrator", "Swarm")
            .with("Namespace", "")
    };
    Listing {
        headers: &[
            ("Name", "NAME"),
            ("Services", "SERVICES"),
            ("Orchestrator", "ORCHESTRATOR"),
            ("Namespace", "NAMESPACE"),
        ],
        table: "{{.Name}}\t{{.Services}}",
        quiet: "Name",
        records: stacks.into_iter().map(record).collect(),
    }
}
