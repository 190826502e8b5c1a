//! `node update`.

use rswarm_types::spec::NodeSpec;
use rswarm_types::validate;

use super::{Problems, choice};
use crate::args::node::Update;
use crate::errors::Result;

/// Puts the changes into a node's spec.
///
/// # Errors
/// Everything that is wrong with the flags, and with the spec that they make.
pub fn change_node(args: &Update, spec: &mut NodeSpec) -> Result<()> {
    let mut problems = Problems::default();
    if let Some(availability) = problems.read("--availability", args.availability.as_ref(), choice) {
        spec.availability = availability;
    }
    if let Some(role) = problems.read("--role", args.role.as_ref(), choice) {
        spec.role = role;
    }
    if let Some(control) = problems.read("--control", args.control.as_ref(), choice) {
        spec.control = control;
    }
    for key in &args.label_rm {
        if spec.labels.remove(key).is_none() {
            problems.add("--label-rm", format!("\"{key}\": the node has no such label"));
        }
    }
    spec.labels.extend(problems.labels("--label-add", &args.label_add));
    problems.broken(validate::node_spec(spec));
    problems.finish()
}
